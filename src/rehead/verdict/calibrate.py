"""Whether a probability of 0.9 means nine in ten, and the one number that mends it. Arrays in, numbers out.

Logits are divided by a temperature that was fitted on photos the model did not learn from, and that no verdict is drawn
from: temperature scaling, Guo et al. 2017. It changes no answer, only how sure the model says it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.verdict.bootstrap import Estimate, estimate
from rehead.verdict.intervals import Interval, wilson

N_BINS = 15  # of equal width, as Guo et al. have them, so that errors can be compared with published ones
TOLERANCE = 1e-9  # of the logarithm of a temperature
MOST_STEPS = 100  # towards it; ten are usual
COLDEST, HOTTEST = 0.05, 20.0  # temperatures beyond which a model's logits say nothing


@dataclass(frozen=True)
class Bin:
    """Photos whose most probable class was given a probability in (low, high]. probability: their mean. right: the share."""

    low: float
    high: float
    n: int
    probability: float
    right: Interval


@dataclass(frozen=True)
class Reliability:
    """error: the expected calibration error, the mean over photos of how far a bin's probability is from its share right,
    with an interval by resampling. bins: those that hold photos."""

    error: Estimate
    log_loss: float
    bins: tuple[Bin, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Reliability:
        bins = tuple(Bin(**{**b, "right": Interval(**b["right"])}) for b in values["bins"])
        return cls(Estimate(**values["error"]), values["log_loss"], bins)


@dataclass(frozen=True)
class Calibration:
    """temperature: what logits are divided by. n: photos it was fitted on. before, after: on the photos of the verdict."""

    temperature: float
    n: int
    before: Reliability
    after: Reliability

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The opposite of `dataclasses.asdict`."""
        before, after = (Reliability.from_dict(values[name]) for name in ("before", "after"))
        return cls(values["temperature"], values["n"], before, after)


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """The temperature, in COLDEST..HOTTEST, of least log-loss. logits: (n, n_classes), n >= 1. labels: (n,).

    The right class is wanted with probability (n + 1) / (n + 2), as Platt 1999 has it: where a model is right on all of a
    few photos, the least log-loss alone would make it sure of everything.
    """
    n, n_classes = logits.shape
    raised = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    wanted = np.full((n, n_classes), 1 / ((n + 2) * max(1, n_classes - 1)))
    wanted[np.arange(n), labels] = (n + 1) / (n + 2)

    def too_sure(log_temperature: float) -> float:
        """The slope of the loss by 1 / temperature, in which it is convex: zero where the loss is least."""
        chances = np.exp(raised / math.exp(log_temperature))
        chances /= chances.sum(axis=1, keepdims=True)
        return float(((chances - wanted) * raised).sum(axis=1).mean())

    if not raised.any():  # nothing to cool
        return 1.0
    return math.exp(_zero_of(too_sure, math.log(COLDEST), math.log(HOTTEST)))


def _zero_of(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is zero, to 1e-9; the nearer end where it is zero nowhere between.

    By false position with Illinois' halving (Dowell and Jarratt 1971). SciPy does the same, and takes a quarter of a second
    to be imported, an eighth of a job whose features are kept.
    """
    above, below = falling(low), falling(high)
    if above <= 0 or below >= 0:
        return low if above <= 0 else high
    middle, side = low, 0
    for _ in range(MOST_STEPS):
        before, middle = middle, (low * below - high * above) / (below - above)
        value = falling(middle)
        if value == 0 or abs(middle - before) < TOLERANCE:
            break
        if value > 0:
            low, above, below = middle, value, below / 2 if side > 0 else below
        else:
            high, below, above = middle, value, above / 2 if side < 0 else above
        side = 1 if value > 0 else -1
    return middle


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities, (n, n_classes) float64."""
    raised = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(raised - np.log(np.exp(raised).sum(axis=1, keepdims=True)))


def reliability(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, seed: int = 0) -> Reliability:
    """How far probabilities can be trusted. logits: (n, n_classes). labels: (n,), the right classes."""
    n, log_p = len(labels), log_softmax(logits)
    sure, right = np.exp(log_p.max(axis=1)), log_p.argmax(axis=1) == labels
    place = np.clip(np.ceil(sure * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    within = np.zeros((n, N_BINS))
    within[np.arange(n), place] = sure - right

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.abs(weights @ within).sum(axis=1) / n)

    error = estimate(statistic, n, n_columns=N_BINS, strata=labels, seed=seed)
    assert error is not None  # probabilities are finite
    bins = [
        Bin(b / N_BINS, (b + 1) / N_BINS, len(own), float(sure[own].mean()), wilson(int(right[own].sum()), len(own)))
        for b in range(N_BINS)
        if len(own := np.flatnonzero(place == b))
    ]
    return Reliability(error, max(0.0, float(-log_p[np.arange(n), labels].mean())), tuple(bins))


def calibration(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], temperature: float, n_fitted: int
) -> Calibration:
    """What a temperature does to the probabilities of n photos. logits: (n, n_classes), not divided yet. labels: (n,)."""
    before, after = (reliability(logits / np.float32(t), labels) for t in (1.0, temperature))
    return Calibration(temperature, n_fitted, before, after)
