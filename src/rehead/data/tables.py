"""Tables that name photos and their labels: CSV and Parquet manifests, data frames, lists.

The columns are path, label, and where wanted split and group. Paths are relative to the manifest's folder, on a disk or in a
bucket, or to the working folder for tables in memory; or they are addresses. What a photo holds is left to others; that it is
there is looked at by `places.py`.
"""

from __future__ import annotations

import codecs
import csv
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.data.addresses import fetched
from rehead.data.columns import Rows
from rehead.data.places import Below, Files, Place
from rehead.data.rows import (
    SIDE_BY_NAME,
    Request,
    Row,
    Skip,
    Source,
    bounded,
    is_nothing,
    label_of,
    quoted,
    short_name,
)
from rehead.errors import MissingExtra, SourceError, UnsafeArchive, nearest

COLUMNS = ("path", "label", "split", "group")
ALSO_KNOWN = {"side": "split", "digest": ""}  # what a catalog that was written out has besides
DELIMITERS = ",;\t"
CSV_NAMES = {".csv", ".tsv"}
PARQUET_NAMES = {".parquet", ".pq"}
TABLE_NAMES = CSV_NAMES | PARQUET_NAMES
HEADER_BYTES = 65_536  # a header that is longer is none of ours
MAX_TABLES = 20  # a folder with more of them holds one for each photo, and opening all of them takes long


@dataclass(frozen=True)
class Line:
    """A line of a table before it is checked. number: as the user counts it: lines from 1, positions from 0."""

    number: int
    path: Any
    label: Any
    split: Any = None
    group: Any = None


def read_manifest(source: str | Path, request: Request) -> Source:
    """The rows of a CSV or Parquet manifest, in its order. Raises SourceError, MissingExtra."""
    path = Path(source)
    lines = _parquet_lines(path, str(path)) if path.suffix.lower() in PARQUET_NAMES else _csv_lines(path, str(path))
    place = Files(path.absolute().parent, request.confined)
    return _source(short_name(path.stem), "manifest", lines, place, str(path), request)


def read_manifest_of(address: str, request: Request) -> Source:
    """The rows of a CSV or Parquet manifest in a bucket. Paths are relative to its folder there, or addresses."""
    with fetched(address, request) as path:
        read = _parquet_lines if path.suffix.lower() in PARQUET_NAMES else _csv_lines
        lines = list(read(path, address))
    return _source(short_name(path.stem), "manifest", lines, Below(address, request), address, request)


def read_table(source: Any, request: Request) -> Source:
    """The rows of a pandas or polars data frame or a pyarrow table, by its columns' names."""
    names = [str(name) for name in getattr(source, "column_names", None) or source.columns]
    fix = "The table needs the columns path and label and, where wanted, split and group."
    place = _places(names, "The table", fix)
    columns = {name: _values(source[names[i]]) for name, i in place.items()}
    return _source("table", "table", _lines(columns, 0), Files(Path.cwd()), "the table", request)


def read_lists(source: tuple[Sequence[Any], Sequence[Any]], request: Request) -> Source:
    """The rows of two lists, paths and labels."""
    paths, labels = source
    lines = _lines({"path": paths, "label": labels}, 0)
    return _source("photos", "lists", lines, Files(Path.cwd()), "the list of paths", request)


def find_manifest(folder: Path, paths: Sequence[str]) -> str:
    """The one table among these files, relative to `folder`, whose columns are a manifest's, or ""."""
    tables = [path for path in paths if path.count("/") <= 1 and os.path.splitext(path)[1].lower() in TABLE_NAMES]
    found = [path for path in tables if len(tables) <= MAX_TABLES and _is_manifest(folder / path)]
    return found[0] if len(found) == 1 else ""


def _is_manifest(path: Path) -> bool:
    try:
        is_parquet = path.suffix.lower() in PARQUET_NAMES
        what = str(path)
        _places(_parquet_file(path, what).schema_arrow.names if is_parquet else _csv_header(path, what), what)
    except (SourceError, MissingExtra, OSError, csv.Error):
        return False
    return True


def _source(name: str, layout: str, lines: Iterable[Line], place: Place, what: str, request: Request) -> Source:
    is_file = layout == "manifest"
    unit = "line" if is_file else "position"
    first_word = what if is_file else what[0].upper() + what[1:]
    rows = Rows()
    skipped: list[Skip] = []
    number_by_path: dict[str, int] = {}
    lines = list(lines)
    may_be_none = request.task == "multilabel" or (
        request.task == "auto" and any(";" in label_of(line.label) for line in lines)
    )
    for line in lines:
        path = _path(line, Path(place.shown), request.confined)
        if not path:
            skipped.append(Skip(f"{unit} {line.number} of {what}", "has no path"))
            continue
        first = number_by_path.setdefault(os.path.normpath(path), line.number)
        if first != line.number:
            raise SourceError(
                what=f"{first_word} names {quoted(path)} twice.",
                why=f"It stands on {unit}s {first} and {line.number}.",
                fix="Keep one line for each photo." if is_file else "Name each photo once.",
            )
        side, group = _side(line, first_word, unit), label_of(line.group) or None
        reason = place.missing(path) or ("" if may_be_none or label_of(line.label) else "has no label")
        if reason:
            skipped.append(_skip(path, reason, line.number))
        else:
            rows.append(Row(path, label_of(line.label), side, group))
    if not rows:
        why = f"{skipped[0].path} {skipped[0].reason}." if skipped else "It has no lines."
        raise SourceError(
            what=f"Nothing in {what} can be used.",
            why=why,
            fix=_how_to_mend(place.shown, is_file, skipped),
        )
    return place.source(name, layout, rows, skipped)


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
    if confined and not os.path.abspath(os.path.join(root, text)).startswith(os.path.abspath(root) + os.sep):
        raise UnsafeArchive(what=f"The manifest in the archive names {quoted(text)}, which lies outside the archive.")
    return text


def _side(line: Line, what: str, unit: str) -> str | None:
    name = label_of(line.split).lower()
    if name and name not in SIDE_BY_NAME:
        raise SourceError(
            what=f"{what} has the split {quoted(str(line.split))} on {unit} {line.number}.",
            why=f"Known are {', '.join(SIDE_BY_NAME)}.",
            fix=nearest(name, SIDE_BY_NAME),
        )
    return SIDE_BY_NAME.get(name)


def _csv_lines(path: Path, what: str) -> Iterator[Line]:
    """The lines of a file, which errors call `what`."""
    header = _csv_header(path, what)
    place = _places(header, what)
    try:
        with path.open(newline="", encoding=_encoding(path), errors="surrogateescape") as file:
            reader = csv.reader(file, delimiter=_delimiter(file.readline()))
            file.seek(0)
            next(reader)
            for cells in reader:
                if len(cells) > len(header):
                    raise SourceError(
                        what=f"Line {reader.line_num} of {what} has {len(cells)} cells for {len(header)} columns.",
                        fix='A path or label that holds the separator must be quoted: "cat, black.jpg".',
                    )
                if any(cells):
                    cells += [""] * (len(header) - len(cells))
                    line = Line(reader.line_num, **{name: cells[i] for name, i in place.items()})
                    _check_text(line, what)
                    yield line
    except (csv.Error, UnicodeError) as error:
        raise SourceError(what=f"{what} is not a CSV file.", why=f"{error}.") from error


def _check_text(line: Line, what: str) -> None:
    """Raises SourceError for a label, split or group with bytes that are no UTF-8. A path may hold any: it names a file."""
    for column in COLUMNS[1:]:
        text = getattr(line, column) or ""
        if any("\udc80" <= character <= "\udcff" for character in text):
            shell = shlex.quote(what)
            raise SourceError(
                what=f"Line {line.number} of {what} has the {column} {quoted(label_of(text))}, which is not UTF-8.",
                why="The file may have been saved as Windows-1252 or Latin-1.",
                fix=f"Save it as UTF-8 (in Excel: CSV UTF-8), or: iconv -f WINDOWS-1252 -t UTF-8 {shell} > utf8.csv",
            )


def _csv_header(path: Path, what: str) -> list[str]:
    try:
        with path.open(newline="", encoding=_encoding(path), errors="surrogateescape") as file:
            first = file.readline(HEADER_BYTES)
    except OSError as error:
        raise SourceError(what=f"{what} cannot be read.", why=f"{error.strerror}.") from error
    except UnicodeError as error:
        raise SourceError(what=f"{what} is not a CSV file.", why=f"{error}.") from error
    return next(csv.reader([first], delimiter=_delimiter(first)), [])


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2)
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=header.count)


NAMES_COLUMNS = "The first line must name the columns: path,label and, where wanted, split and group."


def _places(header: Sequence[str], what: str, fix: str = NAMES_COLUMNS) -> dict[str, int]:
    """For each known column its place. Raises SourceError for columns that are unknown, missing or there twice."""
    place: dict[str, int] = {}
    for i, cell in enumerate(header):
        name = cell.strip().lower()
        name = ALSO_KNOWN.get(name, name)
        if name and name not in COLUMNS:
            raise SourceError(
                what=f"{what} has an unknown column {quoted(cell)}.",
                why=f"Known are {', '.join(COLUMNS)}.",
                fix=nearest(name, COLUMNS) or "Rename it to one of these, or take it out.",
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


def _parquet_lines(path: Path, what: str) -> Iterator[Line]:
    file = _parquet_file(path, what)
    names = file.schema_arrow.names
    place = _places(names, what)
    table = file.read(columns=[names[i] for i in place.values()])
    yield from _lines({name: _values(table[names[i]]) for name, i in place.items()}, 1)


def _parquet_file(path: Path, what: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", "Reading Parquet") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(what=f"{what} is not a Parquet file that can be read.", why=f"{error}") from error


def _values(column: Any) -> list[Any]:
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column.to_list())


def _lines(columns: Mapping[str, Sequence[Any]], first: int) -> Iterator[Line]:
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=first):
        yield Line(number, **dict(zip(columns, cells, strict=True)))
