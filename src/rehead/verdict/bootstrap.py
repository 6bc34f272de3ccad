"""Numbers that are no shares of photos, with 95 % intervals by resampling the photos.

The bootstrap is Efron's (1979), its percentiles are corrected for bias (Efron 1981): a photo that is drawn twice ranks
beside itself, so average precision is higher in resamples than in the sample.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehead.verdict.intervals import Z95

NORMAL = statistics.NormalDist()
N_RESAMPLES = 1_000
MIN_RESAMPLES = 200  # for 95 % percentiles that rest on five resamples each
CELLS = 400_000_000  # photos x columns x resamples: some seconds; beyond that there are fewer resamples
AT_ONCE = 4_000_000  # cells in memory


@dataclass(frozen=True)
class Estimate:
    """A number about `n` photos and the 95 % interval around it."""

    value: float
    low: float
    high: float
    n: int

    def __repr__(self) -> str:
        return f"Estimate({self.value:.4g}, low={self.low:.4g}, high={self.high:.4g})"

    def __str__(self) -> str:
        return f"{short(self.value)} ({short(self.low)} to {short(self.high)})"


def short(value: float) -> str:
    """A number of any size with three figures or so: 0.932, 12.3, 2041."""
    size = abs(value)
    return f"{value:.0f}" if size >= 1000 else f"{value:.3f}" if 1e-3 <= size < 1 else f"{value:.3g}"


def resampled(
    n: int, n_columns: int, seed: int, *, strata: NDArray[np.int64] | None = None, n_resamples: int = N_RESAMPLES
) -> Iterator[NDArray[np.float64]]:
    """How often each of n photos is drawn in each resample, (m, n) at a time; the same for the same seed.

    strata: (n,), which photos are alike; each stratum is drawn as often as it is there, None: all are alike.
    """
    random = np.random.default_rng(seed)
    order = np.arange(n) if strata is None else np.argsort(strata, kind="stable")
    sizes = np.array([n]) if strata is None else np.unique(strata, return_counts=True)[1]
    size = np.repeat(sizes, sizes)
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    left = min(n_resamples, max(MIN_RESAMPLES, CELLS // max(1, n * n_columns)))
    while left:
        m = min(left, max(1, AT_ONCE // n))
        drawn = order[start + random.integers(size, size=(m, n))] + n * np.arange(m)[:, None]
        yield np.bincount(drawn.ravel(), minlength=m * n).reshape(m, n).astype(np.float64)
        left -= m


def estimate(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    n: int,
    *,
    n_columns: int = 1,
    strata: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Estimate | None:
    """The statistic of n photos with its interval; None where it is not defined.

    statistic: weights (m, n), how often each photo counts -> (m,), NaN where it is not defined. n_columns: numbers it
    looks at for a photo. strata: as in `resampled`. Where nothing is wrong, resampling shows no spread, and the interval is
    only its value.
    """
    value = float(statistic(np.ones((1, n)))[0])
    if not math.isfinite(value):
        return None
    values = np.concatenate([statistic(weights) for weights in resampled(n, n_columns, seed, strata=strata)])
    low, high = _interval(values[np.isfinite(values)], value)
    return Estimate(value, min(low, value), max(high, value), n)


def _interval(values: NDArray[np.float64], value: float) -> tuple[float, float]:
    """The percentiles of resampled values that hold 95 %, moved by how far `value` is from their median."""
    if not len(values):
        return value, value
    below = (np.sum(values < value) + 0.5 * np.sum(values == value)) / len(values)
    margin = 0.5 / len(values)
    z = NORMAL.inv_cdf(min(max(float(below), margin), 1 - margin))
    low, high = np.quantile(values, [NORMAL.cdf(2 * z - Z95), NORMAL.cdf(2 * z + Z95)])
    return float(low), float(high)
