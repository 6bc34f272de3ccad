"""Heads with one best answer: multinomial logistic regression and the nearest class mean, solved on stored features.

Both see standardised features (mean 0, variance 1 over the training photos) and give a Head that acts on raw ones.
A penalty is per photo: the objective is the mean loss in nats + penalty / 2 * |weights|^2, the bias goes free. In
scikit-learn's terms C = 1 / (penalty * n_photos), twice that for two classes, which have one logit there and two here.
Training by gradient steps is left to `train.py`. NumPy alone does the work: nothing here takes time to import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head, Kind

Features = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]
_Move = tuple[Array32, Array32, Array32]  # one step: how far it went, how the gradient changed, their inner product

PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(4, -10, -1))  # 100 ... 3e-5, from strong to weak
PENALTY_BY_WIDTH = 5e-5  # where nothing can be held out: near the best on digits (width 64) and at widths 640, 1280
SAMPLE = 4_000  # photos that choose the penalty; choosing on all of 20,000 would take five times as long
SAMPLE_QUICK = 3_000
WIDEST = 4_096  # whose principal axes are computed where there are more photos than SAMPLE: 6 s on two cores
TIGHT, LOOSE, QUICK = 3e-5, 3e-2, 1e-1  # how far the logits may still be from the optimum, see _minimise
ABSENT = -1e4  # the logit of a class without photos in a quick fit
BLOCK = 1_024  # photos standardised at a time; fewer are faster alone, much slower where other work shares the cores
CELLS = 2_000_000  # logits at a time: 8 MB
PATIENCE, MAX_STEPS = 50, 1_000


@dataclass(frozen=True)
class Solved:
    """A head, the penalty it was solved with, and how that did on the photos that a fold held out (None: none was).

    cv_accuracy, cv_log_loss (nats): classes weighted as in the fit. iterations: of the whole path and the last solve.
    """

    head: Head
    penalty: float
    cv_accuracy: float | None
    cv_log_loss: float | None
    iterations: int
    note: str


def solve_linear(
    features: Features,
    labels: Integers,
    n_classes: int,
    *,
    folds: Integers,
    class_weight: str | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> Solved:
    """The multinomial logistic regression whose penalty does best on held-out folds, solved to convergence.

    features: (n, d), any float type, left as they are; no more than about SAMPLE photos are copied. labels: (n,),
    0..n_classes-1. folds: (n,), the fold that holds a photo out, -1 for none. class_weight: None, or "balanced", where
    each class weighs the same. penalties: from strong to weak; one alone is taken as it is.
    The penalty is chosen by log-loss: accuracy is flat over decades of it, so that its best is mostly chance.
    Same input, same machine: the same head, bit for bit.
    Raises ValueError if a class has no photo, or a feature is not finite.
    """
    n_photos = _count(labels, n_classes, complete=True)
    if class_weight not in (None, "balanced"):
        raise ValueError(f"class_weight is None or 'balanced', not {class_weight!r}")
    by_class = len(labels) / (n_classes * n_photos) if class_weight else np.ones(n_classes)
    weights = by_class[labels].astype(np.float32)
    rows = _stratified(labels, n_photos, SAMPLE)
    sample, photos = _along_axes(features, rows)
    best = _follow(sample, labels[rows], n_classes, weights[rows], folds[rows], penalties)
    whole = (weights / weights.sum())[None]
    # one penalty on all photos together, as scikit-learn's C has it: per photo it weakens as they become more
    penalty = best.penalty * (len(rows) / len(labels) if len(penalties) > 1 else 1)
    parameters, steps = _minimise(best.parameters, photos, labels, whole, penalty, TIGHT)
    head = photos.axes.head("linear", parameters[0])
    note = best.note + (f", on {len(rows):,} of {len(labels):,} photos" if len(rows) < len(labels) else "")
    return Solved(head, penalty, best.accuracy, best.log_loss, best.steps + steps, note)


def solve_quick(features: Features, labels: Integers, n_classes: int, *, penalty: float | None = None) -> Head:
    """A logistic regression at one penalty, to a loose tolerance and on at most SAMPLE_QUICK photos: for a display.

    Shapes as in solve_linear. penalty: PENALTY_BY_WIDTH * d by default. A class without photos has ABSENT as its logit.
    """
    n_photos = _count(labels, n_classes)
    present = np.flatnonzero(n_photos)
    rows = _stratified(labels, n_photos, SAMPLE_QUICK)
    axes = _standard(features[rows])
    photos = _Photos(axes.standardised(features[rows]), axes, done=True)
    start = np.zeros((1, len(present), len(axes.variance) + 1), np.float32)
    weights = np.full((1, len(rows)), 1 / len(rows), np.float32)
    penalty = PENALTY_BY_WIDTH * features.shape[1] if penalty is None else penalty
    found, _ = _minimise(start, photos, np.searchsorted(present, labels[rows]), weights, penalty, QUICK)
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
    axes = _standard(features)
    sums = np.zeros((n_classes, features.shape[1]))
    for part in _parts(len(labels), BLOCK):
        members = (labels[part] == np.arange(n_classes)[:, None]).astype(np.float32)
        sums += members @ axes.standardised(features[part])
    means = sums / n_photos[:, None]
    usual = 1 / features.shape[1]  # two photos are 2 d apart in the mean: odds of e^2 in the very place of a mean
    linear = np.concatenate([2 * means, -np.square(means).sum(axis=1, keepdims=True)], axis=1)
    rows = _stratified(labels, n_photos, SAMPLE)
    scores = _left_out(axes.standardised(features[rows]), labels[rows], linear, n_photos)
    return axes.head("prototype", _sharpness(scores, labels[rows], usual=usual) * linear)


def cross_validated(
    features: Features, labels: Integers, n_classes: int, folds: Integers, fit: Callable[[Features, Integers], Head]
) -> Array32:
    """Logits (n, n_classes) of each photo by a head that did not see it: fit(features, labels) of the other folds.

    folds: (n,), the fold that holds a photo out. A photo of fold -1 is never held out: its logits are NaN.
    """
    logits = np.full((len(labels), n_classes), np.nan, np.float32)
    for fold in np.unique(folds[folds >= 0]):
        held_out = folds == fold
        head = fit(features[~held_out], labels[~held_out])
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
class _Axes:
    """The solver's coordinates: standardised features, and along `turn` (d, r), orthonormal, if there is one.

    mean, scale: (d,); a feature that does not vary has scale 0, and so no weight. variance: (r,), of each coordinate.
    """

    mean: Array32
    scale: Array32
    turn: Array32 | None
    variance: Array32

    def standardised(self, features: Features) -> Array32:
        block: Array32 = np.subtract(features, self.mean, dtype=np.float32)
        block *= self.scale
        return block

    def head(self, kind: Kind, parameters: NDArray[Any]) -> Head:
        """parameters: (n_classes, r + 1), the weights in these coordinates and the bias -> a head for raw features."""
        weights = parameters[:, :-1] if self.turn is None else parameters[:, :-1] @ self.turn.T
        weights = weights * self.scale.astype(np.float64)
        bias = parameters[:, -1] - weights @ self.mean.astype(np.float64)
        return Head(kind, ((weights.astype(np.float32), bias.astype(np.float32)),))


@dataclass(frozen=True)
class _Photos:
    """Photos block by block, so that no copy of all is needed. features: raw, or if `done` already along `axes`."""

    features: Features
    axes: _Axes
    done: bool

    def blocks(self, size: int) -> Iterator[tuple[slice, Array32]]:
        """(the block's place, (size, r) if done else (size, d) standardised)."""
        for part in _parts(len(self.features), size if self.done else BLOCK):
            yield part, self.features[part] if self.done else self.axes.standardised(self.features[part])


@dataclass(frozen=True)
class _Best:
    """Where the path was best: the mean of the folds' parameters, (1, n_classes, r + 1), and what they did held out."""

    penalty: float
    parameters: Array32
    log_loss: float | None = None
    accuracy: float | None = None
    steps: int = 0
    note: str = ""


class _Point(NamedTuple):
    """Parameters (n_fits, n_classes, r + 1); each fit's loss, its gradient, and the mean of p (1 - p) over the classes."""

    at: Array32
    loss: Array64
    gradient: Array32
    spread: Array64


def _parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _count(labels: Integers, n_classes: int, *, complete: bool = False) -> NDArray[np.int64]:
    n_photos = np.bincount(labels, minlength=n_classes).astype(np.int64)
    if len(n_photos) > n_classes or not n_photos.any():
        raise ValueError(f"the labels of {len(labels)} photos are not all below {n_classes}")
    if complete and not n_photos.all():
        raise ValueError(f"class {int(np.argmin(n_photos))} has no photo")
    return n_photos


def _stratified(labels: Integers, n_photos: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """About `limit` rows at most, in order: each class in proportion, but no class under five photos if it has them."""
    if len(labels) <= limit:
        return np.arange(len(labels))
    quota = np.minimum(n_photos, np.maximum(5, -(-limit * n_photos // len(labels))))
    shuffled = np.random.default_rng(0).permutation(len(labels))  # any fixed order that knows nothing of the folds
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(n_photos) - n_photos, n_photos)
    return np.sort(by_class[rank < np.repeat(quota, n_photos)])


def _standard(features: Features) -> _Axes:
    n, width = features.shape
    total, squares = np.zeros(width), np.zeros(width)
    for part in _parts(n, BLOCK):
        total += features[part].sum(axis=0, dtype=np.float64)
    mean = (total / n).astype(np.float32)
    if not np.isfinite(mean).all():
        raise ValueError(f"feature {int(np.argmin(np.isfinite(mean)))} is not finite in every photo")
    for part in _parts(n, BLOCK):
        block = np.subtract(features[part], mean, dtype=np.float32)
        squares += np.einsum("nd,nd->d", block, block)
    std = np.sqrt(squares / n)
    varies = std > 4 * np.finfo(np.float32).eps * np.abs(mean)  # less is the rounding of a constant
    scale = np.divide(1, std, out=np.zeros(width), where=varies).astype(np.float32)
    return _Axes(mean, scale, None, np.ones(width, np.float32))


def _along_axes(features: Features, rows: Integers) -> tuple[_Photos, _Photos]:
    """The photos `rows`, copied along their principal axes, and all photos in the same coordinates."""
    standard = _standard(features)
    block = standard.standardised(features[rows])
    everyone = len(rows) == len(features)
    axes = standard if block.shape[1] > WIDEST and not everyone else _principal(standard, block, thin=everyone)
    sample = _Photos(block if axes.turn is None else block @ axes.turn, axes, done=True)
    return sample, sample if everyone else _Photos(features, axes, done=False)


def _principal(standard: _Axes, block: Array32, *, thin: bool) -> _Axes:
    """All d principal axes of the block (n, d), or if `thin` may be only those along which its photos differ.

    With fewer photos than features these come from the photos' Gram matrix, and hold the optimum: the best weights are
    a sum of photos.
    """
    n, width = block.shape
    exact = block.astype(np.float64)
    if n >= width or not thin:
        variance, turn = np.linalg.eigh(exact.T @ exact / n)
    else:
        variance, mixtures = np.linalg.eigh(exact @ exact.T / n)
        kept = variance > 1e-10 * variance[-1]
        variance = variance[kept]
        turn = exact.T @ (mixtures[:, kept] / np.sqrt(n * variance))
    return replace(standard, turn=turn.astype(np.float32), variance=np.maximum(variance, 0).astype(np.float32))


def _follow(
    sample: _Photos, labels: Integers, n_classes: int, weights: Array32, folds: Integers, penalties: Sequence[float]
) -> _Best:
    """The penalty of least held-out log-loss. Each start is the last one's end; two clear rises end the path."""
    used = np.unique(folds[folds >= 0])
    width = len(sample.axes.variance)
    zero = np.zeros((1, n_classes, width + 1), np.float32)
    if len(penalties) == 1:
        return _Best(penalties[0], zero, note="penalty as given")
    if not len(used):
        return _Best(PENALTY_BY_WIDTH * len(sample.axes.mean), zero, note="no photo could be held out: usual penalty")
    inside = weights * (folds != used[:, None])  # (n_folds, n)
    inside /= inside.sum(axis=1, keepdims=True)
    parameters = np.repeat(zero, len(used), axis=0)
    best, least, rises, n_steps = _Best(penalties[0], zero), np.inf, 0, 0
    for penalty in penalties:
        parameters, steps = _minimise(parameters, sample, labels, inside, penalty, LOOSE)
        log_loss, accuracy = _held_out(parameters, sample, labels, weights, folds, used)
        n_steps += steps
        rises = rises + 1 if log_loss > 1.01 * least else 0
        if log_loss < least:
            least = log_loss
            best = _Best(penalty, parameters.mean(axis=0, keepdims=True), log_loss, accuracy)
        if rises == 2:
            break
    return replace(best, steps=n_steps, note=f"penalty chosen by {len(used)} folds")


def _held_out(
    parameters: Array32, sample: _Photos, labels: Integers, weights: Array32, folds: Integers, used: Integers
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


def _minimise(
    start: Array32, photos: _Photos, labels: Integers, weights: Array32, penalty: float, tolerance: float
) -> tuple[Array32, int]:
    """Parameters (n_fits, n_classes, r + 1) of least penalised loss, found from `start`, and the number of steps.

    All fits at once, in wide products. weights: (n_fits, n), the sum of each fit's is 1. L-BFGS (Liu and Nocedal 1989)
    on a guess of the Hessian that is diagonal along principal axes, see _guess. By that guess it is known how far the
    logits still are from the optimum, root mean square over the photos: |gradient| / sqrt(Hessian x spread). It ends
    when this is at most `tolerance` in each fit, or has not halved in PATIENCE steps: float32 goes no further.
    """
    measure = partial(_measure, photos=photos, labels=labels, weights=weights, penalty=penalty)
    memory = min(10, max(3, 20_000_000 // start.size))  # under 500 MB with many classes
    point, earlier = measure(start), np.inf
    history: list[_Move] = []
    for step in range(MAX_STEPS):
        guess = _guess(point.spread, photos.axes.variance, penalty)
        error = np.sqrt(_dot(point.gradient * guess, point.gradient) / point.spread)
        if (error <= tolerance).all() or (step % PATIENCE == 0 and error.max() > earlier / 2):
            return point.at, step
        earlier = float(error.max()) if step % PATIENCE == 0 else earlier
        direction = _direction(point.gradient, history, guess) * _each(error > tolerance)
        new = _search(measure, point, direction)
        moved, change = new.at - point.at, new.gradient - point.gradient
        history = [*history, (moved, change, _dot(moved, change))][-memory:]
        point = new
    return point.at, MAX_STEPS


def _guess(spread: Array64, variance: Array32, penalty: float) -> Array32:
    """The inverse of the Hessian, diagonal along the axes (n_fits, 1, r + 1): exact if all photos were as doubtful."""
    curvature = np.append(spread[:, None] * variance + penalty, spread[:, None], axis=1)
    return (1 / curvature[:, None]).astype(np.float32)


def _direction(gradient: Array32, history: Sequence[_Move], guess: Array32) -> Array32:
    """The two loops of L-BFGS, for each fit by itself: its inverse Hessian times the gradient."""
    direction, shares = gradient.copy(), []
    for moved, change, curve in reversed(history):
        shares.append(_ratio(_dot(moved, direction), curve, 0))
        direction -= _each(shares[-1]) * change
    direction *= guess
    if history:
        _, change, curve = history[-1]
        direction *= _each(_ratio(curve, _dot(change * guess, change), 1))
    for (moved, change, curve), share in zip(history, reversed(shares), strict=True):
        direction += _each(share - _ratio(_dot(change, direction), curve, 0)) * moved
    return direction


def _search(measure: Callable[[Array32], _Point], point: _Point, direction: Array32) -> _Point:
    """The point against `direction` where each fit's loss is lower by its part of the slope (Armijo's rule)."""
    slope = _dot(point.gradient, direction)
    size = np.ones_like(slope)
    for _ in range(20):
        new = measure(point.at - _each(size) * direction)
        high = new.loss > point.loss - 1e-4 * size * slope + 1e-7 * point.loss  # the last is float32's rounding
        if not high.any():
            break
        size[high] *= 0.4
    return new


def _measure(at: Array32, photos: _Photos, labels: Integers, weights: Array32, penalty: float) -> _Point:
    """The penalised loss and gradient of each fit: one pass over the photos, two products a block."""
    n_fits, n_classes, _ = at.shape
    bias, flat = at[:, :, -1:], at[:, :, :-1].reshape(n_fits * n_classes, -1)
    turn = None if photos.done else photos.axes.turn
    towards = flat if turn is None else flat @ turn.T
    loss, doubt = np.zeros(n_fits), np.zeros(n_fits)
    slope, bias_slope = np.zeros_like(towards), np.zeros_like(bias)
    for part, block in photos.blocks(max(BLOCK, CELLS // len(flat))):
        logits = (towards @ block.T).reshape(n_fits, n_classes, -1)
        logits += bias
        logits -= logits.max(axis=1, keepdims=True)
        own = (slice(None), labels[part], np.arange(len(block)))
        chosen = logits[own]
        np.exp(logits, out=logits)
        logits[own] = 0
        others, weight = logits.sum(axis=1), weights[:, part]
        share = weight / (others + np.exp(chosen))
        loss += np.sum(weight * (np.log1p(others + np.expm1(chosen)) - chosen), axis=1, dtype=np.float64)
        doubt += np.sum(share * others, axis=1, dtype=np.float64)
        logits *= share[:, None]
        logits[own] = -share * others  # p - 1, without the cancellation where the photo is all but certain
        slope += logits.reshape(len(flat), -1) @ block
        bias_slope += logits.sum(axis=2, keepdims=True)
    slope = slope if turn is None else slope @ turn
    slope += np.float32(penalty) * flat
    loss += penalty / 2 * np.square(flat, dtype=np.float64).reshape(n_fits, -1).sum(axis=1)
    gradient = np.concatenate([slope.reshape(n_fits, n_classes, -1), bias_slope], axis=2)
    return _Point(at, loss, gradient, np.maximum(doubt / n_classes, 1e-9))


def _each(values: NDArray[Any]) -> Array32:
    """(n_fits,) -> (n_fits, 1, 1)."""
    return values[:, None, None].astype(np.float32)


def _dot(a: Array32, b: Array32) -> Array32:
    """The inner product of each fit's parameters, (n_fits,)."""
    return np.asarray(np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1)))


def _ratio(a: Array32, b: Array32, default: float) -> Array32:
    """a / b where b > 0, else the default: where a fit rests, or its loss shows no curvature but rounding."""
    return np.divide(a, b, out=np.full_like(a, default), where=b > 0)
