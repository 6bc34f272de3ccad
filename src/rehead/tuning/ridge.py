"""A number a photo: ridge regression on stored features, in closed form (Hoerl and Kennard 1970). NumPy alone.

Features are standardised as in `solve.py`. A penalty is per photo: the objective is the mean squared error + penalty *
|weights|^2, the bias goes free; in scikit-learn's terms alpha = penalty * n_photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.tuning.convex import BLOCK, Array64, Axes, Features, Integers, parts, standard

PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(6, -11, -1))  # 1000 ... 1e-5, from strong to weak
SAMPLE = 1_000  # photos that choose the penalty: a second on two cores at a width of 1280, growing with their square
SAMPLE_QUICK = 3_000
USUAL_ALPHA = 1.0  # times d, where nothing can be held out: as if each weight had been seen on one photo before


@dataclass(frozen=True)
class SolvedRidge:
    """A head of one output. penalty: per photo. cv_mse: mean squared error of the photos that a fold held out, each by a
    fit to the others; None where none was."""

    head: Head
    penalty: float
    cv_mse: float | None
    note: str


def solve_ridge(
    features: Features, values: NDArray[np.floating], *, folds: Integers, penalties: Sequence[float] = PENALTIES
) -> SolvedRidge:
    """The ridge regression whose penalty does best on held-out folds.

    features: (n, d), any float type. values: (n,). folds: (n,), the fold that holds a photo out, -1 for none. penalties:
    one alone is taken as it is. What each fold's fit says of its photos is not fitted but computed: with H the matrix
    that gives the fitted values, the residuals of a fold left out are (I - H_ff)^-1 times those of the whole fit; for
    one photo that is the PRESS of Allen (1974), for several see Cook and Weisberg (1982), 4.2.
    Raises ValueError if a feature is not finite.
    """
    axes, y = standard(features), values.astype(np.float64)
    rows = _sampled(len(y), SAMPLE)
    usual = USUAL_ALPHA * features.shape[1] / len(rows)
    loss: float | None = None
    if len(penalties) == 1:
        penalty, note = penalties[0], "penalty as given"
    elif not (folds[rows] >= 0).any():
        penalty, note = usual, "no photo could be held out: usual penalty"
    else:
        losses = _held_out(axes.standardised(features[rows]), y[rows], folds[rows], penalties)
        loss, penalty = float(losses.min()), penalties[int(losses.argmin())]
        note = f"penalty chosen by {len(np.unique(folds[folds >= 0]))} folds"
        note += f", on {len(rows):,} of {len(y):,} photos" if len(rows) < len(y) else ""
    n = len(rows) if len(penalties) > 1 else len(y)  # chosen on a sample, it stays what it was on all photos together
    return SolvedRidge(_fitted(axes, features, y[:, None], penalty * n), penalty * n / len(y), loss, note)


def solve_quick_ridge(features: Features, targets: NDArray[np.floating]) -> Head:
    """A ridge regression of each column of targets, (n,) or (n, k), at the usual penalty, on at most SAMPLE_QUICK photos."""
    rows = _sampled(len(features), SAMPLE_QUICK)
    chosen = features[rows]
    columns = targets[rows].reshape(len(rows), -1).astype(np.float64)
    return _fitted(standard(chosen), chosen, columns, USUAL_ALPHA * features.shape[1])


def _sampled(n: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of n rows, in order; any fixed choice that knows nothing of the folds."""
    return np.arange(n) if n <= limit else np.sort(np.random.default_rng(0).permutation(n)[:limit])


def _held_out(block: NDArray[np.float32], y: Array64, folds: Integers, penalties: Sequence[float]) -> Array64:
    """The mean squared error of held-out photos for each penalty, from strong to weak, until it clearly rises."""
    basis, variance = _basis(block)
    n, used = len(y), np.unique(folds[folds >= 0])
    losses = []
    for penalty in penalties:
        kept = variance / (variance + penalty * n)
        residual = y - y.mean() - basis @ (kept * (basis.T @ (y - y.mean())))
        squares = 0.0
        for fold in used:
            own = folds == fold
            hat = (basis[own] * kept) @ basis[own].T + 1 / n  # the bias is fitted too
            squares += np.square(np.linalg.solve(np.eye(len(hat)) - hat, residual[own])).sum()
        losses.append(squares / (folds >= 0).sum())
        if min(losses[-2:]) > 1.01 * min(losses):  # two clear rises: weaker penalties only get worse
            break
    return np.array(losses)


def _basis(block: NDArray[np.float32]) -> tuple[Array64, Array64]:
    """Left singular vectors (n, r) of the centred block (n, d), and the squares of its singular values, those near 0 left
    out."""
    exact = block.astype(np.float64)
    exact -= exact.mean(axis=0, keepdims=True)
    n, width = exact.shape
    squares, vectors = np.linalg.eigh(exact @ exact.T if n <= width else exact.T @ exact)
    there = squares > 1e-10 * max(squares[-1], 1e-300)
    squares, vectors = squares[there], vectors[:, there]
    return (vectors if n <= width else exact @ (vectors / np.sqrt(squares))), squares


def _fitted(axes: Axes, features: Features, y: Array64, alpha: float) -> Head:
    """The head of the least squares under alpha * |weights|^2, from whichever system of equations is smaller. y: (n, k)."""
    n, width = features.shape
    centre = y.mean(axis=0)
    if n <= width:
        block = axes.standardised(features).astype(np.float64)
        weights = block.T @ np.linalg.solve(block @ block.T + alpha * np.eye(n), y - centre)
    else:
        products, towards = alpha * np.eye(width), np.zeros((width, y.shape[1]))
        for part in parts(n, BLOCK):
            rows = axes.standardised(features[part]).astype(np.float64)
            products = products + rows.T @ rows
            towards += rows.T @ (y[part] - centre)
        weights = np.asarray(np.linalg.solve(products, towards), np.float64)
    return axes.head("linear", np.concatenate([weights.T, centre[:, None]], axis=1))
