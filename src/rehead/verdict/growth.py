"""How a model grows with its photos: a power law through errors at growing numbers of them, and what twice as many bring.

The error at n photos is taken as floor + scale * n ^ -exponent (Hestness et al. 2017), fitted by least squares with each
point weighed by its own error. What is not known of it is told by resampling the held-out photos (Efron 1979), for all
points together: they were judged on the same ones. Arrays in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.errors import counted
from rehead.verdict.bootstrap import Estimate, resampled
from rehead.verdict.intervals import Interval, wilson

MIN_POINTS = 4  # a law of three numbers through three points says nothing of itself
N_RESAMPLES = 200
STEEPEST = 1.5  # the largest exponent: errors of images are reported with 0.1 to 0.7


@dataclass(frozen=True)
class GrowthPoint:
    """n: photos learned from. right: the share of held-out photos that is right, a mean where several parts were tried."""

    n: int
    right: Interval


@dataclass(frozen=True)
class Growth:
    """points: from few photos to all. law: (floor, scale, exponent) of the error, None where too little was measured.
    gain: what twice as many photos would likely bring, by the law, at most all that is wrong now, of which the held-out photos
    are a sample; at_twice: the share right that they would have so. None too where all photos make none wrong."""

    points: tuple[GrowthPoint, ...]
    law: tuple[float, float, float] | None
    at_twice: Estimate | None
    gain: Estimate | None

    @property
    def sentence(self) -> str:
        """A plain answer."""
        n = self.points[-1].n
        if all(point.right.value == 1 for point in self.points):
            return f"It is right on all held-out photos already with {counted(self.points[0].n, 'photo')}."
        if self.points[-1].right.value == 1:
            m = counted(self.points[-1].right.n, "held-out photo")
            return f"It is right on all {m}: what more would bring they cannot show."
        if self.gain is None:
            return f"What more than {n} photos would bring is not known: there are too few of a class to try with less."
        low, value, high = (100 * x for x in (self.gain.low, self.gain.value, self.gain.high))
        if high < 0.5:
            return f"Twice as many photos ({2 * n}) would hardly help: {value:.1f} points ({low:.1f} to {high:.1f})."
        if value < 0.05:
            return f"Twice as many photos ({2 * n}) may bring nothing, or up to {high:.1f} points."
        return f"Twice as many photos ({2 * n}) would likely bring {value:+.1f} points ({low:+.1f} to {high:+.1f})."

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Growth:
        """The opposite of `dataclasses.asdict`."""
        points = tuple(GrowthPoint(p["n"], Interval(**p["right"])) for p in values["points"])
        at_twice, gain = (None if values[k] is None else Estimate(**values[k]) for k in ("at_twice", "gain"))
        return cls(points, None if values["law"] is None else tuple(values["law"]), at_twice, gain)


def growth(n_photos: Sequence[int], right: Sequence[NDArray[np.bool_]], *, seed: int = 0) -> Growth:
    """n_photos: ascending, what was learned from. right: for each (repeats, m), whether each try was right on the m photos.

    Where the model of all photos has no error on the m there is nothing that more could mend, and no law.
    """
    share = np.stack([r.mean(axis=0) for r in right])  # (points, m)
    n, m = np.asarray(n_photos, np.float64), share.shape[1]
    points = tuple(GrowthPoint(int(k), _interval(s, m)) for k, s in zip(n_photos, share, strict=True))
    errors = 1 - share.mean(axis=1)
    if len(n) < MIN_POINTS or errors[-1] == 0:
        return Growth(points, None, None, None)
    spread = np.sqrt(np.maximum(errors * (1 - errors), 0.5 / m) / m)
    law = fit_law(n, errors, spread)
    draws = []
    for weights in resampled(m, 1, seed, n_resamples=N_RESAMPLES):
        for drawn in (weights @ (1 - share.T)) / m:
            draws.append(_brought(fit_law(n, drawn, spread), n[-1]))
    gain = _brought(law, n[-1])
    low, high = (float(q) for q in np.quantile(draws, [0.025, 0.975]))
    left, now = float(errors[-1]), points[-1].right
    most = 1 - now.high, left, 1 - now.low  # no more can be gained than is wrong now, which has an interval too
    low, gain, high = (min(x, cap) for x, cap in zip((min(low, gain), gain, max(high, gain)), most, strict=True))
    gains = Estimate(gain, low, high, m)
    then, least, most_then = (min(1.0, 1 - left + x) for x in (gain, low, high))
    at_twice = Estimate(then, least, most_then, m)
    return Growth(points, law, at_twice, gains)


def fit_law(
    n: NDArray[np.float64], errors: NDArray[np.float64], spread: NDArray[np.float64]
) -> tuple[float, float, float]:
    """(floor, scale, exponent) of the law nearest to errors at n photos, all three not below 0."""
    from scipy.optimize import nnls

    best, least = (0.0, 0.0, 0.0), np.inf
    for exponent in np.linspace(0.05, STEEPEST, 30):  # for each exponent the other two are linear, and found exactly
        columns = np.stack([np.ones_like(n), (n / n[-1]) ** -exponent], axis=1) / spread[:, None]
        (floor, scale), left = nnls(columns, errors / spread)
        if left < least - 1e-12:
            best, least = (float(floor), float(scale * n[-1] ** exponent), float(exponent)), left
    return best


def _brought(law: tuple[float, float, float], n: float) -> float:
    """By how much the error falls from n photos to twice as many; what all have now is judged by the law too."""
    return _at(law, n) - _at(law, 2 * n)


def _at(law: tuple[float, float, float], n: float) -> float:
    floor, scale, exponent = law
    return float(floor + scale * float(n) ** -exponent)


def _interval(share: NDArray[np.float64], m: int) -> Interval:
    """Of a mean over tries: as many photos as were judged, not as many as tries were made."""
    around = wilson(round(float(share.sum())), m)
    value = float(share.mean())
    return Interval(value, min(value, around.low), max(value, around.high), m)
