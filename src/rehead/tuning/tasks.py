"""The head a recipe asks for, whatever is learned: classes, several labels a photo, or a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.bundle_facts import Task
from rehead.errors import RecipeError
from rehead.progress import Progress, Silent
from rehead.tuning.head import SOFT_PENALTY, Fitted, X, Y, fit_head, mlp_settings, soft_head
from rehead.tuning.labels import chosen_thresholds, rarest, solve_labels
from rehead.tuning.ranges import hidden_widths
from rehead.tuning.recipe import AUTO, Recipe
from rehead.tuning.ridge import solve_quick_ridge, solve_ridge
from rehead.tuning.sample import SAMPLE, in_each_fold
from rehead.tuning.solve import cross_validated, solve_linear, solve_quick

if TYPE_CHECKING:
    from rehead.tuning.mlp import By

WORDS: dict[Task, str] = {
    "classification": "one class a photo",
    "multilabel": "several labels a photo",
    "regression": "a number a photo",
}


def check_task(recipe: Recipe, task: Task, *, searches: bool = False) -> None:
    """Raises RecipeError for a setting that says nothing of what is learned. searches: with --recipe auto."""
    odd = []
    if searches and task != "classification":
        odd.append(("--recipe auto", "Name --recipe quick, balanced or thorough."))
    if recipe.backbone == AUTO and task != "classification":
        odd.append(("--backbone auto", "Name a backbone."))
    if recipe.head in ("prototype", "auto") and task != "classification":
        odd.append((f"--head {recipe.head}", "Name --head linear or mlp:1000,256."))
    if recipe.sampling == "balanced" and recipe.train != "head" and task != "classification":
        odd.append(("--sampling balanced", "Leave it out; --class-weight balanced weighs labels."))
    if recipe.class_weight is not None and task == "regression":
        odd.append(("--class-weight", "Leave it out."))
    if odd:
        what, fix = odd[0]
        raise RecipeError(
            what=f"{what} is for classes, and what is learned here is {WORDS[task]}.",
            fix=f"{fix} If the labels are classes, say so with --task classification.",
        )


def fit_task(
    task: Task,
    features: X,
    targets: Any,
    n_outputs: int,
    folds: Y,
    recipe: Recipe,
    device: str = "cpu",
    progress: Progress | None = None,
    axes_in: Path | None = None,
    by: By | None = None,
    watch: NDArray[np.bool_] | None = None,
) -> Fitted:
    """The head for these photos. features: (n, width). targets: see `data/targets.py`. folds: see `split.fold_numbers`.
    axes_in: as in `solve_linear`. by, watch: as in `fit_head`."""
    if task == "classification":
        return fit_head(features, targets, n_outputs, folds, recipe, device, progress, axes_in, by, watch)
    if hidden_widths(recipe.head):
        return _mlp(task, features, targets, n_outputs, folds, recipe, device, progress or Silent(), by, watch)
    if task == "regression":
        ridge = solve_ridge(features, targets, folds=folds)
        return Fitted(ridge.head, f"linear: ridge regression, {ridge.note}")
    solved = solve_labels(features, targets, folds=folds, class_weight=recipe.class_weight, axes_in=axes_in)
    note = f"linear: a logistic regression for each label, {solved.note}"
    return Fitted(solved.head, note, chosen_thresholds(solved.out_of_fold, targets))


def first_head(task: Task, features: X, targets: Any, n_outputs: int, folds: Y, recipe: Recipe) -> tuple[Head, str]:
    """A linear head to begin training layers with, right but not too sure; see `head.soft_head`."""
    if task == "classification":
        return soft_head(features, targets, n_outputs, folds, recipe.class_weight)
    if task == "regression":
        return solve_ridge(features, targets, folds=folds).head, "linear: ridge regression"
    penalties = [SOFT_PENALTY * features.shape[1] / 2]  # of two classes: with the label and without
    solved = solve_labels(features, targets, folds=folds, class_weight=recipe.class_weight, penalties=penalties)
    return solved.head, "linear: solved under a strong penalty"


def quick_head(task: Task, features: X, targets: Any, n_outputs: int) -> Head:
    """A head to loose tolerance on a part of the photos, for a display. Of several labels it only ranks photos."""
    return (
        solve_quick(features, targets, n_outputs) if task == "classification" else solve_quick_ridge(features, targets)
    )


def cv_loss(task: Task, features: X, targets: Any, n_outputs: int, folds: Y) -> tuple[float, str]:
    """How a linear head does on photos that a fold held out: a loss to compare by, and the same in words. Of classes and labels
    that can be learned from these photos."""
    if task == "regression":
        loss = solve_ridge(features, targets, folds=folds).cv_mse
        return (np.inf, "") if loss is None else (loss, f"mean squared error {loss:.4g}")
    if task == "multilabel":
        learnable = (targets.min(axis=0) < 1) & (targets.max(axis=0) > 0)
        if not learnable.any():
            return np.inf, ""
        loss, right = solve_labels(features, targets[:, learnable], folds=folds).cv_log_loss, ""
    else:
        present, places = np.unique(targets, return_inverse=True)
        if len(present) < min(2, n_outputs):
            return np.inf, ""
        solved = solve_linear(features, places, len(present), folds=folds)
        loss = solved.cv_log_loss
        right = "" if solved.cv_accuracy is None else f"{solved.cv_accuracy:.1%} right, "
    return (np.inf, "") if loss is None else (loss, f"{right}log-loss {loss:.3f}")


def _mlp(
    task: Task,
    x: X,
    y: Any,
    n_outputs: int,
    folds: Y,
    recipe: Recipe,
    device: str,
    progress: Progress,
    by: By | None,
    watch: NDArray[np.bool_] | None,
) -> Fitted:
    from rehead.tuning.mlp import train_mlp

    def fit(x: X, y: Any, by: By | None = None, watch: NDArray[np.bool_] | None = None) -> Fitted:
        head, note, seen = train_mlp(x, y, n_outputs, hidden=hidden_widths(recipe.head), device=device, progress=progress,
                                     task=task, by=by, watch=watch, **mlp_settings(recipe))  # fmt: skip
        return Fitted(head, note, n_watched=len(seen))

    fitted = fit(x, y, by, watch)
    if task != "multilabel":
        return fitted
    return replace(fitted, thresholds=_thresholds(x, y, n_outputs, folds, lambda x, y, _: fit(x, y).head))


def _thresholds(x: X, y: Any, n_outputs: int, folds: Y, fit: Callable[[X, Any, Any], Head]) -> tuple[float, ...]:
    """Chosen on a sample: its features are in memory, and heads of the folds learn from them alone."""
    rows = in_each_fold(rarest(y), folds, SAMPLE)
    return chosen_thresholds(cross_validated(x[rows], y[rows], n_outputs, folds[rows], fit), y[rows])
