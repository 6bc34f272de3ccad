"""The head a recipe asks for, from features and labels: linear, MLP, prototype, or the best of them by k-fold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.bundle import Head
from rehead.errors import Diverged
from rehead.progress import Progress, Silent
from rehead.tuning.ranges import hidden_widths
from rehead.tuning.recipe import Recipe
from rehead.tuning.sample import SAMPLE, in_each_fold
from rehead.tuning.solve import cross_validated, solve_linear, solve_prototype

if TYPE_CHECKING:
    from rehead.tuning.mlp import By


@dataclass(frozen=True)
class Apart:
    """What photos are given by a head, or one like it in a k-fold, that did not learn from them. rows: (m,), their places
    among the photos to learn from. logits: (m, n_classes)."""

    rows: NDArray[np.integer[Any]]
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, rows: NDArray[np.integer[Any]], logits: NDArray[np.float32]) -> Apart:
        """Without those that have none (NaN), as no fold held them out."""
        known = np.isfinite(logits).all(axis=1)
        return cls(rows[known], logits[known])


@dataclass(frozen=True)
class Fitted:
    """A head, a few words on how it was found, and of several labels the probability from which on each is named.

    apart: of classes, where some photos were held out. penalty: that a linear head of classes was solved with. n_watched:
    photos that said which epoch is kept, of which nothing was learned."""

    head: Head
    note: str
    thresholds: tuple[float, ...] = ()
    apart: Apart | None = None
    penalty: float | None = None
    n_watched: int = 0


SOFT_PENALTY = 1e-2  # times d / n_classes; a hundred times what is usual for a head that stays alone
CANDIDATES = ("linear", "prototype", "mlp:256")  # what --head auto chooses from
X: TypeAlias = NDArray[Any]  # (n, width) float32, or float16 as the store has them; many are a memory map
Y: TypeAlias = NDArray[np.int64]


def fit_head(
    features: X,
    labels: Y,
    n_classes: int,
    folds: Y,
    recipe: Recipe,
    device: str = "cpu",
    progress: Progress | None = None,
    axes_in: Path | None = None,
    by: By | None = None,
    watch: NDArray[np.bool_] | None = None,
) -> Fitted:
    """The head, and how it was found. features: (n, width). folds: (n,), see `split.fold_numbers`. axes_in: as in
    `solve_linear`. by: who trains an MLP, None for this process; those that only folds ask for it trains anyway. watch: as in
    `train_mlp`."""
    progress = progress or Silent()
    if recipe.head != "auto":
        return _fit(recipe.head, features, labels, n_classes, folds, recipe, device, progress, axes_in, by, watch)
    if (folds < 0).all():
        simplest = CANDIDATES[0]
        fitted = _fit(simplest, features, labels, n_classes, folds, recipe, device, progress, axes_in, by, watch)
        return replace(fitted, note=f"{fitted.note}; {simplest} as the simplest, as heads could not be compared")
    rows = in_each_fold(labels, folds, SAMPLE)
    x, y, sample_folds = features[rows], labels[rows], folds[rows]
    scores = {}
    for candidate in CANDIDATES:
        fit = functools.partial(_refit, candidate, n_classes, recipe, device)
        try:
            scores[candidate] = _accuracy(x, y, n_classes, sample_folds, fit)
        except Diverged as error:
            progress.note(f"Head {candidate} is left out: {error.what}")
            continue
        progress.note(f"Head {candidate}: {scores[candidate]:.1%} right by {recipe.folds}-fold on the training side")
    best = max(scores, key=lambda name: scores[name])  # the first, and simplest, of equals
    fitted = _fit(best, features, labels, n_classes, folds, recipe, device, progress, by=by, watch=watch)
    return replace(fitted, note=f"{fitted.note}; the best of {', '.join(CANDIDATES)} by {recipe.folds}-fold")


def logits_by_folds(
    features: X,
    labels: Y,
    n_classes: int,
    folds: Y,
    recipe: Recipe,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Logits (n, n_classes) of each photo by a head, not "auto", fitted without its fold, its penalty too. NaN in fold -1."""
    fit = functools.partial(_refit, recipe.head, n_classes, recipe, device)
    with threadpool_limits(1):  # many small products: threads that wait for each other lose, ninefold on busy cores
        return cross_validated(features, labels, n_classes, folds, fit)


def soft_head(features: X, labels: Y, n_classes: int, folds: Y, class_weight: str | None) -> tuple[Head, str]:
    """A linear head to begin training layers with: under a strong penalty, so that it is right but not sure.

    One that was solved to its best is sure of the very photos it learned from, and what it asks of the layers below
    wrecks them: on the flowers, 70 % of the training side to learn from, four epochs ended at 75.4 % right of the other
    30 % behind the best head, 78.2 % behind random numbers and 79.5 % behind this one.
    """
    penalty = SOFT_PENALTY * features.shape[1] / n_classes
    solved = solve_linear(features, labels, n_classes, folds=folds, class_weight=class_weight, penalties=[penalty])
    return solved.head, "linear: solved under a strong penalty"


def _fit(
    name: str,
    x: X,
    y: Y,
    n_classes: int,
    folds: Y,
    recipe: Recipe,
    device: str,
    progress: Progress,
    axes_in: Path | None = None,
    by: By | None = None,
    watch: NDArray[np.bool_] | None = None,
) -> Fitted:
    if name == "linear":
        solved = solve_linear(x, y, n_classes, folds=folds, class_weight=recipe.class_weight, axes_in=axes_in)
        apart = None
        if solved.out_of_fold is not None and solved.rows is not None:
            apart = Apart.of(solved.rows, solved.out_of_fold)
        return Fitted(
            solved.head, f"linear: multinomial logistic regression, {solved.note}", apart=apart, penalty=solved.penalty
        )
    if name == "prototype":
        rows = in_each_fold(y, folds, SAMPLE)
        logits = cross_validated(
            x[rows], y[rows], n_classes, folds[rows], lambda x, y, _: solve_prototype(x, y, n_classes)
        )
        note = "prototype: nearest class mean on standardised features"
        return Fitted(solve_prototype(x, y, n_classes), note, apart=Apart.of(rows, logits))
    from rehead.tuning.mlp import train_mlp

    head, note, seen = train_mlp(
        x, y, n_classes, hidden=hidden_widths(name), device=device, progress=progress, by=by, watch=watch,
        **mlp_settings(recipe),
    )  # fmt: skip
    apart = Apart(seen, head.logits(x[seen])) if len(seen) else None
    return Fitted(head, note, apart=apart, n_watched=len(seen))


def _refit(name: str, n_classes: int, recipe: Recipe, device: str, x: X, y: Y, folds: Y) -> Head:
    """One head for one fold; its penalty is chosen by the others, which hold copies and groups together."""
    if name == "prototype":
        return solve_prototype(x, y, n_classes)
    return _fit(name, x, y, n_classes, _inner(y, folds), recipe, device, Silent()).head


def _inner(y: Y, folds: Y) -> Y:
    """The folds without which a head is solved, -1 for photos of a class that is in one of them alone: no other could learn it.
    Where one fold is left its photos are dealt out to two, each class evenly."""
    inner = folds.copy()
    if len(np.unique(folds[folds >= 0])) == 1:
        rank = np.argsort(np.lexsort((folds, y)), kind="stable")
        inner = np.where(folds >= 0, rank % 2, -1)
    for label in np.unique(y):
        own = y == label
        if len(np.unique(inner[own & (inner >= 0)])) < 2 and not (own & (inner < 0)).any():
            inner[own] = -1
    return inner


def _accuracy(x: X, y: Y, n_classes: int, folds: Y, fit: Callable[[Any, Any, Any], Head]) -> float:
    logits = cross_validated(x, y, n_classes, folds, fit)
    scored = folds >= 0
    return float((logits[scored].argmax(axis=1) == y[scored]).mean())


def mlp_settings(recipe: Recipe) -> dict[str, Any]:
    """How an MLP is trained by this recipe, as arguments of `mlp.train_mlp`."""
    return {
        "epochs": recipe.epochs or 40,
        "batch_size": recipe.batch_size or 64,
        "lr": recipe.lr,
        "activation": recipe.activation,
        "class_weight": recipe.class_weight,
        "seed": recipe.seed,
    }
