"""What held-out photos say of a form beside the model it was made from: the same photos, the same cores, one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle_facts import Task
from rehead.parallel import ordered_map
from rehead.predict import BATCH, Model
from rehead.prediction import Prediction
from rehead.verdict.average_precision import mean_ap_of
from rehead.verdict.bootstrap import Estimate, estimate
from rehead.verdict.compare import paired
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.regression import r_squared_of

A_POINT = 0.01
ROUNDING = 1e-9  # a drop of one point exactly is not over it
REPEATS = 5
MAX_REPEAT_S = 2.0  # so that a slow network is timed in half a minute
METRICS: dict[Task, str] = {"classification": "accuracy", "multilabel": "mAP", "regression": "R2"}


@dataclass(frozen=True)
class Figures:
    """Of one form. score: the task's main number, see `METRICS`; None where it is not defined. mae: of numbers. unsure,
    unfamiliar: the share of photos that are called so, None where the bundle does not say. photos_per_s: prepared photos,
    median of REPEATS."""

    score: Interval | Estimate | None
    mae: Estimate | None
    unsure: float | None
    unfamiliar: float | None
    size_bytes: int
    photos_per_s: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """n: photos. same: the share of them that get the same class, or labels. largest, mean: how far probabilities, or numbers,
    are apart. difference: what the variant's score has over the original's, photo by photo; None where one is not defined.
    settings: of the making. notes: what is to be known of the photos, as sentences."""

    n: int
    side: str
    metric: str
    same: float | None
    largest: float
    mean: float
    original: Figures
    variant: Figures
    difference: Estimate | None
    cores: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_worse(self) -> bool:
        """Whether the score is more than a point lower."""
        return self.difference is not None and self.difference.value < -A_POINT - ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; they stand in the bundle."""
        return asdict(self)


def compared(
    task: Task, said: tuple[Sequence[Prediction], Sequence[Prediction]], classes: Sequence[str], targets: NDArray[Any]
) -> dict[str, Any]:
    """Scores, difference and agreement of two forms on n photos. targets: see `data/targets.py`. The keys are `Measured`'s,
    but score, mae, unsure and unfamiliar are pairs."""
    given = tuple(_numbers(task, one, classes) for one in said)
    apart = np.abs(given[0] - given[1])
    found: dict[str, Any] = {
        "n": len(targets),
        "metric": METRICS[task],
        "same": None if task == "regression" else _share([a.labels == b.labels for a, b in zip(*said, strict=True)]),
        "largest": float(apart.max()),
        "mean": float(apart.mean()),
        "mae": (None, None),
        **{name: tuple(_flagged(name, one) for one in said) for name in ("unsure", "unfamiliar")},
    }
    if task == "classification":
        right = tuple(p.argmax(axis=1) == targets for p in given)
        found["score"] = tuple(wilson(int(r.sum()), len(r)) for r in right)
        found["difference"] = paired(right[0], right[1], targets.astype(np.int64)).difference
        return found
    statistics_of: Callable[..., Any] = mean_ap_of if task == "multilabel" else r_squared_of
    each = [statistics_of(p if task == "multilabel" else p[:, 0], targets) for p in given]
    columns = targets.shape[1] if task == "multilabel" else 1
    found["score"] = tuple(None if one is None else estimate(one, len(targets), n_columns=columns) for one in each)
    found["difference"] = None
    if each[0] is not None and each[1] is not None:
        found["difference"] = estimate(lambda w: each[1](w) - each[0](w), len(targets), n_columns=2 * columns)
    if task == "regression":
        off = [np.abs(p[:, 0].astype(np.float64) - targets) for p in given]
        found["mae"] = tuple(estimate(_mean(o), len(targets)) for o in off)
    return found


def rates(models: Sequence[Model], pixels: NDArray[np.uint8]) -> list[float]:
    """Photos a second of each model on prepared pixels, in turns: the median of REPEATS after one that does not count."""
    batches = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
    slowest = max(_seconds(model, batches[:1]) for model in models for _ in range(2))
    workers = models[0].workers
    n = max(workers, min(8 * workers, int(MAX_REPEAT_S * workers / slowest)))
    asked = [batches[i % len(batches)] for i in range(n)]
    times: list[list[float]] = [[] for _ in models]
    for _ in range(REPEATS):
        for model, own in zip(models, times, strict=True):
            own.append(_seconds(model, asked))
    photos = sum(map(len, asked))
    return [round(photos / statistics.median(own), 2) for own in times]


def _seconds(model: Model, batches: Sequence[NDArray[np.uint8]]) -> float:
    begun = time.perf_counter()
    for _ in ordered_map(model.predict_pixels, batches, workers=model.workers, ahead=len(batches)):
        pass
    return time.perf_counter() - begun


def _numbers(task: Task, said: Sequence[Prediction], classes: Sequence[str]) -> NDArray[np.float32]:
    """(n, n_classes) probabilities, or (n, 1) numbers."""
    if task == "regression":
        return np.array([[one.value] for one in said], np.float32)
    by_class = (dict(one.top) for one in said)
    return np.array([[own[name] for name in classes] for own in by_class], np.float32)


def _flagged(name: str, said: Sequence[Prediction]) -> float | None:
    flags = [getattr(one, name) for one in said]
    return None if None in flags else _share(flags)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _mean(numbers: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda weights: np.asarray(weights @ numbers / len(numbers))
