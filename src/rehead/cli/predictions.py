"""Predictions for any number of files, written as they come: a table, CSV or JSON lines, in constant memory."""

from __future__ import annotations

import contextlib
import csv
import glob
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from rehead.cli.terminal import printable
from rehead.data.folders import PICTURE_NAMES
from rehead.data.walk import walk
from rehead.durable import replaced_file
from rehead.errors import PhotoError, RecipeError, SourceError, nearest
from rehead.predict import Prediction, load

Result = Prediction | PhotoError


def predict_to(bundle: Path, patterns: list[str], *, top: int, form: str, out: Path | None, tta: bool = False) -> int:
    """Writes a row for every photo, to `out` or standard output, and gives the number of photos that could not be read."""
    if form not in WRITERS:
        raise RecipeError(
            what=f"--format cannot be {form!r}.", why=f"One of: {', '.join(WRITERS)}.", fix=nearest(form, WRITERS)
        )
    model = load(bundle)
    paths, again = itertools.tee(_files(patterns))
    results = zip(again, model.stream(paths, tta=tta), strict=True)
    with contextlib.ExitStack() as stack:
        file: IO[str] = sys.stdout
        if out is not None:
            temporary = stack.enter_context(replaced_file(out))
            file = stack.enter_context(temporary.open("w", encoding="utf-8", errors="surrogateescape", newline=""))
        writers = (
            NUMBER_WRITERS if model.task == "regression" else LABEL_WRITERS if model.task == "multilabel" else WRITERS
        )
        write = writers[form](file, min(top, len(model.classes)))
        bad = 0
        for path, result in results:
            write(path, result)
            bad += isinstance(result, PhotoError)
    return bad


def _files(patterns: list[str]) -> Iterator[str]:
    """The files that the arguments name, in order: files as they are, folders walked, patterns expanded."""
    for pattern in patterns:
        path = Path(pattern)
        found: Iterator[str]
        if path.is_dir():
            found = (str(file) for file in walk(path) if file.suffix.lower() in PICTURE_NAMES)
        elif path.exists() or not glob.has_magic(pattern):
            found = iter([pattern])
        else:
            found = iter(sorted(glob.glob(pattern, recursive=True)))
        first = next(found, None)
        if first is None:
            raise SourceError(what=f"{pattern} names no picture.", fix="Pass images, folders of images, or a pattern.")
        yield from itertools.chain([first], found)


def _table(file: IO[str], top: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            print(f"{printable(path)}  error: {result.what}", file=file)
            return
        cells = "   ".join(f"{printable(label)} {probability:.3f}" for label, probability in result.top[:top])
        print(f"{printable(path)}  {cells}", file=file)

    return write


def _csv(file: IO[str], top: int) -> Callable[[str, Result], None]:
    writer = csv.writer(file, lineterminator="\n")
    ranks = [f"{name}{rank}" for rank in range(1, top + 1) for name in ("label", "probability")]
    writer.writerow(["path", *ranks, "error"])

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            writer.writerow([path, *[""] * len(ranks), result.what])
            return
        cells = [cell for label, probability in result.top[:top] for cell in (label, f"{probability:.6f}")]
        writer.writerow([path, *cells, ""])

    return write


def _jsonl(file: IO[str], top: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        row: dict[str, Any] = {"path": path}
        if isinstance(result, PhotoError):
            row["error"] = result.what
        else:
            row |= {"label": result.label, "probability": result.probability}
            row["top"] = [{"label": label, "probability": p} for label, p in result.top[:top]]
        print(json.dumps(row), file=file)

    return write


def _labels_table(file: IO[str], top: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            print(f"{printable(path)}  error: {result.what}", file=file)
            return
        cells = "   ".join(f"{printable(label)} {probability:.3f}" for label, probability in result.top[:top])
        print(f"{printable(path)}  {printable('; '.join(result.labels)) or '(none)'}   [{cells}]", file=file)

    return write


def _labels_csv(file: IO[str], _: int) -> Callable[[str, Result], None]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "labels", "probabilities", "error"])

    def write(path: str, result: Result) -> None:
        if isinstance(result, PhotoError):
            writer.writerow([path, "", "", result.what])
            return
        each = ";".join(f"{label}={probability:.6f}" for label, probability in result.top)
        writer.writerow([path, ";".join(result.labels), each, ""])

    return write


def _labels_jsonl(file: IO[str], _: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        row: dict[str, Any] = {"path": path}
        if isinstance(result, PhotoError):
            row["error"] = result.what
        else:
            row |= {"labels": list(result.labels), "probabilities": dict(result.top)}
        print(json.dumps(row), file=file)

    return write


def _numbers_table(file: IO[str], _: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        said = f"error: {result.what}" if isinstance(result, PhotoError) else f"{result.value:.6g}"
        print(f"{printable(path)}  {said}", file=file)

    return write


def _numbers_csv(file: IO[str], _: int) -> Callable[[str, Result], None]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "value", "error"])

    def write(path: str, result: Result) -> None:
        writer.writerow(
            [path, "", result.what] if isinstance(result, PhotoError) else [path, f"{result.value:.8g}", ""]
        )

    return write


def _numbers_jsonl(file: IO[str], _: int) -> Callable[[str, Result], None]:
    def write(path: str, result: Result) -> None:
        said = {"error": result.what} if isinstance(result, PhotoError) else {"value": result.value}
        print(json.dumps({"path": path, **said}), file=file)

    return write


Writers = dict[str, Callable[[IO[str], int], Callable[[str, Result], None]]]
WRITERS: Writers = {"table": _table, "csv": _csv, "jsonl": _jsonl}
LABEL_WRITERS: Writers = {"table": _labels_table, "csv": _labels_csv, "jsonl": _labels_jsonl}
NUMBER_WRITERS: Writers = {"table": _numbers_table, "csv": _numbers_csv, "jsonl": _numbers_jsonl}
