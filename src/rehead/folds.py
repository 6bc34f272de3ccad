"""A run's head by k-fold on all its photos, from the features that are kept: no picture is read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead import bundle as bundles
from rehead.data.catalog import Catalog
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.divided import folds_of, in_store
from rehead.errors import RecipeError, RunError, StoreError, counted
from rehead.extraction import chosen_prefix, open_store
from rehead.features.cache import cache_folder
from rehead.job import Job
from rehead.progress import Progress, Silent
from rehead.runs.earlier import Earlier, read_earlier
from rehead.tuning.head import logits_by_folds
from rehead.tuning.recipe import Recipe
from rehead.tuning.solve import cross_validated
from rehead.tuning.tasks import fit_task
from rehead.verdict.judging import AnyVerdict, judge_task
from rehead.verdict.metrics import FOLDS

SMALLEST = 2  # folds


@dataclass(frozen=True)
class CrossValidated:
    """by_fold: the share right in each fold, of classes; else empty. seconds: in all."""

    run: Path
    verdict: AnyVerdict
    by_fold: tuple[float, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        facts = {
            "run": str(self.run),
            "bundle": None,
            "seconds": {"total": self.seconds},
            "by_fold": list(self.by_fold),
        }
        return {**facts, "verdict": self.verdict.to_dict()}


def cross_validate(
    folder: str | os.PathLike[str],
    source: object = None,
    *,
    folds: int = 5,
    layout: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CrossValidated:
    """Every photo judged by a head that learned from the other folds, its penalty chosen there too.

    folder: a run whose layers were frozen, or its bundle. source: other labelled photos whose features are kept, by default
    the run's own, those it held out included. Copies and groups share a fold.
    Raises RunError where layers were trained, StoreError where features are missing, RecipeError.
    """
    begun, progress = time.monotonic(), progress or Silent()
    if folds < SMALLEST:
        raise RecipeError(what=f"--folds {folds} leaves nothing to learn from.", fix="Use 2 or more, usually 5.")
    place = cache_folder(cache)
    earlier = read_earlier(folder, place)
    recipe = replace(_checked(earlier), folds=folds)
    catalog = _catalog(earlier, source, layout, place, progress)
    job = Job(catalog, place, progress)
    with open_store(place, chosen_prefix(job, recipe), recipe) as store:
        rows = in_store(catalog, list(range(len(catalog.photos))), store)
        _check_there(catalog, rows)
        features = store.read(catalog.digests(rows))
    progress.phase("Solving heads", folds, "folds")
    targets, numbers = catalog.labels(rows), folds_of(catalog, rows, recipe)
    outputs = _outputs(catalog, features, targets, numbers, recipe, progress)
    judged = np.flatnonzero(numbers >= 0)
    facts = bundles.read(earlier.run / "bundle")
    verdict = judge_task(
        catalog.task,
        outputs[judged],
        targets[judged],
        classes=catalog.classes,
        thresholds=facts.thresholds,
        median=float(np.median(targets)),
        paths=[catalog.photos[rows[int(i)]].path for i in judged],
        side=FOLDS,
        n_train=round(len(rows) * (1 - 1 / folds)),
        notes=_notes(rows, judged),
    )
    by_fold: tuple[float, ...] = ()
    if catalog.task == "classification":
        right = outputs.argmax(axis=1) == targets
        by_fold = tuple(float(right[numbers == fold].mean()) for fold in np.unique(numbers[judged]))
    return CrossValidated(earlier.run, verdict, by_fold, round(time.monotonic() - begun, 3))


def _checked(earlier: Earlier) -> Recipe:
    if earlier.recipe.train != "head":
        raise RunError(
            what=f"{earlier.run} trained {earlier.recipe.train}, which folds would have to do again each.",
            why="What its layers give for a photo has already learned from its label.",
            fix="Cross-validate a run whose layers are frozen: rehead tune photos/ --train head",
        )
    return earlier.recipe


def _catalog(earlier: Earlier, source: object, layout: str, cache: Path, progress: Progress) -> Catalog:
    facts = bundles.read(earlier.run / "bundle")
    if source is None:
        return Catalog(earlier.run.name, "manifest", earlier.photos, facts.classes, earlier.read, task=facts.task)
    opened = open_source(source, layout=layout, cache=cache, classes=facts.classes, task=facts.task, progress=progress)
    own = earlier.recipe
    found = scan(
        opened, seed=own.seed, valid_fraction=own.valid_fraction, task=facts.task, progress=progress, cache=cache
    )
    if lacking := sorted(set(found.classes) - set(facts.classes)):
        progress.note(f"Classes that the run does not know are learned here too: {', '.join(lacking[:5])}")
    return found


def _check_there(catalog: Catalog, rows: Sequence[int]) -> None:
    if missing := len(catalog.photos) - len(rows):
        gone = sorted(set(range(len(catalog.photos))) - set(rows))
        raise StoreError(
            what=f"The store has no features of {missing} of {counted(len(catalog.photos), 'photo')}, "
            f"such as {catalog.photos[gone[0]].path}.",
            why="Cross-validation reads features alone; they were cleared, are in another cache, or were never extracted.",
            fix="Name the cache with --cache DIR, or extract them again with `rehead tune` on the same photos.",
        )
    if lacking := catalog.unlearnable(rows):
        raise RunError(what=f"Nothing can be learned of {', '.join(lacking[:5])}.", fix="Add photos of other classes.")


def _outputs(
    catalog: Catalog, x: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int64], recipe: Recipe, progress: Progress
) -> NDArray[np.float32]:
    if catalog.task == "classification" and recipe.head != "auto":
        return logits_by_folds(x, y, catalog.n_outputs, folds, recipe, progress=progress)

    def fit(x: Any, y: Any) -> Any:
        return fit_task(catalog.task, x, y, catalog.n_outputs, np.arange(len(y)) % recipe.folds, recipe).head

    return cross_validated(x, y, catalog.n_outputs, folds, fit)


def _notes(rows: Sequence[int], judged: NDArray[np.intp]) -> tuple[str, ...]:
    n = len(rows) - len(judged)
    return (f"{counted(n, 'photo')} of a class that no fold can hold out are left out.",) if n else ()
