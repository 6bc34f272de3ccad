"""Numbers that are no shares of photos, with 95 % intervals by resampling the photos.

The bootstrap is Efron's (1979), its percentiles are corrected for bias (Efron 1981): a photo that is drawn twice ranks
beside itself, so average precision is higher in resamples than in the sample.

Within strata of few photos such draws vary too little: of m photos by (m - 1) / m of what new ones would, and of one photo
not at all. So m - 1 of them are drawn, and each counts m / (m - 1) (Rao and Wu 1988), which is right for means at any m > 1;
strata of one photo are taken together (collapsed strata, Cochran 1977), which errs on the wide side.
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
FEW = 10  # photos, below which drawing among them again and again says nothing of others
ROUNDING = 1e-12  # of sums of weights that are no whole numbers


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
    return f"{value:.0f}" if size >= 999.5 else f"{value:.3f}" if 1e-3 <= size < 1 else f"{value:.3g}"


def resampled(
    n: int, n_columns: int, seed: int, *, strata: NDArray[np.int64] | None = None, n_resamples: int = N_RESAMPLES
) -> Iterator[NDArray[np.float64]]:
    """How much each of n photos counts in each resample, (m, n) at a time; the same for the same seed.

    strata: (n,), which photos are alike; those of each stratum count together what they are. None: all are alike, and each
    counts as often as it is drawn.
    """
    random = np.random.default_rng(seed)
    one_less, strata = strata is not None, np.zeros(n, np.int64) if strata is None else _collapsed(strata)
    order = np.argsort(strata, kind="stable")
    sizes = np.unique(strata, return_counts=True)[1]
    n_draws = np.maximum(1, sizes - one_less)
    size = np.repeat(sizes, n_draws)
    start = np.repeat(np.cumsum(sizes) - sizes, n_draws)
    counts = np.empty(n)
    counts[order] = np.repeat(sizes / n_draws, sizes)
    left = min(n_resamples, max(MIN_RESAMPLES, CELLS // max(1, n * n_columns)))
    while left:
        m = min(left, max(1, AT_ONCE // n))
        drawn = order[start + random.integers(size, size=(m, len(size)))] + n * np.arange(m)[:, None]
        yield np.bincount(drawn.ravel(), minlength=m * n).reshape(m, n) * counts
        left -= m


def _collapsed(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """The strata, (n,), but those of one photo are one together; the only such is one with the smallest other."""
    _, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    n_alone = int((sizes == 1).sum())
    n_together = 2 if n_alone == 1 else n_alone
    by_size, joined = np.argsort(sizes, kind="stable"), np.arange(len(sizes))
    joined[by_size[:n_together]] = by_size[0]
    return np.asarray(joined[place], np.int64)


def estimate(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    n: int,
    *,
    n_columns: int = 1,
    strata: NDArray[np.int64] | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate | None:
    """The statistic of n photos with its interval; None where it is not defined.

    statistic: weights (m, n), how often each photo counts -> (m,), NaN where it is not defined. n_columns: numbers it
    looks at for a photo. strata, n_resamples: as in `resampled`. Where nothing is wrong, or there is one photo, resampling
    shows no spread, and the interval is only its value.
    """
    (found,) = estimates(
        lambda weights: statistic(weights)[:, None],
        n,
        n_columns=n_columns,
        strata=strata,
        seed=seed,
        n_resamples=n_resamples,
    )
    return found


def estimates(
    statistics: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    n: int,
    *,
    n_columns: int = 1,
    strata: NDArray[np.int64] | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> list[Estimate | None]:
    """The same of k statistics of the same photos, which are resampled once for all of them.

    statistics: weights (m, n) -> (m, k). n_columns: numbers that all of them together look at for a photo.
    """
    whole = statistics(np.ones((1, n)))[0]
    if not np.isfinite(whole).any():
        return [None] * len(whole)
    weights = resampled(n, n_columns, seed, strata=strata, n_resamples=n_resamples)
    drawn = np.concatenate([statistics(some) for some in weights])
    return [_estimate(value, own, n) for value, own in zip(whole.tolist(), drawn.T, strict=True)]


def _estimate(value: float, drawn: NDArray[np.float64], n: int) -> Estimate | None:
    """drawn: (m,), the statistic of each resample."""
    if not math.isfinite(value):
        return None
    low, high = _interval(drawn[np.isfinite(drawn)], value)
    return Estimate(value, min(low, value), max(high, value), n)


def _interval(values: NDArray[np.float64], value: float) -> tuple[float, float]:
    """The percentiles of resampled values that hold 95 %, moved by how far `value` is from their median."""
    if not len(values):
        return value, value
    rounding = ROUNDING * float(np.abs(values).max())
    below = (np.sum(values < value - rounding) + 0.5 * np.sum(np.abs(values - value) <= rounding)) / len(values)
    margin = 0.5 / len(values)
    z = NORMAL.inv_cdf(min(max(float(below), margin), 1 - margin))
    low, high = np.quantile(values, [NORMAL.cdf(2 * z - Z95), NORMAL.cdf(2 * z + Z95)])
    return float(low), float(high)
