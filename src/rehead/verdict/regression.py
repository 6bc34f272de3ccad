"""What held-out photos say of a model that gives each photo a number: (numbers, true numbers) in, a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rehead.errors import counted, escaped
from rehead.verdict.bootstrap import Estimate, estimate
from rehead.verdict.compare import Scored
from rehead.verdict.metrics import N_MISTAKES, of_side


@dataclass(frozen=True)
class ValueMistake:
    """A photo whose number is far off."""

    path: str
    value: float
    predicted: float


@dataclass(frozen=True, kw_only=True)
class RegressionVerdict:
    """mae: the mean of how far off the numbers are; rmse: the root of the mean square of it. r2: 1 less the squares that
    are left as a share of those around the mean, None where all photos have one number. baseline: the mae of always
    naming `median`, that of the photos learned from. The rest is as in `metrics.Verdict`.
    """

    task: ClassVar[str] = "regression"
    side: str
    mae: Estimate
    rmse: Estimate
    r2: Estimate | None
    baseline: Estimate
    median: float
    mistakes: tuple[ValueMistake, ...]
    n_train: int = 0
    partial: bool = False
    leaks: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())
    alone: Scored | None = None

    @property
    def n(self) -> int:
        """How many photos were looked at."""
        return self.mae.n

    @property
    def headline(self) -> str:
        return f"{of_side(self.side)}mean error {self.mae} on {counted(self.n, 'photo')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"task": self.task, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RegressionVerdict:
        """The opposite of `to_dict`. Raises KeyError or TypeError for what is no verdict."""
        known = {
            **{name: Estimate(**values[name]) for name in ("mae", "rmse", "baseline")},
            "r2": None if values["r2"] is None else Estimate(**values["r2"]),
            "mistakes": tuple(ValueMistake(**mistake) for mistake in values["mistakes"]),
            "leaks": tuple(values["leaks"]),
            "notes": tuple(values["notes"]),
            "alone": None if values.get("alone") is None else Scored.from_dict(values["alone"]),
        }
        return cls(**{name: value for name, value in values.items() if name != "task"} | known)


def judge_numbers(
    predicted: NDArray[np.floating[Any]],
    values: NDArray[np.floating[Any]],
    *,
    median: float,
    paths: Sequence[str],
    side: str,
    **about: Any,
) -> RegressionVerdict:
    """The verdict on n photos. predicted, values: (n,). median: of the photos learned from. about: the verdict's own facts."""
    y = values.astype(np.float64)
    off = _off(predicted, values)
    mae, rmse, baseline = _mean_of(off), _mean_of(np.square(off), root=True), _mean_of(np.abs(y - median))
    worst = np.argsort(-off, kind="stable")[:N_MISTAKES]
    return RegressionVerdict(
        side=side,
        mae=mae,
        rmse=rmse,
        r2=r_squared(predicted, values),
        baseline=baseline,
        median=float(median),
        mistakes=tuple(ValueMistake(escaped(paths[i]), float(values[i]), float(predicted[i])) for i in worst if off[i]),
        **about,
    )


def mean_error(predicted: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]) -> Estimate:
    """How far off they are on average, with an interval by resampling the photos. predicted, values: (n,), n >= 1."""
    return _mean_of(_off(predicted, values))


def _off(predicted: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.abs(predicted.astype(np.float64) - values.astype(np.float64))


def r_squared(
    predicted: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]], *, seed: int = 0
) -> Estimate | None:
    """The coefficient of determination, at most 1, with an interval by resampling; None where the values do not differ."""
    return estimate(r_squared_of(predicted, values), len(values), seed=seed)


def r_squared_of(
    predicted: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The same as a statistic of weighted photos, see `bootstrap.estimate`."""
    y = values.astype(np.float64) - values.mean(dtype=np.float64)
    left = np.square(values.astype(np.float64) - predicted)

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        n = weights.sum(axis=1)
        around = weights @ np.square(y) - np.square(weights @ y) / n
        varies = around > 1e-12 * (weights @ np.square(y))
        share = np.divide(weights @ left, around, out=np.full(len(n), np.nan), where=varies)
        return np.asarray(1 - share)

    return statistic


def _mean_of(numbers: NDArray[np.float64], *, root: bool = False) -> Estimate:
    """The mean of numbers that are not negative, or its root, with an interval by resampling the photos."""

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means = weights @ numbers / len(numbers)
        return np.asarray(np.sqrt(means) if root else means)

    found = estimate(statistic, len(numbers))
    assert found is not None  # numbers are finite
    return found
