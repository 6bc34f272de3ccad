"""From the rows of a source to the catalog: files are read, told from what is no photo, and given a side.

Every file is read once, by several threads, and is a photo if its content says so; one that was read by an earlier job and
did not change since is not read again (`known.py`). Copies count once, photos with two labels are left out, sides that the
source does not give are drawn by `split.py`. Nothing is decoded here.
"""

from __future__ import annotations

import functools
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import cast

import blake3

from rehead.bundle_facts import Task
from rehead.data import far
from rehead.data.addresses import read_address
from rehead.data.catalog import Catalog, Photo
from rehead.data.checks import checked_split
from rehead.data.folders import PICTURE_NAMES
from rehead.data.known import Look, open_known, stamp_of
from rehead.data.rows import Row, Skip, Source, Stamp, bounded
from rehead.data.split import HELD_OUT_SIDES, side_of, split_keys
from rehead.data.targets import classes_of, label_for, task_of
from rehead.errors import PhotoError, ReheadError, SourceError
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import is_image
from rehead.progress import Progress, Silent

CHUNK = 128  # files a thread reads at a time; more makes the bar jump, fewer costs switching
REMEMBERED = 10_000  # files that are written into the index at once
MAX_WORKERS = (
    4  # a slow disk answers several at once; on one that does not wait, more than the cores took twice the time
)


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
) -> Catalog:
    """The catalog of a source, each class with photos to learn from and photos held out.

    task: what its labels are; "auto" where they tell it, see `targets.task_of`. cache: the folder of the index of files
    that were read before; None: all are read. join: adds photos that are known already, before that is checked.
    is_learned: whether classes are to be learned and verified; else any photos will do. readers: machines that read what has an
    address, in place of this one.
    Raises SourceError when nothing can be read and SplitError when no honest split can be made.
    """
    found = _identified(source, progress or Silent(), cache, readers)
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
    found = _labelled(source, _identified(source, progress or Silent()), task, fix)
    has_sides = any(row.side in HELD_OUT_SIDES for row, _ in found)
    wanted = [(row, digest) for row, digest in found if not has_sides or row.side in HELD_OUT_SIDES]
    photos = [Photo(row.path, row.label, "test", digest, row.group) for row, digest in wanted]
    return replace(_catalog(source, photos, wanted, ours=False, task=task), leaks=())


def _identified(
    source: Source, progress: Progress, cache: Path | None = None, readers: far.Readers | None = None
) -> list[tuple[Row, bytes]]:
    """The rows that are photos, with their digests; others are added to `source.skipped` when somebody would miss them."""
    progress.phase("Reading", len(source.rows), "files")
    named = source.layout not in ("folders", "split", "flat")  # a list of photos says of each that it is one
    found: list[tuple[Row, bytes]] = []
    identify = functools.partial(_identify, source, named)
    how = At(identify, min(MAX_WORKERS, max(2, n_cores())), CHUNK)
    if any(source.uri(row) is not None for row in source.rows):
        how = replace(how, at_once=far.n_readers(), chunk=far.FEW)
        if readers is not None:
            there = functools.partial(_identify_there, source, named, readers)
            how = At(there, readers.at_once, far.CHUNK)
    for rows, results in _chunks(source, how, cache):
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, bytes):
                found.append((row, result))
            elif result:
                source.skipped.append(Skip(row.path, result))
        progress.advance(len(rows))
    if not found:
        raise _nothing(source)
    return found


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


Chunk = list[tuple[Row, Look]]


@dataclass(frozen=True)
class At:
    """How rows are read: by what, so many chunks at once, of so many rows."""

    identify: Callable[[Chunk], list[bytes | str]]
    at_once: int
    chunk: int


def _chunks(source: Source, how: At, cache: Path | None) -> Iterator[tuple[list[Row], list[bytes | str]]]:
    """The rows, some at a time, with what is said of them, by several threads; what is new is remembered."""
    with open_known(cache) if cache is not None else nullcontext() as known:

        def looked() -> Iterator[Chunk]:
            for rows in batched(source.rows, how.chunk):
                looks = known.look([_stamped(source, row) for row in rows]) if known else [Look(None, None)] * len(rows)
                chunk = list(zip(rows, looks, strict=True))
                under_way.append(chunk)
                yield chunk

        under_way: deque[Chunk] = deque()
        new: list[tuple[str, Stamp, bytes]] = []
        for results in ordered_map(how.identify, looked(), workers=how.at_once, ahead=4 * how.at_once):
            chunk = under_way.popleft()
            for (row, look), result in zip(chunk, results, strict=True):
                if look.stamp and look.digest is None and isinstance(result, bytes):
                    new.append((str(_place(source, row)), look.stamp, result))
            if known and len(new) >= REMEMBERED:
                known.remember(new)
                new.clear()
            yield [row for row, _ in chunk], results
        if known:
            known.remember(new)


def _place(source: Source, row: Row) -> str | None:
    """The file or the address of a row."""
    return source.file(row) or source.uri(row)


def _stamped(source: Source, row: Row) -> tuple[str, Stamp | None] | None:
    """The same, and what changes when it does."""
    if (file := source.file(row)) is not None:
        return file, stamp_of(file)
    uri = source.uri(row)
    return None if uri is None else (uri, source.stamp(row))


def _identify(source: Source, named: bool, chunk: Chunk) -> list[bytes | str]:
    """For each row its digest, or the reason why it is no photo ("" when nobody would expect one)."""
    return [look.digest or identified(functools.partial(source.read, row), row.path, named) for row, look in chunk]


def _identify_there(source: Source, named: bool, readers: far.Readers, chunk: Chunk) -> list[bytes | str]:
    """The same by other machines, of those that have an address and are not known."""
    uris = {
        n: uri for n, (row, look) in enumerate(chunk) if look.digest is None and (uri := source.uri(row)) is not None
    }
    asked = [(uri, chunk[n][0].path) for n, uri in uris.items()]
    told = dict(zip(uris, readers.each(functools.partial(identified_at, named), asked), strict=True)) if asked else {}
    here = [n for n in range(len(chunk)) if told.get(n) is None]
    found = told | dict(zip(here, _identify(source, named, [chunk[n] for n in here]), strict=True))
    return [one for n in range(len(chunk)) if (one := found[n]) is not None]


def identified(read: Callable[[], bytes], path: str, named: bool) -> bytes | str:
    """The digest of what is read, or the reason why it is no photo ("" when nobody would expect one). named: whether a list
    says that it is one."""
    try:
        data = read()
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except PhotoError as error:
        return error.what
    expected = named or PurePath(path).suffix.lower() in PICTURE_NAMES
    if not data:
        return "is empty (0 bytes)" if expected else ""
    if not is_image(data[:64]):
        return "is not an image that can be read" if expected else ""
    return blake3.blake3(data).digest()


def identified_at(named: bool, rows: list[tuple[str, str]]) -> list[bytes | str | None]:
    """The same of what is at each address, with its path; None where this machine has no way to it."""

    def one(row: tuple[str, str]) -> bytes | str | None:
        try:
            return identified(functools.partial(read_address, row[0]), row[1], named)
        except ReheadError:
            return None

    return list(ordered_map(one, rows, workers=far.AT_ONCE, ahead=2 * far.AT_ONCE))


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


def _nothing(source: Source) -> SourceError:
    reasons = "; ".join(f"{bounded(skip.path)} {skip.reason}" for skip in source.skipped[:3])
    return SourceError(
        what=f"{source.name} has no photo that can be read.",
        why=reasons or f"{len(source.rows)} files were looked at, none of them an image.",
        fix="Pass a folder with one folder of photos for each class.",
    )
