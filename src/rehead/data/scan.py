"""From the rows of a source to the catalog: those that are photos, by `reading.py`, are given a side.

Copies count once, photos with two labels are left out, sides that the source does not give are drawn by `split.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from rehead.bundle_facts import Task
from rehead.data import far
from rehead.data.catalog import Catalog
from rehead.data.checks import checked_split
from rehead.data.columns import Digests, Names, Photos, Rows
from rehead.data.reading import checked, photos_of
from rehead.data.rows import Named, Photo, Skip, Source, bounded
from rehead.data.small import with_both_sides
from rehead.data.split import HELD_OUT_SIDES, side_of, split_keys
from rehead.data.targets import classes_of, label_for, task_of
from rehead.errors import SourceError
from rehead.progress import Progress, Silent


def scan(
    source: Source,
    *,
    seed: int,
    valid_fraction: float,
    task: str = "auto",
    progress: Progress | None = None,
    cache: Path | None = None,
    join: Callable[[Catalog], Catalog] | None = None,
    check: Callable[[Catalog], None] | None = None,
    is_learned: bool = True,
    are_all: bool = True,
    readers: far.Readers | None = None,
    besides: far.Besides | None = None,
) -> Catalog:
    """The catalog of a source, each class with photos to learn from and photos held out.

    task: what its labels are; "auto" where they tell it, see `targets.task_of`. cache: the folder of the index of files
    that were read before; None: all are read. join: adds photos that are known already, before that is checked.
    check: raises where the photos will not do; asked before their sides are judged, which may lack what cannot be read.
    is_learned: whether classes are to be learned and verified; else any photos will do. are_all: whether these are all photos
    of a job; see `with_both_sides`. readers: machines that read what has an address, in place of this one. besides: what else
    is wanted of photos that have an address, see `far.Besides`.
    Raises SourceError when nothing can be read and SplitError when no honest split can be made.
    """
    rows, digests = photos_of(source, progress or Silent(), cache, readers, besides)
    kind = task_of(rows.labels.different, source.layout) if task == "auto" else cast(Task, task)
    rows, digests = _labelled(source, rows, digests, kind)
    ours = not any(rows.sides.different)
    photos = _with_sides(rows, digests, ours, seed, valid_fraction)
    catalog = _catalog(source, photos, rows.sides, ours, kind)
    if join:
        catalog = join(catalog if ours else replace(catalog, is_placed=_given(source, rows)))
    if ours:
        catalog = with_both_sides(catalog, seed=seed, are_all=are_all)
    if check:
        check(catalog)
    return checked_split(catalog, is_told=task != "auto") if is_learned else catalog


def scan_held_out(source: Source, progress: Progress | None = None, task: Task = "classification") -> Catalog:
    """The catalog of photos a finished model is verified on: all, or the held-out sides where there are any."""
    fix = "The bundle gives a number: verify it on a table path,label whose labels are numbers." * (
        task == "regression"
    )
    rows, digests = _labelled(source, *photos_of(source, progress or Silent()), task, fix)
    has_sides = any(side in HELD_OUT_SIDES for side in rows.sides.different)
    if has_sides:
        away = set(np.flatnonzero(~rows.sides.each(lambda side: side in HELD_OUT_SIDES, bool)).tolist())
        rows, digests = rows.without(away), digests.without(away)
    sides = Names("test" for _ in rows)
    photos = Photos.of(rows.paths, rows.labels, sides, digests, rows.groups)
    return _catalog(source, photos, sides, ours=False, task=task)


def _labelled(source: Source, rows: Rows, digests: Digests, task: Task, fix: str = "") -> tuple[Rows, Digests]:
    """The photos with their labels as the task has them; those without one are added to `source.skipped`.

    Raises SourceError where none has one; fix: what is to be done then.
    """
    kept: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for label in rows.labels.different:
        try:
            kept[label] = label_for(task, label)
        except ValueError as error:
            reasons[label] = str(error)
    bad = dict[int, Skip]()
    if reasons:
        bad = {i: Skip(row.path, reasons[row.label]) for i, row in enumerate(rows) if row.label in reasons}
        source.skipped.extend(bad.values())
        rows, digests = rows.without(bad.keys()), digests.without(bad.keys())
    if any(label != new for label, new in kept.items()):
        rows = Rows.of(rows.paths, Names(kept[label] for label in rows.labels), rows.sides, rows.groups)
    if not rows:
        raise SourceError(
            what=f"No photo of {source.name} has a label that can be used.",
            why="; ".join(f"{bounded(skip.path)} {skip.reason}" for skip in [*bad.values()][:3]),
            fix=fix or "Name what the labels are: --task classification, multilabel or regression.",
        )
    return rows, digests


def _with_sides(rows: Rows, digests: Digests, ours: bool, seed: int, valid_fraction: float) -> Photos:
    if ours:
        keys = split_keys(digests, rows.groups)
        sides = Names(side_of(key, seed=seed, valid_fraction=valid_fraction) for key in keys)
    else:
        sides = Names(side or "train" for side in rows.sides)
    return Photos.of(rows.paths, rows.labels, sides, digests, rows.groups)


def _given(source: Source, rows: Rows) -> Callable[[Named], bool]:
    """Whether the side of a photo was given by the source."""
    others = {row.path for row in rows if not row.side or source.is_rest(row)}
    return lambda photo: photo.path not in others


def _catalog(source: Source, photos: Photos, given: Names[str | None] | Names[str], ours: bool, task: Task) -> Catalog:
    """Photos with two labels and copies on one side are taken out. given: the sides as the source has them."""
    same = [[(i, photos[i]) for i in places] for places in photos.digests.same()]
    skipped: dict[int, Skip] = {}
    copies: dict[int, Skip] = {}
    for group in same:
        labels = {photo.label for _, photo in group}
        if len(labels) > 1:
            why = f"the same bytes have several labels: {', '.join(sorted(labels))}"
            skipped |= {i: Skip(photo.path, why, "copy") for i, photo in group}
            continue
        first: dict[str, int] = {}
        for i, photo in group:
            if (j := first.setdefault(photo.side, i)) != i:
                copies[i] = Skip(photo.path, f"is a copy of {photos.paths[j]}", "copy")
    away = skipped.keys() | copies.keys()
    kept = photos.without(away)
    bad = tuple(skip for skip in source.skipped if skip.kind == "broken")
    return Catalog(
        name=source.name,
        layout=source.layout,
        photos=kept,
        classes=classes_of(kept.labels.different, task),
        read=partial(_again, source.read),
        skipped=(*source.skipped, *_in_order(skipped)),
        copies=_in_order(copies),
        ours=ours,
        n_unsided=0 if ours else sum(not side for side in given.without(away)),
        task=task,
        bad=bad,
        n_rows=len(photos) + len(bad),
        same=tuple(tuple(photo for _, photo in group) for group in same),
        file=source.file,
        uri=source.uri,
    )


def _again(read: Callable[[Named], bytes], photo: Photo) -> bytes:
    """The bytes of a photo that the job has identified. Not a closure of the source, whose rows would stay in memory."""
    return checked(read(photo), photo, "when the job began")


def _in_order(found: Mapping[int, Skip]) -> tuple[Skip, ...]:
    return tuple(found[i] for i in sorted(found))
