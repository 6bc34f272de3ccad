"""Logits of photos by heads that did not learn from them, nor from a copy of them: what labels are judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.tuning.solve import cross_validated, solve_linear


def logits_apart(
    features: NDArray[Any], labels: NDArray[np.int64], n_classes: int, folds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Logits (n, n_classes) of each photo by a linear head on the other folds; NaN for a photo of fold -1.

    features: (n, d). folds: (n,), copies in the same. The penalty is chosen once, by the same folds: that is one number.
    A class whose photos are all of one fold is never held out, or the others could not learn it.
    """
    folds = folds.copy()
    for label in range(n_classes):
        own = labels == label
        if len(np.unique(folds[own])) == 1:
            folds[own] = -1
    if not (folds >= 0).any():
        return np.full((len(labels), n_classes), np.nan, np.float32)
    with threadpool_limits(1):  # many small products: threads that wait for each other lose
        penalty = solve_linear(features, labels, n_classes, folds=folds).penalty
        return cross_validated(
            features, labels, n_classes, folds, lambda x, y: solve_linear(
                x, y, n_classes, folds=np.full(len(y), -1), penalties=[penalty]
            ).head,
        )  # fmt: skip
