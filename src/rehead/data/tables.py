"""Tables that name photos and their labels: data frames, lists, and the lines of files (`manifests.py`).

The columns are path, label, and where wanted split and group. Paths are relative to the manifest's folder, on a disk or in a
bucket, or to the working folder for tables in memory; or they are addresses. What a photo holds is left to others; that it is
there is looked at by `places.py`.
"""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from rehead.data.columns import Rows, Texts, equal_rows
from rehead.data.places import Files, Place
from rehead.data.rows import (
    NOT_THERE,
    SIDE_BY_NAME,
    Request,
    Row,
    Skip,
    Source,
    bounded,
    is_nothing,
    label_of,
    quoted,
)
from rehead.errors import NothingThere, SourceError, UnsafeArchive, nearest

COLUMNS = ("path", "label", "split", "group")
TOLD_AT_ONCE = 1_000  # lines between two steps of the progress display
PICTURES = ("image", "img", "picture", "photo", "jpg", "png", "bytes")
ALSO_KNOWN = {"side": "split", "digest": ""}  # what a catalog that was written out has besides


@dataclass(frozen=True)
class Line:
    """A line of a table before it is checked. number: as the user counts it: lines from 1, positions from 0."""

    number: int
    path: Any
    label: Any
    split: Any = None
    group: Any = None


def read_table(source: Any, request: Request) -> Source:
    """The rows of a pandas or polars data frame or a pyarrow table, by its columns' names."""
    names = [str(name) for name in _columns(source)]
    fix = "The table needs the columns path and label and, where wanted, split and group."
    place = places_of(names, "The table", fix)
    columns = {name: values_of(source[names[i]]) for name, i in place.items()}
    return source_of("table", "table", lines_of(columns, 0), Files(Path.cwd()), "the table", request)


def is_table(source: object) -> bool:
    """Whether `source` has what a data frame or a pyarrow table has."""
    return hasattr(source, "column_names") or hasattr(source, "columns")


def _columns(table: Any) -> list[Any]:
    return list(getattr(table, "column_names", None) or table.columns)


def read_lists(source: tuple[Sequence[Any], Sequence[Any]], request: Request) -> Source:
    """The rows of two lists, paths and labels."""
    paths, labels = source
    lines = lines_of({"path": paths, "label": labels}, 0)
    return source_of("photos", "lists", lines, Files(Path.cwd()), "the list of paths", request)


def _instead(name: str, fix: str) -> str:
    """What to do about a column that is unknown."""
    if name in PICTURES:
        return (
            "Pictures inside a table are not taken: write them as files, or pass a `datasets.Dataset` to rehead.tune."
        )
    return fix if "/" in name or "." in name else "Rename it to one of these, or take it out."


def source_of(
    name: str,
    layout: str,
    lines: Iterable[Line],
    place: Place,
    what: str,
    request: Request,
    where: Callable[[int], str] | None = None,
) -> Source:
    """The rows that lines name. where: what a line is called by its number, where it is not "line 3"."""
    is_file = layout == "manifest"
    unit, told = "line" if is_file else "position", where
    where = where or (lambda number: f"{unit} {number}")
    first_word = what if is_file else what[0].upper() + what[1:]
    rows, named, numbers = Rows(), Texts(), array("q")
    request.progress.phase("Listing", None, "lines")
    skipped: list[tuple[int, Skip]] = []
    unlabelled: dict[int, int] = {}  # places of rows, and their lines
    may_be_none = request.task == "multilabel"
    for line in lines:
        path, label = _path(line, Path(place.shown), request.confined), label_of(line.label)
        may_be_none |= request.task == "auto" and ";" in label
        if not path:
            skipped.append((line.number, Skip(f"{where(line.number)} of {what}", "has no path")))
            continue
        reason = place.missing(path)
        if reason and path != path.strip():  # label, path: the space belongs to the writing
            bare = _path(replace(line, path=path.strip()), Path(place.shown), request.confined)
            if bare and not place.missing(bare):
                path, reason = bare, ""
        if len(named) % TOLD_AT_ONCE == TOLD_AT_ONCE - 1:
            request.progress.advance(TOLD_AT_ONCE)
        named.append(path)
        numbers.append(line.number)
        side, group = _side(line, first_word, where), label_of(line.group) or None
        if reason:
            skipped.append((line.number, _skip(path, reason, line.number)))
            continue
        if not label:
            unlabelled[len(rows)] = line.number
        rows.append(Row(path, label, side, group))
    if twice := _twice(named):
        first, again = twice
        raise SourceError(
            what=f"{first_word} names {quoted(named[again])} twice.",
            why=f"It stands on {where(numbers[first])} and {where(numbers[again])}."
            if told
            else f"It stands on {unit}s {numbers[first]} and {numbers[again]}.",
            fix="Keep one line for each photo." if is_file else "Name each photo once.",
        )
    if unlabelled and not may_be_none:
        skipped += [(number, _skip(rows.paths[i], "has no label", number)) for i, number in unlabelled.items()]
        rows = rows.without(unlabelled.keys())
    left_out = [skip for _, skip in sorted(skipped, key=itemgetter(0))]
    if not rows:
        why = f"{left_out[0].path} {left_out[0].reason}." if left_out else "It has no lines."
        are_gone = all(skip.reason == NOT_THERE for skip in left_out)
        raise (NothingThere if are_gone else SourceError)(
            what=f"Nothing in {what} can be used.",
            why=why,
            fix=_how_to_mend(place.shown, is_file, left_out),
        )
    return place.source(name, layout, rows, left_out)


def _twice(paths: Texts) -> tuple[int, int] | None:
    """The places of the first path that stands there again, and where it stood before. In memory are their hashes alone."""
    hashes = np.fromiter((hash(os.path.normpath(path)) for path in paths), np.int64, len(paths))
    first: dict[str, int] = {}
    for place in sorted(itertools.chain.from_iterable(equal_rows(hashes.view(np.uint64)[:, None]))):
        if (before := first.setdefault(os.path.normpath(paths[place]), place)) != place:
            return before, place
    return None


def _how_to_mend(root: str, is_file: bool, skipped: Sequence[Skip]) -> str:
    if skipped:
        where = "in" if is_file else "from the current folder,"
        return f"Its paths are looked for {where} {root}."
    return "Write one line path,label for each photo." if is_file else "Pass a path and a label for each photo."


def _skip(path: str, reason: str, number: int) -> Skip:
    """A path that is left out; one that goes on over several lines may be no path at all."""
    if "\n" in path and len(path) != len(bounded(path)):
        return Skip(bounded(path), f"{reason}: a quote before line {number} may not be closed")
    return Skip(path, reason)


def _path(line: Line, root: Path, confined: bool) -> str:
    """The path of a line with "/"; tables written on Windows are understood elsewhere too."""
    path = os.fspath(line.path) if isinstance(line.path, os.PathLike) else line.path
    text = "" if is_nothing(path) else os.fsdecode(path) if isinstance(path, bytes) else str(path)
    if "\\" in text and (os.sep == "\\" or not os.path.lexists(os.path.join(root, text))):
        text = text.replace("\\", "/")
    if text and confined and not os.path.abspath(os.path.join(root, text)).startswith(os.path.abspath(root) + os.sep):
        raise UnsafeArchive(what=f"The manifest in the archive names {quoted(text)}, which lies outside the archive.")
    return text


def _side(line: Line, what: str, where: Callable[[int], str]) -> str | None:
    name = label_of(line.split).lower()
    if name and name not in SIDE_BY_NAME:
        raise SourceError(
            what=f"{what} has the split {quoted(str(line.split))} on {where(line.number)}.",
            why=f"Known are {', '.join(SIDE_BY_NAME)}.",
            fix=nearest(name, SIDE_BY_NAME),
        )
    return SIDE_BY_NAME.get(name)


NAMES_COLUMNS = "The first line must name the columns: path,label and, where wanted, split and group."


def places_of(header: Sequence[str], what: str, fix: str = NAMES_COLUMNS) -> dict[str, int]:
    """For each known column its place. Raises SourceError for columns that are unknown, missing or there twice."""
    place: dict[str, int] = {}
    for i, cell in enumerate(header):
        name = cell.strip().lower()
        name = ALSO_KNOWN.get(name, name)
        if name and name not in COLUMNS:
            raise SourceError(
                what=f"{what} has an unknown column {quoted(cell)}.",
                why=f"Known are {', '.join(COLUMNS)}.",
                fix=nearest(name, COLUMNS) or _instead(name, fix),
            )
        if name in place:
            raise SourceError(what=f"{what} has the column {name!r} twice.", fix="Keep one of them.")
        if name:
            place[name] = i
    if missing := [name for name in COLUMNS[:2] if name not in place]:
        raise SourceError(
            what=f"{what} has no column {' and no column '.join(repr(name) for name in missing)}.",
            why=f"Its columns are {', '.join(header)[:200] or 'none'}.",
            fix=fix,
        )
    return place


def list_in(part: Any) -> Any:
    """One of two lists as it can be gone through: of a table its only column, of pyarrow's values Python's. Raises SourceError
    for a table of more columns."""
    if is_table(part):
        names = _columns(part)
        if len(names) != 1:
            raise SourceError(
                what=f"A table in place of a list has {len(names)} columns: {bounded(', '.join(map(str, names)), 200)}.",
                why="Photos and labels are a list each, or the columns of one table.",
                fix="Pass the table alone, or the columns: table['path'], table['label'].",
            )
        part = part[names[0]]
    return part.to_pylist() if hasattr(part, "to_pylist") else part


def values_of(column: Any) -> list[Any]:
    """What stands in a column of pandas, polars or pyarrow, or in another sequence, by position: pandas' own `column[i]` goes
    by the index. A list in a cell, which pandas has as an array, is a list."""
    cells = list(column.to_pylist() if hasattr(column, "to_pylist") else column)
    if not hasattr(column, "to_list"):
        return cells
    return [cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]


def lines_of(columns: Mapping[str, Sequence[Any]], first: int) -> Iterator[Line]:
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=first):
        yield Line(number, **dict(zip(columns, cells, strict=True)))
