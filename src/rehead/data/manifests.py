"""Files that name photos and their labels: CSV and Parquet manifests, one file or a Parquet data set, on a disk or in a
bucket. What their lines say is checked by `tables.py`."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import shlex
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, unquote

from rehead.data.addresses import fetched, is_address, open_file
from rehead.data.places import Below, Files
from rehead.data.rows import Request, Source, are_sides, first_few, label_of, quoted, short_name, side_in
from rehead.data.tables import COLUMNS, Line, lines_of, places_of, source_of, values_of
from rehead.errors import MissingExtra, ReheadError, SourceError, counted

DELIMITERS = ",;\t"
EXCELS = re.compile(r'"?sep=([,;|\t])"?\s*')  # a first line, by which Excel is told what parts cells
CSV_NAMES = {".csv", ".tsv"}
PARQUET_NAMES = {".parquet", ".pq"}
OF_PARTS = re.compile(r"(.*?)(\d+)-of-0*(\d+)\.\w+")  # one of several: train-00000-of-00003.parquet
TABLE_NAMES = CSV_NAMES | PARQUET_NAMES
AGAIN = "Write it again, or copy it anew."
NAME_ONE = "Name the one that says what is learned, in place of the folder; photos to hold out: --test TABLE."
READ_PARTS = "To learn from the Parquet files, pass --layout manifest."
HEADER_BYTES = 65_536  # a header that is longer is none of ours
MAX_TABLES = 20  # a folder with more of them holds one for each photo, and opening all of them takes long


def read_manifest(source: str | Path, request: Request) -> Source:
    """The rows of a CSV or Parquet manifest, in its order. Raises SourceError, MissingExtra."""
    path = Path(source)
    lines = _parquet_lines(path, str(path)) if path.suffix.lower() in PARQUET_NAMES else _csv_lines(path, str(path))
    place = Files(path.absolute().parent, request.confined)
    return source_of(short_name(path.stem), "manifest", lines, place, str(path), request)


def read_manifest_of(address: str, request: Request) -> Source:
    """The rows of a CSV or Parquet manifest in a bucket. Paths are relative to its folder there, or addresses."""
    with fetched(address, request) as path:
        read = _parquet_lines if path.suffix.lower() in PARQUET_NAMES else _csv_lines
        lines = read(path, address)
        return source_of(short_name(path.stem), "manifest", lines, Below(address, request), address, request)


def are_parts(paths: Iterable[str]) -> bool:
    """Whether these files are Parquet files and nothing else: a data set, as Spark, Ray and others write one."""
    files = [path for path in paths if not _is_mark(path)]
    return bool(files) and all(map(_is_parquet, files))


def has_parts(paths: Iterable[str]) -> bool:
    """Whether there are Parquet files among these."""
    return bool(_parts(paths))


def read_parts(folder: Path, paths: Sequence[str], request: Request) -> Source:
    """The rows of a Parquet data set, file by file in the order of their names. Paths are relative to its folder. Sides that
    lines do not have are those that the files' names have: train-00000.parquet."""
    parts = _Parts(
        str(folder), _parts(paths), lambda path: _parquet_lines(folder / path, str(folder / path), _given(path))
    )
    place = Files(folder.absolute(), request.confined)
    name = short_name(folder.resolve().name)
    return source_of(name, "manifest", parts.lines(), place, str(folder), request, parts.where)


def read_parts_of(address: str, paths: Sequence[str], request: Request) -> Source:
    """The same of one in a bucket."""
    folder = address.rstrip("/")

    def lines(path: str) -> Iterator[Line]:
        part = f"{folder}/{quote(path)}"
        with fetched(part, request) as here:
            yield from _parquet_lines(here, part, _given(path))

    parts = _Parts(address, _parts(paths), lines)
    name = short_name(PurePosixPath(unquote(folder)).name)
    return source_of(name, "manifest", parts.lines(), Below(f"{folder}/", request), address, request, parts.where)


class _Parts:
    """The files of a data set, read one after the other. Raises SourceError where names such as part-00000-of-00003 say that
    some are missing."""

    def __init__(self, what: str, paths: Sequence[str], read: Callable[[str], Iterator[Line]]) -> None:
        told = [(found[1], int(found[3])) for path in paths if (found := OF_PARTS.fullmatch(path))]
        for (begin, wanted), n in Counter(told).items():
            if n < wanted:
                raise SourceError(
                    what=f"{what} has {n} of the {counted(wanted, 'file')} {begin}...-of-{wanted:05d}.",
                    why="Who wrote them may not have come to an end, or they were not all copied.",
                    fix="Bring the others, or rename these.",
                )
        self._paths, self._read, self._begins = paths, read, list[int]()

    def lines(self) -> Iterator[Line]:
        sides = [side_in(path) for path in self._paths]
        n = 0
        for path, side in zip(self._paths, sides if are_sides(sides) else [None] * len(sides), strict=True):
            self._begins.append(n)
            for line in self._read(path):
                n += 1
                yield replace(line, number=n, split=line.split if label_of(line.split) else side)

    def where(self, number: int) -> str:
        part = bisect_left(self._begins, number) - 1
        return f"line {number - self._begins[part]} of {self._paths[part]}"


def _given(path: str) -> dict[str, str]:
    """What a part's folders say of all its lines: label=cat/part-0.parquet (Hive's way)."""
    told = (folder.partition("=") for folder in path.split("/")[:-1])
    return {name: unquote(value) for name, equals, value in told if equals and name in COLUMNS}


def _parts(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if _is_parquet(path) and not _is_mark(path)]


def _is_parquet(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in PARQUET_NAMES


def _is_mark(path: str) -> bool:
    """Whether a file tells of a data set and is no part of it: _SUCCESS, _metadata, _delta_log/..., _temporary/..."""
    return any(name.startswith("_") for name in path.split("/"))


def find_manifest(folder: Path, paths: Sequence[str], *, is_asked: bool) -> tuple[str, list[ReheadError]]:
    """The one table among these files, relative to `folder`, whose columns are a manifest's, or "", and why others that look
    like one are not taken. is_asked: whether there has to be one; else a table for each photo is nothing to speak of."""
    return _only_manifest(paths, lambda path: (folder / path).open("rb"), is_asked)


def find_manifest_at(address: str, paths: Sequence[str], *, is_asked: bool) -> tuple[str, list[ReheadError]]:
    """The same of a folder in a bucket."""
    return _only_manifest(paths, lambda path: open_file(f"{address.rstrip('/')}/{quote(path)}"), is_asked)


def _only_manifest(paths: Sequence[str], opened: Callable[[str], Any], is_asked: bool) -> tuple[str, list[ReheadError]]:
    tables = [path for path in paths if path.count("/") <= 1 and os.path.splitext(path)[1].lower() in TABLE_NAMES]
    if len(tables) > MAX_TABLES:
        many = SourceError(what=f"{len(tables)} tables are too many to be looked into.", fix=NAME_ONE)
        return "", [many] if is_asked else []
    found, refused = list[str](), list[ReheadError]()
    for path in tables:
        try:
            if _is_manifest(path, opened):
                found.append(path)
        except (SourceError, MissingExtra) as error:
            refused.append(error)
    if len(found) > 1:
        what = f"{len(found)} tables name photos and labels: {first_few(found)}."
        return "", [SourceError(what=what, fix=READ_PARTS if found == _parts(paths) else NAME_ONE), *refused]
    return "".join(found), refused


def _is_manifest(path: str, opened: Callable[[str], Any]) -> bool:
    """Raises SourceError for columns that are a manifest's but for some, MissingExtra where they cannot be read here."""
    try:
        with opened(path) as file:
            if _is_parquet(path):
                header = _parquet_file(file, path).schema_arrow.names
            else:
                header = _csv_header(file.read(HEADER_BYTES), path)
    except (SourceError, OSError, csv.Error):
        return False
    if not {*COLUMNS[:2]} <= {cell.strip().lower() for cell in header}:
        return False
    places_of(header, path)
    return True


def _csv_lines(path: Path, what: str) -> Iterator[Line]:
    """The lines of a file, which errors call `what`."""
    try:
        with path.open("rb") as binary:
            beginning = binary.read(HEADER_BYTES)
    except OSError as error:
        raise SourceError(what=f"{what} cannot be read.", why=f"{error.strerror}.") from error
    header = _csv_header(beginning, what)
    place = places_of(header, what)
    try:
        with path.open(newline="", encoding=_encoding(beginning), errors="surrogateescape") as file:
            _, delimiter, n_before = _columns_line(file)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            for _ in range(n_before + 1):
                next(reader)
            for n, cells in enumerate(reader):
                if n == 0:
                    _check_delimiter(cells, delimiter, f"Line {reader.line_num} of {what}")
                while len(cells) > len(header) and not cells[-1].strip():  # each line may end with the separator
                    cells.pop()
                if len(cells) > len(header):
                    raise SourceError(
                        what=f"Line {reader.line_num} of {what} has {len(cells)} cells for {len(header)} columns.",
                        fix='A path or label that holds the separator must be quoted: "cat, black.jpg".',
                    )
                if any(cells):
                    cells += [""] * (len(header) - len(cells))
                    line = Line(reader.line_num, **{name: cells[i] for name, i in place.items()})
                    texts = {name: getattr(line, name) for name in COLUMNS[1:]}  # of a path any bytes name a file
                    check_utf8(texts, line.number, what)
                    yield line
    except (csv.Error, UnicodeError) as error:
        raise SourceError(what=f"{what} is not a CSV file.", why=f"{error}.") from error


def check_utf8(texts: Mapping[str, str | None], number: int, file: str) -> None:
    """Raises SourceError for a cell with bytes that are no UTF-8. texts: those of a line, whose number this is, by column."""
    for column, text in texts.items():
        if any("\udc80" <= character <= "\udcff" for character in text or ""):
            fix = "Save it as UTF-8 (in Excel: CSV UTF-8)."
            if not is_address(file):
                new = PurePath(file).with_name(f"{PurePath(file).stem}-utf8{PurePath(file).suffix}")
                command = f"iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(file)} > {shlex.quote(str(new))}"
                fix = f"{fix[:-1]}, or write another and name that: {command}"
            raise SourceError(
                what=f"Line {number} of {file} has the {column} {quoted(label_of(text))}, which is not UTF-8.",
                why="The file may have been saved as Windows-1252 or Latin-1.",
                fix=fix,
            )


def _csv_header(beginning: bytes, what: str) -> list[str]:
    """The names of columns in a file that begins so."""
    stream = io.TextIOWrapper(io.BytesIO(beginning), _encoding(beginning), errors="surrogateescape", newline="")
    try:
        names, delimiter, _ = _columns_line(stream)
    except UnicodeError as error:
        raise SourceError(what=f"{what} is not a CSV file.", why=f"{error}.") from error
    return next(csv.reader([names], delimiter=delimiter), [])


def _encoding(beginning: bytes) -> str:
    return "utf-16" if beginning[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _columns_line(file: IO[str]) -> tuple[str, str, int]:
    """The line that names the columns, what parts them, and how many lines stand before it."""
    first = file.readline()
    if told := EXCELS.fullmatch(first):
        return file.readline(), told[1], 1
    return first, max(DELIMITERS, key=first.count), 0


def _check_delimiter(cells: Sequence[str], delimiter: str, line: str) -> None:
    """Raises SourceError where the first line below the columns has one cell, which another separator parts."""
    if len(cells) == 1 and (others := [other for other in DELIMITERS if other != delimiter and other in cells[0]]):
        raise SourceError(
            what=f"{line} is parted by {quoted(others[0])}, and the names of the columns are by {quoted(delimiter)}.",
            fix="Write all lines with one separator.",
        )


def _parquet_lines(path: Path, what: str, given: Mapping[str, str] | None = None) -> Iterator[Line]:
    """given: columns that have one value in all lines."""
    file, given = _parquet_file(path, what), given or {}
    names = file.schema_arrow.names
    place = places_of([*names, *given], what, "It needs the columns path and label and, where wanted, split and group.")
    own = {name: names[i] for name, i in place.items() if i < len(names)}
    others = {name: [*given.values()][i - len(names)] for name, i in place.items() if i >= len(names)}
    first = 1
    try:
        for batch in file.iter_batches(columns=[*own.values()]):
            columns = {name: values_of(batch[column]) for name, column in own.items()}
            yield from lines_of(columns | {name: [value] * len(batch) for name, value in others.items()}, first)
            first += len(batch)
    except (OSError, ValueError) as error:  # ValueError: pyarrow's own, for pages that are damaged
        raise SourceError(
            what=f"{what} is damaged: it cannot be read to its end.", why=f"{error}", fix=AGAIN
        ) from error


def _parquet_file(file: Any, what: str) -> Any:
    """file: a path, or what is open to be read in parts."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", what) from None
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(what=f"{what} is not a Parquet file that can be read.", why=f"{error}", fix=AGAIN) from error
