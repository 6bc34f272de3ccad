"""Two models on the same photos: whether one is clearly better, or what it gains may be chance. Arrays in, numbers out.

To choose between them the rule is one standard error, after Breiman et al. 1984: of models that cannot be told apart, take
the simpler. To tell of them it is McNemar's test (1947): of the photos on which only one is right, would a coin have it so?
Where photos are not simply right or wrong, both scores are taken of the same resamples, and it is the interval of what is
between them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rehead.errors import counted
from rehead.verdict.average_precision import mean_ap_of
from rehead.verdict.bootstrap import FEW, Estimate, estimate, short

ROUNDING = 1e-9  # a single photo's difference is one standard error exactly, and is never clear
SIGNIFICANT, LEAST_P = 0.05, 1e-4


@dataclass(frozen=True)
class Gain:
    """What one model is right on beyond another, as a share of the photos, and one standard error of that."""

    value: float
    error: float

    @property
    def is_clear(self) -> bool:
        return self.value > self.error * (1 + ROUNDING)


def gain(right: NDArray[np.bool_], other: NDArray[np.bool_]) -> Gain:
    """What `right` gains over `other`, photo by photo: (n,) each, whether a model is right on it.

    Photos that both get right, or both wrong, say nothing of the difference, and so its error is far smaller than that of
    either share. Of one photo or none nothing is known: the error is infinite.
    """
    if len(right) < 2:
        return Gain(0.0, math.inf)
    difference: NDArray[Any] = right.astype(np.float64) - other.astype(np.float64)
    return Gain(float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference))))


@dataclass(frozen=True)
class Paired:
    """Of n photos: how many both models get right, only the first, only the second, neither. difference: what the second is
    right on beyond the first, as a share, with its interval. p: of McNemar's exact test, two-sided, that they are even."""

    both: int
    only_first: int
    only_second: int
    neither: int
    difference: Estimate
    p: float

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def n_first(self) -> int:
        """How many photos the first model gets right."""
        return self.both + self.only_first

    @property
    def n_second(self) -> int:
        """How many photos the second model gets right."""
        return self.both + self.only_second

    def sentence(self, first: str, second: str) -> str:
        """The plain answer. first, second: what the models are called."""
        changed = self.only_first + self.only_second
        if not changed:
            return f"{first} and {second} are right on the same {self.both} of {counted(self.n, 'photo')}."
        if self.p >= SIGNIFICANT:
            return (
                f"They cannot be told apart: of {counted(self.n, 'photo')} {first} alone is right on {self.only_first}, "
                f"{second} alone on {self.only_second} (p {p_value(self.p)})."
            )
        better = second if self.difference.value > 0 else first
        by = abs(100 * self.difference.value)
        return (
            f"{better} is better by {by:.1f} points: {first} alone is right on {self.only_first} of "
            f"{counted(self.n, 'photo')}, {second} alone on {self.only_second} (p {p_value(self.p)})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "n": self.n}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Paired:
        """The opposite of `dataclasses.asdict`. Raises KeyError or TypeError for what is none."""
        return cls(**{**values, "difference": Estimate(**values["difference"])})


@dataclass(frozen=True)
class Scored:
    """What two models score on the same photos. measure: "mAP", mean average precision over the labels that are shown, or
    "mean error" of numbers, of which less is better. difference: what the second's is above the first's, with its interval."""

    measure: Literal["mAP", "mean error"]
    first: float
    second: float
    difference: Estimate

    @property
    def n(self) -> int:
        return self.difference.n

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out that they are even; of few photos it says nothing."""
        return self.n >= FEW and not self.difference.low <= 0 <= self.difference.high

    @property
    def is_better(self) -> bool:
        """Whether the second scores better."""
        return self.difference.value < 0 if self.measure == "mean error" else self.difference.value > 0

    def sentence(self, first: str, second: str) -> str:
        """The plain answer. first, second: what the models are called."""
        scores = self.scores(f"{first} ", f"{second} ")
        if not self.is_clear:
            return f"They cannot be told apart: on {counted(self.n, 'photo')} {scores}."
        return f"{second if self.is_better else first} is better: on {counted(self.n, 'photo')} {scores}."

    def scores(self, first: str, second: str) -> str:
        """'A is off by 0.3 on average, B by 0.2 (difference -0.1, -0.2 to -0.05)'. first, second: 'A ', 'B '."""
        a, b, off = short(self.first), short(self.second), self.difference
        apart = f"(difference {short(off.value)}, {short(off.low)} to {short(off.high)})"
        if self.measure == "mean error":
            return f"{first}is off by {a} on average, {second}by {b} {apart}"
        return f"{first}has an mAP of {a}, {second}of {b} {apart}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "n": self.n}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scored:
        """The opposite of `dataclasses.asdict`. Raises KeyError or TypeError for what is none."""
        return cls(**{**values, "difference": Estimate(**values["difference"])})


def scored_numbers(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], values: NDArray[np.floating[Any]]
) -> Scored:
    """How far off two models are on average. first, second, values: (n,) each, n >= 1."""
    off = [np.abs(said.astype(np.float64) - values) for said in (first, second)]
    more = off[1] - off[0]
    difference = estimate(lambda weights: np.asarray(weights @ more / len(more)), len(more))
    assert difference is not None  # numbers are finite
    return Scored("mean error", float(off[0].mean()), float(off[1].mean()), difference)


def scored_labels(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]
) -> Scored | None:
    """The mean average precision of two models; None where no label is shown. first, second: (n, k) logits. targets: (n, k) of
    0 and 1."""
    before, after = mean_ap_of(first, targets), mean_ap_of(second, targets)
    if before is None or after is None:
        return None
    n, n_shown = len(targets), int(targets.any(axis=0).sum())
    difference = estimate(lambda weights: after(weights) - before(weights), n, n_columns=2 * n_shown)
    assert difference is not None  # a label is shown
    whole = np.ones((1, n))
    return Scored("mAP", float(before(whole)[0]), float(after(whole)[0]), difference)


def p_value(p: float) -> str:
    """'= 0.23', or '< 0.0001': smaller ones say nothing more."""
    return f"= {p:.2g}" if p >= LEAST_P else f"< {LEAST_P:g}"


def heads(k: int, n: int) -> float:
    """The chance that k or more of n fair coins show heads. 0 <= k <= n."""
    log_terms = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k, n + 1)]
    highest = max(log_terms)
    return min(1.0, math.exp(highest - n * math.log(2)) * sum(math.exp(term - highest) for term in log_terms))


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_], strata: NDArray[np.int64]) -> Paired:
    """first, second: (n,) each, n >= 1, whether a model is right on it. strata: (n,), within which photos are resampled."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    changed, n = only_first + only_second, len(first)
    p = min(1.0, 2 * heads(max(only_first, only_second), changed))
    gained = second.astype(np.float64) - first
    difference = estimate(lambda weights: np.asarray(weights @ gained / n), n, strata=strata)
    assert difference is not None  # a share of photos
    return Paired(int((first & second).sum()), only_first, only_second, int((~first & ~second).sum()), difference, p)
