"""Heads with one best answer: multinomial logistic regression and the nearest class mean, solved on stored features.

Both see standardised features (mean 0, variance 1 over the training photos) and give a Head that acts on raw ones.
A penalty is per photo: the objective is the mean loss in nats + penalty / 2 * |weights|^2, the bias goes free. In
scikit-learn's terms C = 1 / (penalty * n_photos), twice that for two classes, which have one logit there and two here.
Training by gradient steps is left to `train.py`. NumPy alone does the work: nothing here takes time to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.tuning.convex import (
    BLOCK,
    Array32,
    Array64,
    Features,
    Integers,
    Photos,
    along_axes,
    minimise,
    parts,
    standard,
)
from rehead.tuning.sample import SAMPLE, stratified

PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(4, -13, -1))  # 100 ... 1e-6, from strong to weak
USUAL_PENALTY = 1e-4  # times d / n_classes, where no photo can be held out: near the best at widths of 64 to 1280
SAMPLE_QUICK = 3_000
TIGHT, LOOSE, QUICK = 1e-4, 3e-2, 1e-1  # how far the logits may still be from the optimum, see minimise
ABSENT = -1e4  # the logit of a class without photos in a quick fit


@dataclass(frozen=True)
class Solved:
    """A head, the penalty it was solved with, and how that did on the photos that a fold held out (None: none was).

    cv_accuracy, cv_log_loss (nats): classes weighted as in the fit. iterations: of the whole path and the last solve.
    out_of_fold: (m, n_classes), the logits of the m photos that chose the penalty, each by a fit to the other folds; NaN
    for a photo that no fold held out. rows: (m,), their places among all.
    """

    head: Head
    penalty: float
    cv_accuracy: float | None
    cv_log_loss: float | None
    iterations: int
    note: str
    out_of_fold: Array32 | None = None
    rows: Integers | None = None


def solve_linear(
    features: Features,
    labels: Integers,
    n_classes: int,
    *,
    folds: Integers,
    class_weight: str | None = None,
    penalties: Sequence[float] = PENALTIES,
    axes_in: Path | None = None,
) -> Solved:
    """The multinomial logistic regression whose penalty does best on held-out folds, solved to convergence.

    features: (n, d), any float type, left as they are; copied in float32 only under convex.COPIED_BYTES. labels: (n,),
    0..n_classes-1. folds: (n,), the fold that holds a photo out, -1 for none. class_weight: None, or "balanced", where
    each class weighs the same. penalties: from strong to weak; one alone is taken as it is. axes_in: a file in which what
    depends on the features alone is kept for the next head on them.
    The penalty is chosen by log-loss: accuracy is flat over decades of it, so that its best is mostly chance.
    Same input, same machine: the same head, bit for bit.
    Raises ValueError if a class has no photo, or a feature is not finite.
    """
    n_photos = _count(labels, n_classes, complete=True)
    if class_weight not in (None, "balanced"):
        raise ValueError(f"class_weight is None or 'balanced', not {class_weight!r}")
    by_class = len(labels) / (n_classes * n_photos) if class_weight else np.ones(n_classes)
    weights = by_class[labels].astype(np.float32)
    rows = stratified(labels, n_photos, SAMPLE)
    sample, photos = along_axes(features, rows, axes_in)
    return solve_along(sample, photos, rows, labels, n_classes, weights, folds, penalties)


def solve_along(
    sample: Photos,
    photos: Photos,
    rows: Integers,
    labels: Integers,
    n_classes: int,
    weights: Array32,
    folds: Integers,
    penalties: Sequence[float],
) -> Solved:
    """As solve_linear, on photos that are in the solver's coordinates already: see convex.along_axes for the first three.

    weights: (n,), what each photo counts.
    """
    best = _follow(sample, labels[rows], n_classes, weights[rows], folds[rows], penalties)
    whole = (weights / weights.sum())[None]
    # one penalty on all photos together, as scikit-learn's C has it: per photo it weakens as they become more
    penalty = best.penalty * (len(rows) / len(labels) if len(penalties) > 1 else 1)
    parameters, steps = minimise(best.parameters, photos, labels, whole, penalty, TIGHT)
    head = photos.axes.head("linear", parameters[0])
    note = best.note + (f", on {len(rows):,} of {len(labels):,} photos" if len(rows) < len(labels) else "")
    out_of_fold = None if best.by_fold is None else _out_of_fold(best.by_fold, sample, folds[rows])
    return Solved(head, penalty, best.accuracy, best.log_loss, best.steps + steps, note, out_of_fold, rows)


def solve_quick(features: Features, labels: Integers, n_classes: int, *, penalty: float | None = None) -> Head:
    """A logistic regression at one penalty, to a loose tolerance and on at most SAMPLE_QUICK photos: for a display.

    Shapes as in solve_linear. penalty: by default USUAL_PENALTY * d / n_classes. A class without photos has the
    logit ABSENT.
    """
    n_photos = _count(labels, n_classes)
    present = np.flatnonzero(n_photos)
    rows = stratified(labels, n_photos, SAMPLE_QUICK)
    axes = standard(features[rows])
    photos = Photos(axes.standardised(features[rows]), axes, "standard")
    start = np.zeros((1, len(present), len(axes.variance) + 1), np.float32)
    weights = np.full((1, len(rows)), 1 / len(rows), np.float32)
    penalty = USUAL_PENALTY * features.shape[1] / n_classes if penalty is None else penalty
    found, _ = minimise(start, photos, np.searchsorted(present, labels[rows]), weights, penalty, QUICK)
    parameters = np.zeros((n_classes, found.shape[2]))
    parameters[:, -1] = ABSENT
    parameters[present] = found[0]
    return axes.head("linear", parameters)


def solve_prototype(features: Features, labels: Integers, n_classes: int) -> Head:
    """The nearest class mean by Euclidean distance on standardised features; one photo a class is enough.

    Shapes as in solve_linear. The logit of class k is t (2 x . mean_k - |mean_k|^2), Mensink et al. 2013 (nearest class
    mean), Snell et al. 2017 (softmax over distances); t is fitted by log-loss, each photo left out of its own mean.
    Raises ValueError if a class has no photo, or a feature is not finite.
    """
    n_photos = _count(labels, n_classes, complete=True)
    axes = standard(features)
    sums = np.zeros((n_classes, features.shape[1]))
    for part in parts(len(labels), BLOCK):
        members = (labels[part] == np.arange(n_classes)[:, None]).astype(np.float32)
        sums += members @ axes.standardised(features[part])
    means = sums / n_photos[:, None]
    usual = 1 / features.shape[1]  # two photos are 2 d apart in the mean: odds of e^2 in the very place of a mean
    linear = np.concatenate([2 * means, -np.square(means).sum(axis=1, keepdims=True)], axis=1)
    rows = stratified(labels, n_photos, SAMPLE)
    scores = _left_out(axes.standardised(features[rows]), labels[rows], linear, n_photos)
    return axes.head("prototype", _sharpness(scores, labels[rows], usual=usual) * linear)


def cross_validated(
    features: Features,
    labels: Integers,
    n_classes: int,
    folds: Integers,
    fit: Callable[[Features, Integers, Integers], Head],
) -> Array32:
    """Logits (n, n_classes) of each photo by a head that did not see it: fit(features, labels, folds) of the other folds.

    folds: (n,), the fold that holds a photo out. A photo of fold -1 is never held out: its logits are NaN.
    """
    logits = np.full((len(labels), n_classes), np.nan, np.float32)
    for fold in np.unique(folds[folds >= 0]):
        held_out = folds == fold
        head = fit(features[~held_out], labels[~held_out], folds[~held_out])
        logits[held_out] = head.logits(features[held_out].astype(np.float32, copy=False))
    return logits


def _left_out(block: Array32, labels: Integers, linear: Array64, n_photos: Integers) -> Array64:
    """Scores (n, n_classes) of standardised photos, each left out of its own mean: it is n / (n - 1) further from that.

    A photo alone in its class has nothing to be compared with: its score there is NaN.
    """
    scores: Array64 = block @ linear[:, :-1].T + linear[:, -1]
    own, size = (np.arange(len(labels)), labels), n_photos[labels].astype(np.float64)
    further = np.divide(size, size - 1, out=np.full(len(size), np.nan), where=size > 1)
    scores[own] -= (np.einsum("nd,nd->n", block, block) - scores[own]) * (further**2 - 1)
    return scores


def _sharpness(scores: Array64, labels: Integers, *, usual: float) -> float:
    """The factor on the scores (n, n_classes) that gives the least log-loss, by bisection: its slope only rises.

    One photo more is imagined, of any class alike, so that a few photos without a mistake do not ask for infinity.
    usual: the factor where each photo is alone in its class.
    """
    known = np.isfinite(scores[np.arange(len(labels)), labels])
    if not known.any():
        return usual
    scores = scores[known] - scores[known].max(axis=1, keepdims=True)
    share = 1 / (1 + len(scores))
    wanted = (1 - share) * scores[np.arange(len(scores)), labels[known]] + share * scores.mean(axis=1)
    unit = -1 / min(float(scores.mean()), -1e-9)
    low, high = np.log(1e-3), np.log(1e4)
    for _ in range(25):
        middle = (low + high) / 2
        odds = np.exp(np.exp(middle) * unit * scores)
        slope = np.mean((odds * scores).sum(axis=1) / odds.sum(axis=1) - wanted)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(low) * unit)


@dataclass(frozen=True)
class _Best:
    """Where the path was best: the mean of the folds' parameters, (1, n_classes, r + 1), and what they did held out.

    by_fold: (n_folds, n_classes, r + 1), in order of the folds.
    """

    penalty: float
    parameters: Array32
    log_loss: float | None = None
    accuracy: float | None = None
    steps: int = 0
    note: str = ""
    by_fold: Array32 | None = None


def _count(labels: Integers, n_classes: int, *, complete: bool = False) -> NDArray[np.int64]:
    n_photos = np.bincount(labels, minlength=n_classes).astype(np.int64)
    if len(n_photos) > n_classes or not n_photos.any():
        raise ValueError(f"the labels of {len(labels)} photos are not all below {n_classes}")
    if complete and not n_photos.all():
        raise ValueError(f"class {int(np.argmin(n_photos))} has no photo")
    return n_photos


def _follow(
    sample: Photos, labels: Integers, n_classes: int, weights: Array32, folds: Integers, penalties: Sequence[float]
) -> _Best:
    """The penalty of least held-out log-loss. Each start is the last one's end; two clear rises end the path.

    So does a loss under 1 / n nats: n photos without a mistake do not tell odds above n from higher ones (Laplace's rule of
    succession). Where classes are all but separable the loss only falls, and the head would become surer without a reason.
    """
    used = np.unique(folds[folds >= 0])
    width = len(sample.axes.variance)
    zero = np.zeros((1, n_classes, width + 1), np.float32)
    if len(penalties) == 1:
        return _Best(penalties[0], zero, note="penalty as given")
    if not len(used):
        usual = USUAL_PENALTY * len(sample.axes.mean) / n_classes
        return _Best(usual, zero, note="no photo could be held out: usual penalty")
    inside = weights * (folds != used[:, None])  # (n_folds, n)
    inside /= inside.sum(axis=1, keepdims=True)
    parameters = np.repeat(zero, len(used), axis=0)
    best, least, rises, n_steps = _Best(penalties[0], zero), np.inf, 0, 0
    for penalty in penalties:
        parameters, steps = minimise(parameters, sample, labels, inside, penalty, LOOSE)
        log_loss, accuracy = _held_out(parameters, sample, labels, weights, folds, used)
        n_steps += steps
        rises = rises + 1 if log_loss > 1.01 * least else 0
        if log_loss < least:
            least = log_loss
            mean = parameters.mean(axis=0, keepdims=True)
            best = _Best(penalty, mean, log_loss, accuracy, by_fold=parameters)
        if rises == 2 or log_loss * len(labels) < 1:
            break
    return replace(best, steps=n_steps, note=f"penalty chosen by {len(used)} folds")


def _out_of_fold(by_fold: Array32, sample: Photos, folds: Integers) -> Array32:
    """Logits (n, n_classes) of each photo by the parameters of its own fold, NaN where it has none."""
    logits = np.full((len(folds), by_fold.shape[1]), np.nan, np.float32)
    for fold, own in zip(np.unique(folds[folds >= 0]), by_fold, strict=True):
        logits[folds == fold] = sample.features[folds == fold] @ own[:, :-1].T + own[:, -1]
    return logits


def _held_out(
    parameters: Array32, sample: Photos, labels: Integers, weights: Array32, folds: Integers, used: Integers
) -> tuple[float, float]:
    """Weighted mean log-loss and accuracy of the photos that a fold held out, each by its own fold's parameters."""
    loss = right = total = 0.0
    for fold, own in zip(used, parameters, strict=True):
        rows = folds == fold
        logits = sample.features[rows] @ own[:, :-1].T + own[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), labels[rows]]
        weight = weights[rows].astype(np.float64)
        loss += float(weight @ each)
        right += float(weight @ (logits.argmax(axis=1) == labels[rows]))
        total += float(weight.sum())
    return loss / total, right / total
