"""Heads at growing fractions of the photos, each judged on the held-out ones. How the errors fall is `verdict/growth.py`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.data.split import seed_for
from rehead.progress import Progress
from rehead.tuning.head import X, Y, fit_head
from rehead.tuning.recipe import Recipe
from rehead.tuning.solve import solve_linear, solve_prototype

FRACTIONS = ((0.1, 3), (0.2, 3), (0.4, 2), (0.7, 1))  # of the photos, and on how many parts of that size
MOST_EPOCHS = 40  # of an MLP on a part, as many as it has where nothing is asked for
FEWEST_A_CLASS = 3  # photos, in the smallest part; larger parts are tried where there are fewer
Right = NDArray[np.bool_]


def grown(
    features: X,
    labels: Y,
    held_out: X,
    held_labels: Y,
    n_classes: int,
    recipe: Recipe,
    head: Head,
    penalty: float | None,
    progress: Progress,
    device: str = "cpu",
) -> tuple[list[int], list[Right]]:
    """Numbers of photos, ascending, and for each (repeats, n_held_out), whether heads learned from so many are right.

    The last is `head`, which learned from all. penalty: that of a linear head, whose C is kept at every fraction; None
    for other heads. device: of PyTorch, for dense layers. Each part holds every class in proportion.
    """
    fit = _fit_of(n_classes, recipe, head, penalty, len(labels), device)
    n_photos: list[int] = []
    right: list[Right] = []
    for fraction, repeats in FRACTIONS:
        if fraction * np.bincount(labels, minlength=n_classes).min() < FEWEST_A_CLASS:
            continue
        tries = []
        for number in range(repeats):
            rows = part(labels, fraction, seed_for(recipe.seed, "part", number, str(fraction)))
            tries.append(fit(features[rows], labels[rows]).logits(held_out).argmax(axis=1) == held_labels)
        n_photos.append(len(rows))
        right.append(np.stack(tries))
        progress.advance()
    whole = head.logits(held_out).argmax(axis=1) == held_labels
    return [*n_photos, len(labels)], [*right, whole[None]]


def multiplied(n: int, head: Head, recipe: Recipe) -> float:
    """The multiplications by which heads of dense layers learn from all parts of n photos; 0 for other heads."""
    if head.kind != "mlp":
        return 0
    n_weights = sum(weight.size for weight, _ in head.layers)
    return 3 * n_weights * n * _epochs(recipe) * sum(fraction * repeats for fraction, repeats in FRACTIONS)


def part(labels: Y, fraction: float, seed: int) -> Y:
    """The rows of a random part that holds each class in proportion, and at least one photo of each."""
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([own[: max(1, round(fraction * len(own)))] for own in rows]))


def _epochs(recipe: Recipe) -> int:
    return min(recipe.epochs or MOST_EPOCHS, MOST_EPOCHS)


def _fit_of(
    n_classes: int, recipe: Recipe, head: Head, penalty: float | None, n_all: int, device: str
) -> Callable[[X, Y], Head]:
    def fit(x: Any, y: Any) -> Head:
        none = np.full(len(y), -1, np.int64)
        if head.kind == "prototype":
            return solve_prototype(x, y, n_classes)
        if head.kind == "linear" and penalty is not None:
            given = [penalty * n_all / len(y)]
            return solve_linear(x, y, n_classes, folds=none, class_weight=recipe.class_weight, penalties=given).head
        widths = ",".join(str(len(weight)) for weight, _ in head.layers[:-1])
        own = f"mlp:{widths}" if widths else head.kind  # --head auto has chosen by now
        few = replace(recipe, head=own, epochs=_epochs(recipe))
        return fit_head(x, y, n_classes, none, few, device).head

    return fit
