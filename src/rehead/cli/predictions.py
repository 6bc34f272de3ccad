"""Predictions for any number of files, written as they come: a table, CSV or JSON lines, in constant memory."""

import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rehead.bundle_facts import Task
from rehead.cli.arguments import as_bytes
from rehead.cli.ending import output_failed
from rehead.cli.named import Named, found
from rehead.cli.tables import printable
from rehead.csv_rows import csv_writer
from rehead.data.addresses import is_address
from rehead.durable import FULL, replaced_file
from rehead.errors import DiskFull, PhotoError, RecipeError, ReheadError, SourceError, counted, escaped, nearest
from rehead.predict import load
from rehead.prediction import Prediction
from rehead.progress import Progress

Result = Prediction | PhotoError
OTHER_FORMS = (".json", ".parquet", ".feather", ".arrow", ".tsv", ".xlsx", ".xls")
FIGURES = 8  # of a number, which is a float32 and has seven or eight


def predict_to(bundle: Path, patterns: list[str], *, top: int, form: str, out: Path | None, tta: bool = False,
               variant: str | None = None, progress: Progress | None = None) -> tuple[int, int]:  # fmt: skip
    """Writes a row for every photo, to `out` or standard output; how many there were, and how many could not be read.

    progress: told how many of them are done; the photos are listed once before, to say how many there are.

    Raises RecipeError, also where `out` is a photo or a place in the bundle, SourceError where the arguments name nothing,
    BundleError, DiskFull.
    """
    if form not in WRITERS:
        raise RecipeError(
            what=f"--format cannot be {form!r}.", why=f"One of: {', '.join(WRITERS)}.", fix=nearest(form, WRITERS)
        )
    if addresses := [pattern for pattern in patterns if is_address(pattern)]:
        raise SourceError(
            what=f"rehead predict reads files, and {addresses[0]} is the address of a store.",
            fix="Copy the photos first. Labelled ones are verified where they are: rehead verify BUNDLE s3://bucket/photos",
        )
    model = load(bundle, variant=variant)
    rows, again = itertools.tee(found(patterns) if out is None else _spared(found(patterns), bundle, out))
    results = model.stream((wrong or path for path, wrong in rows), tta=tta)
    n = bad = 0
    if progress:
        progress.phase("Predicting", sum(1 for _ in found(patterns)))
    with _written(out) as file:
        write = TASK_WRITERS[model.task][form](file, min(top, len(model.classes)))
        for (path, _), result in zip(again, results, strict=True):
            write(escaped(path), result)
            n, bad = n + 1, bad + isinstance(result, PhotoError)
            if progress:
                progress.advance()
    return n, bad


def form_of(asked: str | None, out: str | None) -> str:
    """The form of the rows: what was asked for, else what the file's ending says, else a table. Raises RecipeError where
    that is the ending of another form."""
    ending = Path(out or "").suffix.lower()
    if asked is None and ending in OTHER_FORMS:
        raise RecipeError(
            what=f"Rows are not written as {ending}: {out}.",
            fix="Name a file that ends in .csv or .jsonl, or say --format csv, jsonl or table.",
        )
    return asked if asked is not None else {".csv": "csv", ".jsonl": "jsonl"}.get(ending, "table")


def last_words(n: int, bad: int, out: str | None) -> list[str]:
    """Where the rows of n photos are, and of those among them that could not be read why not. out: as was asked for."""
    words = [f"{counted(n, 'row')} written to {printable(out)}."] if out else []
    if bad:
        where = f"{printable(out)} says" if out else "their rows say"
        words.append(f"{counted(bad, 'photo')} could not be read: {where} why.")
    return words


def _spared(rows: Iterator[Named], bundle: Path, out: Path) -> Iterator[Named]:
    """The same rows. Raises RecipeError where writing to `out` would destroy the bundle, or one of the photos."""
    if out.resolve().is_relative_to(bundle.resolve()):
        raise RecipeError(
            what=f"{out} lies in the bundle: predictions cannot be written there.",
            why="A bundle of which a file was changed is refused from then on.",
            fix=f"Name a file elsewhere: --out {out.name or 'predictions'}",
        )
    taken = _identity(out)
    return (_not(taken, row, out) for row in rows) if taken else rows


def _not(taken: tuple[int, int], row: Named, out: Path) -> Named:
    path, wrong = row
    if wrong is None and _identity(Path(path)) == taken:
        other = Path(path).with_suffix(".csv").name
        raise RecipeError(
            what=f"{out} is one of the photos: predictions cannot be written there.",
            why="The photo would be lost.",
            fix=f"Name another file: --out {other if other != out.name else 'predictions.csv'}",
        )
    return row


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _written(out: Path | None) -> Iterator[IO[str]]:
    """A file for the rows, which appears at `out` when all are written; without `out`, standard output."""
    try:
        if out is None:
            yield sys.stdout
            sys.stdout.flush()
            return
        with replaced_file(out) as place, place.open("w", encoding="utf-8", newline="") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise (_unwritable(out, error) if out is not None else output_failed(error)) from error


def _unwritable(out: Path, error: OSError) -> ReheadError:
    reason = error.strerror or str(error)
    if error.errno not in FULL:
        return RecipeError(
            what=f"{out} is a folder: predictions cannot be written to it."
            if out.is_dir()
            else f"The predictions cannot be written to {out}.",
            why=f"{reason}.",
            fix="Name a file that you may write to: --out FILE",
        )
    disk = out if out.exists() and not out.is_file() else out.absolute().parent
    free = f", {as_bytes(shutil.disk_usage(disk).free)} are free" if disk.is_dir() else ""
    return DiskFull(
        what=f"The disk of {disk} is full.", why=f"{reason}{free}.", fix="Make room, or name another --out."
    )


def _table(file: IO[str], top: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            print(f"{printable(path)}  error: {printable(result.what)}", file=file)
            return
        cells = "   ".join(f"{printable(label)} {probability:.3f}" for label, probability in result.top[:top])
        print(f"{printable(path)}  {cells}{_doubts(result)}", file=file)

    return write


def _doubts(result: Prediction) -> str:
    """The end of a line: what is not to be relied on."""
    return f"   ({result.doubts})" if result.doubts else ""


def _csv(file: IO[str], top: int) -> Callable[[str, Result], None]:
    writer = csv_writer(file)
    ranks = [f"{name}{rank}" for rank in range(1, top + 1) for name in ("label", "probability")]
    writer.writerow(["path", *ranks, "doubts", "error"])

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            writer.writerow([path, *[""] * len(ranks), "", result.what])
            return
        cells = [cell for label, probability in result.top[:top] for cell in (label, f"{probability:.6f}")]
        writer.writerow([path, *cells, result.doubts, ""])

    return write


def _jsonl(task: Task) -> Callable[[IO[str], int], Callable[[str, Result], None]]:
    def to(file: IO[str], top: int) -> Callable[[str, Result], None]:
        def write(path: str, result: Result) -> None:
            said = {"error": result.what} if isinstance(result, PhotoError) else result.to_dict(task, top)
            print(json.dumps({"path": path, **said}), file=file)

        return write

    return to


def _labels_table(file: IO[str], top: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            print(f"{printable(path)}  error: {printable(result.what)}", file=file)
            return
        cells = "   ".join(f"{printable(label)} {probability:.3f}" for label, probability in result.top[:top])
        named = printable("; ".join(result.labels)) or "(none)"
        print(f"{printable(path)}  {named}   [{cells}]{_doubts(result)}", file=file)

    return write


def _labels_csv(file: IO[str], _: int) -> Callable[[str, Result], None]:
    writer = csv_writer(file)
    writer.writerow(["path", "labels", "probabilities", "doubts", "error"])

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            writer.writerow([path, "", "", "", result.what])
            return
        each = ";".join(f"{label}={probability:.6f}" for label, probability in result.top)
        writer.writerow([path, ";".join(result.labels), each, result.doubts, ""])

    return write


def _numbers_table(file: IO[str], _: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            print(f"{printable(path)}  error: {printable(result.what)}", file=file)
            return
        print(f"{printable(path)}  {result.value:.{FIGURES}g}{_doubts(result)}", file=file)

    return write


def _numbers_csv(file: IO[str], _: int) -> Callable[[str, Result], None]:
    writer = csv_writer(file)
    writer.writerow(["path", "value", "doubts", "error"])

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            writer.writerow([path, "", "", result.what])
            return
        writer.writerow([path, f"{result.value:.{FIGURES}g}", result.doubts, ""])

    return write


Writers = dict[str, Callable[[IO[str], int], Callable[[str, Result], None]]]
WRITERS: Writers = {"table": _table, "csv": _csv, "jsonl": _jsonl("classification")}
TASK_WRITERS: dict[str, Writers] = {
    "classification": WRITERS,
    "multilabel": {"table": _labels_table, "csv": _labels_csv, "jsonl": _jsonl("multilabel")},
    "regression": {"table": _numbers_table, "csv": _numbers_csv, "jsonl": _jsonl("regression")},
}
