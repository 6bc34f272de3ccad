"""Whether labels can be told from a few columns, cross-validated, and whether that is more than chance. Arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.auditing.columns import Codes
from rehead.tuning.solve import cross_validated, solve_linear
from rehead.verdict.compare import heads

PENALTY = 3e-2  # per photo; from 0.001 to 0.3 the share that is told differs by less than two points on real photos


def told_by(columns: Sequence[Codes], labels: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each photo's label is told by its columns, (n,), by a model of the other folds.

    columns: (n,) each. labels: (n,), all of 0..max. folds: (n,); a photo of fold -1 is told by nothing. One column: the most
    frequent label of its bin. Several: a logistic regression on their bins, each with a weight of its own.
    """
    if len(columns) == 1:
        return _by_bins(columns[0], labels, folds)
    bins = np.concatenate([np.eye(codes.max() + 1, dtype=np.float32)[codes] for codes in columns], axis=1)
    with threadpool_limits(1):
        logits = cross_validated(
            bins, labels, int(labels.max()) + 1, folds, lambda x, y, _: solve_linear(
                x, y, int(labels.max()) + 1, folds=np.full(len(y), -1), penalties=[PENALTY]
            ).head,
        )  # fmt: skip
    return np.asarray((folds >= 0) & (np.nan_to_num(logits).argmax(axis=1) == labels))


def p_better(right: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """The chance that `right` is right so much more often than `other` on the same photos, (n,) each, if neither is better.

    McNemar's test (1947), exact and one-sided: of the photos on which they differ each would win half.
    """
    wins, losses = int((right & ~other).sum()), int((other & ~right).sum())
    return heads(wins, wins + losses)


def _by_bins(codes: Codes, labels: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    size = (int(codes.max()) + 1, int(labels.max()) + 1)
    told = np.zeros(len(labels), bool)
    for fold in np.unique(folds[folds >= 0]):
        held_out = folds == fold
        counts = np.zeros(size)
        np.add.at(counts, (codes[~held_out], labels[~held_out]), 1)
        counts += counts.sum(axis=0) / (counts.sum() + 1)  # an empty bin names the most frequent class
        told[held_out] = counts.argmax(axis=1)[codes[held_out]] == labels[held_out]
    return told
