"""The optimiser under the convex heads: photos in standardised coordinates, and the least penalised logistic loss.

Several fits at once, in wide products, on photos that need not be in memory as a whole. Which penalties, which photos
and what a head makes of it is left to `solve.py`. NumPy alone does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head, Kind
from rehead.tuning.kept_axes import axes_of

Features = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]
_Move = tuple[Array32, Array32, Array32]  # one step: how far it went, how the gradient changed, their inner product

WIDEST = 4_096  # whose principal axes are computed where there are more photos than SAMPLE: 6 s on two cores
BLOCK = 1_024  # photos standardised at a time; fewer are faster alone, much slower where other work shares the cores
COPIED_BYTES = 256 << 20  # photos whose coordinates are kept, in float32; above that each step makes them anew
# rows that are multiplied one by one, and with how many photos: they are still in the processor's cache
FEW, IN_REACH = 4, 512
# the least that a feature is divided by, of the features' median deviation: one that is all but still on few photos moves
# on new ones, by a hundred deviations. Of ten a class, ants and bees are 92 % right for 88, 0.29 nats for 0.93 (12 draws)
LEAST = 0.2
CELLS = 2_000_000  # logits at a time: 8 MB
PATIENCE, MAX_STEPS = 50, 1_000


@dataclass(frozen=True)
class Axes:
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
class Photos:
    """Photos block by block, so that no copy of all is needed.

    form: what `features` are: "raw"; "standard", standardised already; "turned", those along the axes' `turn`.
    """

    features: Features
    axes: Axes
    form: Literal["raw", "standard", "turned"]

    def blocks(self, size: int) -> Iterator[tuple[slice, Array32]]:
        """(the block's place, (size, r) if turned else (size, d) standardised)."""
        raw = self.form == "raw"
        for part in parts(len(self.features), BLOCK if raw else size):
            yield part, self.axes.standardised(self.features[part]) if raw else self.features[part]


class _Point(NamedTuple):
    """Parameters (n_fits, n_classes, r + 1); each fit's loss, its gradient, and the mean of p (1 - p) over the classes."""

    at: Array32
    loss: Array64
    gradient: Array32
    spread: Array64


def standard(features: Features) -> Axes:
    """Axes that take features (n, d) to mean 0 and deviation 1, those that hardly vary to less: see LEAST."""
    n, width = features.shape
    total, squares = np.zeros(width), np.zeros(width)
    for part in parts(n, BLOCK):
        total += features[part].sum(axis=0, dtype=np.float64)
    mean = (total / n).astype(np.float32)
    if not np.isfinite(mean).all():
        raise ValueError(f"feature {int(np.argmin(np.isfinite(mean)))} is not finite in every photo")
    for part in parts(n, BLOCK):
        block = np.subtract(features[part], mean, dtype=np.float32)
        squares += np.einsum("nd,nd->d", block, block)
    std = np.sqrt(squares / n)
    varies = std > 4 * np.finfo(np.float32).eps * np.abs(mean)  # less is the rounding of a constant
    least = LEAST * np.median(std[varies]) if varies.any() else 1.0
    scale = np.divide(1, np.maximum(std, least), out=np.zeros(width), where=varies).astype(np.float32)
    return Axes(mean, scale, None, np.ones(width, np.float32))


def along_axes(features: Features, rows: Integers, axes_in: Path | None = None) -> tuple[Photos, Photos]:
    """The photos `rows`, copied along their principal axes, and all photos, for parameters in the same coordinates.

    axes_in: a file that the axes are kept in, see `kept_axes.py`.

    All photos are not turned: that is d^2 a photo, as much as hundreds of steps of two classes. A step turns the weights.
    """
    plain = standard(features)
    block = plain.standardised(features[rows])
    everyone = len(rows) == len(features)
    axes = plain
    if block.shape[1] <= WIDEST or everyone:
        variance, turn = axes_of(block, axes_in, partial(_principal, block, thin=everyone), thin=everyone)
        axes = replace(plain, turn=turn, variance=np.maximum(variance, 0))
    sample = Photos(block if axes.turn is None else block @ axes.turn, axes, "turned")
    return sample, sample if everyone else _all_photos(features, axes)


def _all_photos(features: Features, axes: Axes) -> Photos:
    if 4 * features.size > COPIED_BYTES:
        return Photos(features, axes, "raw")
    copy = np.empty(features.shape, np.float32)
    for part in parts(len(features), BLOCK):
        copy[part] = axes.standardised(features[part])
    return Photos(copy, axes, "standard")


def parts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _principal(block: Array32, *, thin: bool) -> tuple[Array32, Array32]:
    """The variance along all d principal axes of the block (n, d), and these (d, r), or if `thin` may be only those along
    which its photos differ.

    With fewer photos than features these come from the photos' Gram matrix, and hold the optimum: the best weights are
    a sum of photos.
    """
    n, width = block.shape
    if n >= width or not thin:
        covariance = np.zeros((width, width))
        for part in parts(n, BLOCK):
            covariance += block[part].T @ block[part]  # float32 suffices: any orthonormal axes hold the optimum
        variance, turn = np.linalg.eigh((covariance / n).astype(np.float32))
    else:
        exact = block.astype(np.float64)
        variance, mixtures = np.linalg.eigh(exact @ exact.T / n)
        kept = variance > 1e-10 * variance[-1]
        variance = variance[kept]
        turn = exact.T @ (mixtures[:, kept] / np.sqrt(n * variance))
    return variance.astype(np.float32), turn.astype(np.float32)


def minimise(
    start: Array32, photos: Photos, labels: Integers, weights: Array32, penalty: float, tolerance: float
) -> tuple[Array32, int]:
    """Parameters (n_fits, n_classes, r + 1) of least penalised loss, found from `start`, and the number of steps.

    start: of two classes, the first's row is the second's negative. weights: (n_fits, n), the sum of each fit's is 1. All
    fits at once, in wide products, by L-BFGS (Liu and Nocedal 1989) on a guess of the Hessian that is diagonal along
    principal axes, see _guess. By that guess it is known how far the logits still are from the optimum, root mean square
    over the photos: |gradient| / sqrt(Hessian x spread). It ends when this is at most `tolerance` in each fit, or has not
    halved in PATIENCE steps: float32 goes no further.
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


def _measure(at: Array32, photos: Photos, labels: Integers, weights: Array32, penalty: float) -> _Point:
    """The penalised loss and gradient of each fit: one pass over the photos, two products a block.

    Of two classes the second's row does for both: they begin at zero, and so stay each other's negative.
    """
    n_fits, n_classes, _ = at.shape
    mirrored = n_classes == 2
    rows = at[:, 1:] if mirrored else at
    bias, flat = rows[:, :, -1:], rows[:, :, :-1].reshape(n_fits * rows.shape[1], -1)
    turn = None if photos.form == "turned" else photos.axes.turn
    towards = flat if turn is None else flat @ turn.T
    loss, doubt = np.zeros(n_fits), np.zeros(n_fits)
    slope, bias_slope = np.zeros_like(towards), np.zeros_like(bias)
    for part, block in photos.blocks(max(BLOCK, CELLS // len(flat)) if len(flat) > FEW else IN_REACH):
        logits = _product(towards, block.T).reshape(n_fits, rows.shape[1], -1)
        logits += bias
        logits = np.concatenate([-logits, logits], axis=1) if mirrored else logits
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
        pull = logits[:, 1:] if mirrored else logits
        slope += _product(pull.reshape(len(flat), -1), block)
        bias_slope += pull.sum(axis=2, keepdims=True)
    slope = slope if turn is None else slope @ turn
    slope += np.float32(penalty) * flat
    loss += penalty / 2 * np.square(at[:, :, :-1], dtype=np.float64).sum(axis=(1, 2))
    gradient = np.concatenate([slope.reshape(n_fits, rows.shape[1], -1), bias_slope], axis=2)
    gradient = np.concatenate([-gradient, gradient], axis=1) if mirrored else gradient
    return _Point(at, loss, gradient, np.maximum(doubt / n_classes, 1e-9))


def _product(rows: Array32, block: Array32) -> Array32:
    """rows (k, n) @ block (n, m). Of few rows one by one: a product of matrices first copies both.

    A BLAS may compute with what lies beside a row in memory too, and now and then leave the processor's flag of an invalid
    number; what comes out is right, and what goes in is finite.
    """
    with np.errstate(invalid="ignore"):
        return rows @ block if len(rows) > FEW else np.stack([row @ block for row in rows])


def _each(values: NDArray[Any]) -> Array32:
    """(n_fits,) -> (n_fits, 1, 1)."""
    return values[:, None, None].astype(np.float32)


def _dot(a: Array32, b: Array32) -> Array32:
    """The inner product of each fit's parameters, (n_fits,)."""
    return np.asarray(np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1)))


def _ratio(a: Array32, b: Array32, default: float) -> Array32:
    """a / b where b > 0, else the default: where a fit rests, or its loss shows no curvature but rounding."""
    return np.divide(a, b, out=np.full_like(a, default), where=b > 0)
