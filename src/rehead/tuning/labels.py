"""Several labels a photo: for each label by itself, whether a photo has it, by a penalised logistic regression.

The optimiser, the path of penalties and their choice are those of two classes in `solve.py`; photos are turned into the
solver's coordinates once for all labels. From which probability on a label is named is chosen here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head, sigmoid
from rehead.tuning.convex import Array32, Features, Integers, along_axes
from rehead.tuning.sample import SAMPLE, stratified
from rehead.tuning.solve import PENALTIES, Solved, solve_along

MIN_SHOWN = 5  # photos that show a label, under which a threshold would be luck
USUAL_THRESHOLD = 0.5


@dataclass(frozen=True)
class SolvedLabels:
    """A head with one logit a label. out_of_fold: (n, k), the logits of each photo by fits that did not see it, NaN where
    there are none. cv_log_loss: their mean over the labels, in nats, None where no photo was held out."""

    head: Head
    out_of_fold: Array32
    cv_log_loss: float | None
    note: str


def solve_labels(
    features: Features,
    targets: NDArray[np.float32],
    *,
    folds: Integers,
    class_weight: str | None = None,
    penalties: Sequence[float] = PENALTIES,
    axes_in: Path | None = None,
) -> SolvedLabels:
    """One logistic regression a label, each with the penalty that does best on held-out folds.

    features: (n, d), any float type. targets: (n, k) of 0 and 1. folds: (n,), the fold that holds a photo out, -1 for
    none. class_weight: None, or "balanced", where photos with a label weigh as much as those without. penalties, axes_in:
    as in solve_linear. Raises ValueError if a label is on no photo or on all of them.
    """
    kinds = rarest(targets)
    rows = stratified(kinds, np.bincount(kinds), SAMPLE)
    sample, photos = along_axes(features, rows, axes_in)
    fits = []
    for shown in targets.T.astype(np.int64):
        weights = _weights(shown, class_weight)
        own = _foldable(shown, folds, rows)
        fits.append(solve_along(sample, photos, rows, shown, 2, weights, own, penalties))
    out_of_fold = np.full(targets.shape, np.nan, np.float32)
    for i, fit in enumerate(fits):
        if fit.out_of_fold is not None:
            out_of_fold[rows, i] = fit.out_of_fold[:, 1] - fit.out_of_fold[:, 0]
    losses = [fit.cv_log_loss for fit in fits if fit.cv_log_loss is not None]
    return SolvedLabels(_joined(fits), out_of_fold, float(np.mean(losses)) if losses else None, _noted(fits))


def chosen_thresholds(logits: Array32, targets: NDArray[np.float32]) -> tuple[float, ...]:
    """For each label the probability from which on to name it, so that F1 is highest on photos the head did not see.

    logits: (n, k), NaN where a photo says nothing. targets: (n, k) of 0 and 1. A label that fewer than MIN_SHOWN of the
    photos show has USUAL_THRESHOLD.
    """
    return tuple(_threshold(logits[:, i], targets[:, i]) for i in range(targets.shape[1]))


def _threshold(logits: Array32, shown: NDArray[np.float32]) -> float:
    known = np.isfinite(logits)
    order = np.argsort(-logits[known], kind="stable")
    scores, hits = logits[known][order].astype(np.float64), np.cumsum(shown[known][order])
    if not len(hits) or hits[-1] < MIN_SHOWN:
        return USUAL_THRESHOLD
    named = np.arange(1, len(scores) + 1)
    below = np.append(scores[1:], scores[-1] - 1)
    f1 = np.where(scores > below, 2 * hits / (named + hits[-1]), -1)  # equal scores are named together
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    # anywhere between two scores is as good: at even odds where that is between them, else in the middle
    places = np.where((below[best] < 0) & (scores[best] >= 0), 0, (below[best] + scores[best]) / 2)
    return float(sigmoid(places[np.argmin(np.abs(places))]))


def rarest(targets: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each photo 1 + the rarest of its labels, 0 where it has none."""
    n_shown = np.where(targets > 0, targets.sum(axis=0), np.inf)
    return np.where(targets.any(axis=1), 1 + n_shown.argmin(axis=1), 0)


def _weights(shown: NDArray[np.int64], class_weight: str | None) -> Array32:
    n_photos = np.bincount(shown, minlength=2)
    if not n_photos.all():
        raise ValueError(f"a label is on {n_photos[1]} of {len(shown)} photos: nothing can be learned of it")
    by_class = len(shown) / (2 * n_photos) if class_weight else np.ones(2)
    return np.asarray(by_class[shown], np.float32)


def _foldable(shown: NDArray[np.int64], folds: Integers, rows: Integers) -> Integers:
    """The folds, or none at all where one of them holds every photo that shows the label, or every other photo."""
    for kind in (0, 1):
        if len(np.unique(folds[rows][shown[rows] == kind])) < 2:
            return np.full_like(folds, -1)
    return folds


def _noted(fits: Sequence[Solved]) -> str:
    """How the penalties were found, and of how many labels no photo could be held out where of others some could."""
    chosen = [fit.note for fit in fits if fit.cv_log_loss is not None]
    if len(chosen) in (0, len(fits)):
        return fits[0].note
    return f"{chosen[0]}; {len(fits) - len(chosen)} of {len(fits)} labels: usual penalty"


def _joined(fits: Sequence[Solved]) -> Head:
    """One logit a label: what the fit gives for it less what it gives against it."""
    layers = [fit.head.layers[0] for fit in fits]
    weight = np.stack([weight[1] - weight[0] for weight, _ in layers])
    bias = np.array([bias[1] - bias[0] for _, bias in layers], np.float32)
    return Head("linear", ((weight, bias),))
