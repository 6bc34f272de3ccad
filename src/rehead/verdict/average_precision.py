"""How well scores put the photos that show a label before the others: average precision, of each label and their mean.

Scores and shown labels in, numbers with intervals by resampling out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.verdict.bootstrap import N_RESAMPLES, Estimate, estimate, estimates

Weights = NDArray[np.float64]  # how often each photo counts


def mean_average_precision(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.floating[Any]],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate | None:
    """The mean over the labels that are shown, with an interval by resampling; None when none is.

    logits: (n, k). targets: (n, k) of 0 and 1. n_resamples: as in `bootstrap.resampled`. A label's is the sum of the
    precisions at each score, each weighed by the recall gained there, as scikit-learn's average_precision_score: photos of
    equal score are named together.
    """
    statistic = mean_ap_of(logits, targets)
    if statistic is None:
        return None
    n_columns = int(targets.any(axis=0).sum())
    return estimate(statistic, len(logits), n_columns=n_columns, seed=seed, n_resamples=n_resamples)


def mean_ap_of(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]
) -> Callable[[Weights], Weights] | None:
    """The same as a statistic of weighted photos, see `bootstrap.estimate`."""
    of_each = _precisions_of(logits, targets > 0.5)
    return None if of_each is None else lambda weights: _mean_known(of_each(weights))


def average_precisions(
    logits: NDArray[np.floating[Any]], shown: NDArray[np.bool_]
) -> tuple[Estimate | None, list[Estimate | None]]:
    """Mean average precision, and that of each label, None of those that no photo shows."""
    of_each = _precisions_of(logits, shown)
    if of_each is None:
        return None, [None] * shown.shape[1]

    def statistics(weights: Weights) -> Weights:
        values = of_each(weights)
        return np.concatenate([_mean_known(values)[:, None], values], axis=1)

    there: list[bool] = np.asarray(shown.any(axis=0)).tolist()
    mean, *known = estimates(statistics, len(shown), n_columns=sum(there))
    own = iter(known)
    return mean, [next(own) if is_there else None for is_there in there]


def _precisions_of(logits: NDArray[np.floating[Any]], shown: NDArray[np.bool_]) -> Callable[[Weights], Weights] | None:
    """The average precision of each label that is shown, as a statistic: weights (m, n) -> (m, n_shown); None when none is."""
    ranked = [_ranked(logits[:, i], shown[:, i]) for i in np.flatnonzero(shown.any(axis=0))]
    if not ranked:
        return None
    return lambda weights: np.stack([_average_precision(weights, *label) for label in ranked], axis=1)


def _mean_known(values: Weights) -> Weights:
    """(m,), the mean over those of (m, k) that are defined; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0))


def _ranked(
    scores: NDArray[np.floating[Any]], shown: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """The photos from high score to low, whether each shows the label, and the places where a run of equal scores ends."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, shown[order], ends


def _average_precision(
    weights: NDArray[np.float64], order: NDArray[np.intp], shown: NDArray[np.bool_], ends: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(m,), of photos counted as often as `weights` (m, n) says; NaN where none shows the label."""
    drawn = weights[:, order]
    hits = np.cumsum(drawn * shown, axis=1)[:, ends]
    named = np.cumsum(drawn, axis=1)[:, ends]
    precision = np.divide(hits, named, out=np.zeros_like(hits), where=named > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    total = hits[:, -1]
    mean = np.divide((precision * gained).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    return np.asarray(mean)
