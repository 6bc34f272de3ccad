"""Logits of photos by heads that did not learn from them, nor from a copy of them: what labels are judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.parallel import n_cores, ordered_map
from rehead.tuning.solve import solve_linear


def logits_apart(
    features: NDArray[Any], labels: NDArray[np.int64], n_classes: int, folds: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Logits (n, n_classes) of each photo by a linear head on the other folds; NaN for a photo of fold -1.

    features: (n, d). folds: (n,), copies in the same. The penalty is chosen once, by the same folds: that is one number.
    A class whose photos are all of one fold is never held out, or the others could not learn it. The logit of a class that
    no photo has is NaN.
    """
    present, codes = np.unique(labels, return_inverse=True)
    folds = folds.copy()
    for label in range(len(present)):
        own = codes == label
        if len(np.unique(folds[own])) == 1:
            folds[own] = -1
    logits = np.full((len(labels), n_classes), np.nan, np.float32)
    if len(present) < 2 or not (folds >= 0).any():
        return logits
    with threadpool_limits(1):  # many small products: threads that wait for each other lose
        solved = solve_linear(features, codes, len(present), folds=folds)
        if solved.out_of_fold is not None and len(solved.out_of_fold) == len(labels):
            logits[:, present] = solved.out_of_fold
            return logits

        def fit(fold: int) -> NDArray[np.float32]:
            x, y = features[folds != fold], codes[folds != fold]
            head = solve_linear(x, y, len(present), folds=np.full(len(y), -1), penalties=[solved.penalty]).head
            return head.logits(features[folds == fold].astype(np.float32, copy=False))

        used = np.unique(folds[folds >= 0]).tolist()
        for fold, own in zip(used, ordered_map(fit, used, workers=n_cores(), ahead=n_cores()), strict=True):
            logits[np.ix_(folds == fold, present)] = own
    return logits


def logits_held_out(
    features: NDArray[Any], labels: NDArray[np.int64], n_classes: int, is_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Logits (n, n_classes) of the held-out photos by a linear head on the others; NaN for those, and where there are none."""
    folds = np.where(is_train, -1, 0)
    present, codes = np.unique(labels[is_train], return_inverse=True)
    logits = np.full((len(labels), n_classes), np.nan, np.float32)
    if len(present) < 2 or is_train.all():
        return logits
    logits[folds == 0] = -np.inf  # of a class that the training side lacks
    inner = np.argsort(np.argsort(codes, kind="stable"), kind="stable") % 5
    with threadpool_limits(1):
        head = solve_linear(features[is_train], codes, len(present), folds=inner).head
    logits[np.ix_(~is_train, present)] = head.logits(features[~is_train].astype(np.float32, copy=False))
    return logits
