"""A run's head by k-fold on all its photos, from kept features; pictures are read where no hash of them is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.ambient import own_settings
from rehead.auditing.ties import with_one_key
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo, Skip
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.data.split import fold_numbers
from rehead.divided import folds_of, in_store, too_few
from rehead.errors import PhotoError, RecipeError, RunError, StoreError, counted, escaped
from rehead.extraction import open_store
from rehead.features.bad import check_bad, skip_of
from rehead.fitting import prefix_of_run
from rehead.job import Job
from rehead.pixels import Preprocess, prepare
from rehead.progress import Progress, Silent
from rehead.runs.earlier import Earlier, read_earlier
from rehead.runs.finished import read_finished
from rehead.runs.learned import n_among, tuned_on, unknown_note
from rehead.runs.origins import full_path, place_of
from rehead.runs.place import cache_of
from rehead.tuning.labels import USUAL_THRESHOLD
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import fit_task
from rehead.verdict.judging import AnyVerdict, judge_task
from rehead.verdict.metrics import FOLDS

SMALLEST = 2  # folds
LABELS_SEEN = "What its layers give for a photo has already learned from its label."


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


@own_settings()
def cross_validate(
    folder: str | os.PathLike[str],
    source: object = None,
    *,
    folds: int = 5,
    layout: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CrossValidated:
    """Every photo judged by a head that learned from the other folds, its penalty and thresholds chosen there too.

    folder: a run whose layers were frozen, or its bundle. source: other labelled photos whose features are kept, by default
    those that the run used, held out ones included. Copies, near ones too, and groups share a fold.
    Raises RunError where layers were trained, or were before on some of these photos, or weights are others now, StoreError
    where features are missing, RecipeError.
    """
    begun, progress = time.monotonic(), progress or Silent()
    if folds < SMALLEST:
        raise RecipeError(what=f"--folds {folds} leaves nothing to learn from.", fix="Use 2 or more, usually 5.")
    if source is None and layout != "auto":
        raise RecipeError(
            what=f"--layout {layout} says how photos are read, and none are named.",
            why="Those of the run are taken as it read them.",
            fix="Leave --layout out, or name photos.",
        )
    place = cache_of(folder, cache)
    earlier = read_earlier(folder, place)
    recipe = replace(_checked(earlier), folds=folds)
    catalog, rows, root = _photos(earlier, source, layout, place, progress)
    before = _tuned_before(earlier, [catalog.photos[i] for i in rows])
    prefix = prefix_of_run(Job(catalog, place, progress), recipe, earlier.bundle)
    with open_store(place, prefix, recipe) as store:
        there = in_store(catalog, rows, store)
        bad = _bad(catalog, sorted(set(rows) - set(there)), prefix.card.preprocess)
        features = store.read(catalog.digests(there))
    check_bad(bad, len(rows), recipe.max_bad, before=catalog.bad, n_all=catalog.n_all)
    if catalog.unlearnable(there):
        raise too_few(catalog, there, there)
    if recipe.tie_copies:
        catalog = with_one_key(Job(catalog, place, progress), there).catalog
    targets, numbers = catalog.labels(there), folds_of(catalog, there, recipe)
    judged = np.flatnonzero(numbers >= 0)
    if not len(judged):
        raise RunError(what="No fold can hold out a photo and learn its class.", fix="Add photos of each class.")
    progress.phase("Solving heads", folds, "folds")
    device = Job(catalog, place).own_device(recipe.device)
    outputs, thresholds = _outputs(catalog, there, features, targets, numbers, recipe, device, progress)
    verdict = judge_task(
        catalog.task,
        outputs[judged],
        targets[judged],
        classes=catalog.classes,
        thresholds=thresholds[judged],
        median=float(np.median(targets)),
        paths=[full_path(root, catalog.photos[there[int(i)]].path) for i in judged],
        side=FOLDS,
        n_train=round(len(there) * (1 - 1 / folds)),
        notes=(*before, *_notes(catalog, len(there) - len(judged), bad)),
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
            why=LABELS_SEEN,
            fix="Cross-validate a run whose layers are frozen: rehead tune photos/ --train head",
        )
    return earlier.recipe


def _tuned_before(earlier: Earlier, photos: Sequence[Photo]) -> tuple[str, ...]:
    """A note where layers of the backbone, a bundle, were tuned before, and nobody knows on what. Raises RunError where it was
    on some of these photos."""
    layers = earlier.bundle.facts["backbone"].get("learned")
    if not layers:
        return ()
    learned = tuned_on(earlier.bundle.folder)
    if learned is None:
        return (unknown_note(layers),)
    if n := n_among(learned, photos):
        raise RunError(
            what=f"The layers below the head of {earlier.run} have learned from {n} of these "
            f"{counted(len(photos), 'photo')} before.",
            why=LABELS_SEEN,
            fix="Name photos that they did not learn from, or cross-validate a run on a backbone that was not tuned on these.",
        )
    return ()


def _photos(
    earlier: Earlier, source: object, layout: str, cache: Path, progress: Progress
) -> tuple[Catalog, Sequence[int], str]:
    """The photos, the places of those that the run used, or would use of others, and what their paths are relative to."""
    if source is None:
        run = read_finished(earlier.run, cache)
        return replace(run.catalog, bad=()), run.outputs.used.tolist(), place_of(earlier.run)
    own, facts = earlier.recipe, earlier.bundle
    opened = open_source(source, layout=layout, cache=cache, classes=facts.classes, task=facts.task, progress=progress)
    found = scan(
        opened, seed=own.seed, valid_fraction=own.valid_fraction, task=facts.task, progress=progress, cache=cache
    )
    if lacking := sorted(set(found.classes) - set(facts.classes)):
        progress.note(f"Classes that the run does not know are learned here too: {', '.join(lacking[:5])}")
    return found, found.on("train", found.held_out_side), ""


def _bad(catalog: Catalog, missing: Sequence[int], preprocess: Preprocess) -> list[Skip]:
    """Why each of the photos without features has none: it cannot be read. Raises StoreError at one that can be."""
    bad = []
    for i in missing:
        photo = catalog.photos[i]
        try:
            prepare(catalog.read(photo), preprocess)
        except PhotoError as error:
            if not catalog.is_gone(photo):
                bad.append(skip_of(photo, error))
                continue
        except OSError:
            pass
        raise StoreError(
            what=f"The store has no features of {len(missing) - len(bad)} of {counted(len(catalog.photos), 'photo')}, "
            f"such as {photo.path}.",
            why="Cross-validation takes kept features; they were cleared, are in another cache, or were never extracted.",
            fix="Name the cache with --cache DIR, or extract them again with `rehead tune` on the same photos.",
        )
    return bad


def _outputs(
    catalog: Catalog,
    rows: Sequence[int],
    x: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    recipe: Recipe,
    device: str,
    progress: Progress,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each photo is given by a head that did not learn from its fold, (n, k), and of several labels the probability
    from which on that head names each, (n, k). NaN in fold -1."""
    keys = catalog.keys()
    own_keys, strata = [keys[i] for i in rows], catalog.strata[np.asarray(rows, np.int64)]
    outputs, thresholds = np.full((2, len(y), catalog.n_outputs), np.nan, np.float32)
    with threadpool_limits(1):  # many small products: threads that wait for each other lose
        for fold in np.unique(folds[folds >= 0]):
            held_out, learned = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            inner = fold_numbers(
                (own_keys[i] for i in learned), strata[learned], n_folds=recipe.folds, seed=recipe.seed
            )
            outputs[held_out], thresholds[held_out] = _by_others(
                catalog, x[learned], y[learned], inner, x[held_out], recipe, device
            )
            progress.advance()
    return outputs, thresholds


def _by_others(
    catalog: Catalog,
    x: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    shown: NDArray[Any],
    recipe: Recipe,
    device: str,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a head that learned from x and y gives for other photos, (m, k), and its thresholds, (k,).

    A label that none or all of the photos learned from have is given what that says: odds of the counts, half a photo added.
    """
    if catalog.task != "multilabel":
        head = fit_task(catalog.task, x, y, catalog.n_outputs, folds, recipe, device).head
        return head.logits(shown), np.full(catalog.n_outputs, USUAL_THRESHOLD, np.float32)
    n_shown = y.sum(axis=0)
    logits = np.tile(np.log((n_shown + 0.5) / (len(y) - n_shown + 0.5)), (len(shown), 1))
    thresholds = np.full(len(n_shown), USUAL_THRESHOLD, np.float32)
    can = np.flatnonzero((n_shown > 0) & (n_shown < len(y)))
    if len(can):
        fitted = fit_task(catalog.task, x, y[:, can], len(can), folds, recipe, device)
        logits[:, can], thresholds[can] = fitted.head.logits(shown), fitted.thresholds
    return logits, thresholds


def _notes(catalog: Catalog, n_never_out: int, bad: Sequence[Skip]) -> tuple[str, ...]:
    notes = []
    if n_never_out:
        which = (
            "of a class that no fold can hold out" if catalog.task == "classification" else "that no fold can hold out"
        )
        notes.append(f"{counted(n_never_out, 'photo')} {which} are left out.")
    if bad:
        are = "is" if len(bad) == 1 else "are"
        notes.append(
            f"{counted(len(bad), 'photo')} that cannot be read {are} left out, such as {escaped(bad[0].path)}."
        )
    return tuple(notes)
