"""Which of many photos choose a penalty, or say how a head does: a sample that holds each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rehead.tuning.convex import Integers

SAMPLE = 4_000  # photos that choose the penalty; choosing on all of 20,000 would take five times as long


def stratified(labels: Integers, n_photos: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """About `limit` rows at most, in order: each class in proportion, but no class under five photos if it has them."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    quota = np.minimum(n_photos, np.maximum(5, -(-limit * n_photos // len(labels))))
    shuffled = np.random.default_rng(0).permutation(len(labels))  # any fixed order that knows nothing of the folds
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(n_photos) - n_photos, n_photos)
    return np.sort(by_class[rank < np.repeat(quota, n_photos)])


def in_each_fold(labels: Integers, folds: Integers, limit: int) -> NDArray[np.int64]:
    """As `stratified`, each class in each fold by itself: where another fold has photos of a class, so has the sample."""
    cells = labels * (int(folds.max()) + 2) + folds + 1
    return stratified(cells, np.bincount(cells).astype(np.int64), limit)
