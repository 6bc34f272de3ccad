"""From the rows of a source to the catalog: those that are photos, by `reading.py`, are given a side.

Copies count once, photos with two labels are left out, sides that the source does not give are drawn by `split.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from rehead.bundle_facts import Task
from rehead.data import far
from rehead.data.catalog import Catalog, Photo
from rehead.data.checks import checked_split
from rehead.data.reading import photos_of
from rehead.data.rows import Row, Skip, Source, bounded
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
    is_learned: bool = True,
    readers: far.Readers | None = None,
    besides: far.Besides | None = None,
) -> Catalog:
    """The catalog of a source, each class with photos to learn from and photos held out.

    task: what its labels are; "auto" where they tell it, see `targets.task_of`. cache: the folder of the index of files
    that were read before; None: all are read. join: adds photos that are known already, before that is checked.
    is_learned: whether classes are to be learned and verified; else any photos will do. readers: machines that read what has an
    address, in place of this one. besides: what else is wanted of photos that have an address, see `far.Besides`.
    Raises SourceError when nothing can be read and SplitError when no honest split can be made.
    """
    found = photos_of(source, progress or Silent(), cache, readers, besides)
    kind = task_of((row.label for row, _ in found), source.layout) if task == "auto" else cast(Task, task)
    found = _labelled(source, found, kind)
    ours = not any(row.side for row, _ in found)
    photos = _with_sides(found, ours, seed, valid_fraction)
    catalog = _catalog(source, photos, found, ours, kind)
    catalog = join(catalog) if join else catalog
    return checked_split(catalog) if is_learned else catalog


def scan_held_out(source: Source, progress: Progress | None = None, task: Task = "classification") -> Catalog:
    """The catalog of photos a finished model is verified on: all, or the held-out sides where there are any."""
    fix = "The bundle gives a number: verify it on a table path,label whose labels are numbers." * (
        task == "regression"
    )
    found = _labelled(source, photos_of(source, progress or Silent()), task, fix)
    has_sides = any(row.side in HELD_OUT_SIDES for row, _ in found)
    wanted = [(row, digest) for row, digest in found if not has_sides or row.side in HELD_OUT_SIDES]
    photos = [Photo(row.path, row.label, "test", digest, row.group) for row, digest in wanted]
    return replace(_catalog(source, photos, wanted, ours=False, task=task), leaks=())


def _labelled(source: Source, found: list[tuple[Row, bytes]], task: Task, fix: str = "") -> list[tuple[Row, bytes]]:
    """The photos with their labels as the task has them; those without one are added to `source.skipped`.

    Raises SourceError where none has one; fix: what is to be done then.
    """
    good = []
    for row, digest in found:
        try:
            label = label_for(task, row.label)
        except ValueError as error:
            source.skipped.append(Skip(row.path, str(error)))
            continue
        good.append((row if label == row.label else replace(row, label=label), digest))
    if not good:
        raise SourceError(
            what=f"No photo of {source.name} has a label that can be used.",
            why="; ".join(f"{bounded(skip.path)} {skip.reason}" for skip in source.skipped[:3]),
            fix=fix or "Name what the labels are: --task classification, multilabel or regression.",
        )
    return good


def _with_sides(found: list[tuple[Row, bytes]], ours: bool, seed: int, valid_fraction: float) -> list[Photo]:
    keys = split_keys([digest for _, digest in found], [row.group for row, _ in found])
    return [
        Photo(
            row.path,
            row.label,
            side_of(key, seed=seed, valid_fraction=valid_fraction) if ours else row.side or "train",
            digest,
            row.group,
        )
        for (row, digest), key in zip(found, keys, strict=True)
    ]


def _catalog(source: Source, photos: list[Photo], found: list[tuple[Row, bytes]], ours: bool, task: Task) -> Catalog:
    """Photos with two labels and copies on one side are taken out; leaks across sides are named."""
    row_by_path = {row.path: row for row, _ in found}
    conflicts = _conflicts(photos)
    kept: dict[tuple[bytes, str], Photo] = {}
    copies = []
    for photo in photos:
        if photo.digest in conflicts:
            continue
        first = kept.setdefault((photo.digest, photo.side), photo)
        if first is not photo:
            copies.append(Skip(photo.path, f"is a copy of {first.path}"))
    learned = {photo.digest for photo in kept.values() if photo.side == "train"}
    leaks = tuple(photo.path for photo in kept.values() if photo.side != "train" and photo.digest in learned)
    skipped = [Skip(p.path, conflicts[p.digest]) for p in photos if p.digest in conflicts]
    return Catalog(
        name=source.name,
        layout=source.layout,
        photos=tuple(kept.values()),
        classes=classes_of((photo.label for photo in kept.values()), task),
        read=lambda photo: source.read(row_by_path[photo.path]),
        skipped=(*source.skipped, *skipped),
        copies=tuple(copies),
        leaks=leaks,
        ours=ours,
        n_unsided=0 if ours else sum(not row_by_path[photo.path].side for photo in kept.values()),
        task=task,
        bad=tuple(source.skipped),
        n_rows=len(found) + len(source.skipped),
        same=_same(photos),
        file=lambda photo: source.file(row_by_path[photo.path]) if photo.path in row_by_path else None,
        uri=lambda photo: source.uri(row_by_path[photo.path]) if photo.path in row_by_path else None,
    )


def _conflicts(photos: list[Photo]) -> dict[bytes, str]:
    """For each digest that stands under several labels, the reason to give."""
    labels: dict[bytes, set[str]] = defaultdict(set)
    for photo in photos:
        labels[photo.digest].add(photo.label)
    return {
        digest: f"the same bytes have several labels: {', '.join(sorted(names))}"
        for digest, names in labels.items()
        if len(names) > 1
    }


def _same(photos: list[Photo]) -> tuple[tuple[Photo, ...], ...]:
    """Photos with the same bytes."""
    groups: dict[bytes, list[Photo]] = defaultdict(list)
    for photo in photos:
        groups[photo.digest].append(photo)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
