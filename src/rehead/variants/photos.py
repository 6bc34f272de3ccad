"""The photos that a form is made and judged with: of the run that a bundle lies in, or others that are named.

Those it is calibrated with are photos to learn from, those it is judged on are held out; no photo is both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.ties import tied
from rehead.bundle import Bundle
from rehead.bundle_facts import AGAIN, FACTS
from rehead.data.catalog import Catalog
from rehead.data.joining import why_gone
from rehead.data.rows import Skip
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.data.split import stratified_order
from rehead.errors import BundleError, PhotoError, RecipeError, RunError, SourceError, counted
from rehead.features.bad import check_bad
from rehead.job import Job
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import Preprocess, prepare
from rehead.predict import BATCH
from rehead.progress import Progress
from rehead.runs.earlier import knows_photos
from rehead.runs.finished import read_finished
from rehead.runs.place import cache_of
from rehead.tuning.recipe import Recipe
from rehead.verdict.metrics import DRAWN

MAX_HELD_OUT = 1_000  # photos: a point of accuracy is ten of them, and PyTorch sees 30 a second on two cores


@dataclass(frozen=True)
class Photos:
    """learn, held_out: places in the catalog; every beginning of `learn` holds each class in proportion."""

    catalog: Catalog
    learn: Sequence[int]
    held_out: Sequence[int]
    side: str


def photos_of(
    bundle: Bundle,
    named: object | None,
    layout: str,
    cache: str | os.PathLike[str] | None,
    progress: Progress,
    max_bad: float = 0.2,
) -> Photos:
    """Those of the bundle's run, or with `named` those of any source that `rehead tune` takes, split as the run would have.

    Raises RunError where the run is not there, SourceError where nothing is held out.
    """
    place = cache_of(bundle.folder, cache)
    if named is None:
        try:
            finished = read_finished(bundle.folder, place)
        except RunError as error:
            raise RunError(
                what=f"The photos of the bundle {bundle.folder} are not known: an export is judged on photos held out.",
                why=error.what
                if knows_photos(bundle.folder.resolve().parent)
                else "It does not lie in the run that made it.",
                fix="Name labelled photos, best those of its run: --photos DIR",
            ) from error
        catalog = finished.catalog
        learn, held_out = finished.outputs.train.tolist(), finished.outputs.held_out.tolist()
        _check_there(catalog, held_out, bundle.folder, max_bad)
    else:
        catalog = _named(bundle, named, layout, place, max_bad, progress)
        learn, held_out = catalog.on("train"), catalog.on(catalog.held_out_side)
    if not held_out:
        raise _nothing("judge", learn, held_out)
    side = DRAWN if catalog.ours else catalog.held_out_side
    judged = set(_spread(catalog, held_out)[:MAX_HELD_OUT])  # in the run's order, as then the intervals are its own
    return Photos(catalog, _spread(catalog, learn), [row for row in held_out if row in judged], side)


def prepared(
    catalog: Catalog, rows: Sequence[int], preprocess: Preprocess
) -> Iterator[tuple[list[int], NDArray[np.uint8], list[Skip]]]:
    """Some photos at a time, as the network sees them: the rows that could be read, (n, h, w, 3), and why others could not."""

    def work(batch: list[int]) -> tuple[list[int], NDArray[np.uint8], list[Skip]]:
        good, pixels, bad = [], [], []
        for row in batch:
            try:
                pixels.append(prepare(catalog.read(catalog.photos[row]), preprocess))
                good.append(row)
            except PhotoError as error:
                bad.append(Skip(catalog.photos[row].path, error.what))
            except OSError as error:
                bad.append(Skip(catalog.photos[row].path, f"cannot be read: {error.strerror or error}"))
        size = (0, preprocess.height, preprocess.width, 3)
        return good, np.stack(pixels) if pixels else np.empty(size, np.uint8), bad

    yield from ordered_map(work, batched(rows, BATCH), workers=n_cores(), ahead=2 * n_cores())


def calibration_photos(
    photos: Photos, preprocess: Preprocess, n: int, max_bad: float, progress: Progress
) -> NDArray[np.uint8]:
    """`n` photos to learn from, or all where there are fewer, (m, h, w, 3).

    Raises SourceError where there are none that can be read, TooManyBad where more than `max_bad` of them cannot be.
    """
    if not photos.learn:
        raise _nothing("calibrate", photos.learn, photos.held_out)
    rows = photos.learn[:n]
    progress.phase("Reading photos to calibrate with", len(rows))
    parts, bad = [], []
    for found, pixels, skipped in prepared(photos.catalog, rows, preprocess):
        progress.advance(len(found) + len(skipped))
        parts.append(pixels)
        bad += skipped
    check_bad(bad, len(rows), max_bad)
    if len(bad) == len(rows):
        raise SourceError(
            what=f"None of {counted(len(rows), 'photo')} can be read: there is nothing to calibrate the export with.",
            why=f"{bad[0].path}: {bad[0].reason}",
            fix="Name labelled photos that can be read: --photos DIR",
        )
    return np.concatenate(parts)


def _nothing(to_do: str, learn: Sequence[int], held_out: Sequence[int]) -> SourceError:
    return SourceError(
        what=f"There is nothing to {to_do} the export with: "
        f"{counted(len(learn), 'photo')} to learn from, {len(held_out)} held out.",
        fix="Name more labelled photos: --photos DIR",
    )


def _check_there(catalog: Catalog, rows: Sequence[int], bundle: Path, max_bad: float) -> None:
    gone = [photo for i in rows if catalog.is_gone(photo := catalog.photos[i])]
    if len(gone) > max_bad * len(rows):
        whys = [why_gone(catalog.read, photo) for photo in gone]
        raise RunError(
            what=f"{len(gone)} of the {counted(len(rows), 'photo')} that the run of {bundle} held out cannot be had.",
            why=f"{gone[0].path} {whys[0]}{', ...' if len(gone) > 1 else '.'}",
            fix="Bring them back to their place, or name where they are now: --photos DIR",
        )


def _named(bundle: Bundle, named: object, layout: str, place: Path, max_bad: float, progress: Progress) -> Catalog:
    """Photos of the classes that the bundle knows; a photo stands on the side where the run had it, or would have put it."""
    source = open_source(
        named, layout=layout, cache=place, classes=bundle.classes, task=bundle.task, max_bad=max_bad, progress=progress
    )
    seed, valid_fraction = _split_of(bundle)
    catalog = scan(
        source,
        seed=seed,
        valid_fraction=valid_fraction,
        task=bundle.task,
        progress=progress,
        is_learned=False,
        are_all=False,
    )
    known = tuple(
        photo
        for photo in catalog.photos
        if bundle.task == "regression" or set(catalog.names(photo)) <= set(bundle.classes)
    )
    if not known:
        raise SourceError(
            what=f"None of the photos is of a class that the bundle knows ({', '.join(bundle.classes[:10])}).",
            fix="Name the folders after the bundle's classes.",
        )
    catalog = _on_sides_of_run(replace(catalog, photos=known, classes=bundle.classes), bundle.folder, place)
    if not catalog.ours or not bundle.facts["recipe"].get("tie_copies", True):
        return catalog  # near copies move no side that was given, and here are no folds
    return tied(Job(catalog, place, progress), range(len(known))).catalog


def _split_of(bundle: Bundle) -> tuple[int, float]:
    """The seed and the share held out of the run that a bundle is of. Raises BundleError for what is none."""
    told = bundle.facts["recipe"]
    try:
        recipe = Recipe(seed=int(told.get("seed", 0)), valid_fraction=float(told.get("valid_fraction", 0.2)))
    except (TypeError, ValueError, OverflowError, RecipeError) as error:
        raise BundleError(
            what=f"The recipe in {bundle.folder / FACTS} does not say how its photos were split.",
            why=error.what if isinstance(error, RecipeError) else f"{error}.",
            fix=AGAIN,
        ) from error
    return recipe.seed, recipe.valid_fraction


def _on_sides_of_run(catalog: Catalog, bundle: Path, place: Path) -> Catalog:
    """The catalog with the photos that the run beside the bundle used on the sides where they were; sides that the source gives
    stay as they are."""
    if not catalog.ours:
        return catalog
    try:
        run = read_finished(bundle, place)
    except RunError:  # it is not there, or not whole
        return catalog
    for rows, side in ((run.outputs.train, "train"), (run.outputs.held_out, run.catalog.held_out_side)):
        of_run = set(run.catalog.digests(rows))
        there = {i for i, digest in enumerate(catalog.columns.digests) if digest in of_run}
        catalog = replace(catalog.with_side(there, side), ours=catalog.ours and (run.catalog.ours or not there))
    return catalog


def _spread(catalog: Catalog, rows: Sequence[int]) -> list[int]:
    keys = catalog.keys()
    strata = catalog.strata
    order = stratified_order(strata[rows], [keys[i] for i in rows], seed=0)
    return [rows[place] for place in order]
