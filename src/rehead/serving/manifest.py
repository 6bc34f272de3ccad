"""The table of corrections of labels and numbers: a path and a label a line, read as `rehead tune` reads it, also when people
have edited it. Where the pictures lie is left to `feedback.py`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from rehead.bundle_facts import Task
from rehead.csv_rows import csv_writer
from rehead.data.manifests import DELIMITERS
from rehead.data.tables import places_of
from rehead.data.targets import SEPARATOR
from rehead.durable import write_text
from rehead.errors import SourceError
from rehead.serving.problems import Problem

MANIFEST = "feedback.csv"
PHOTOS = "photos"  # the folder of the pictures that it names
COLUMNS = {"path", "label"}


def read_rows(folder: Path) -> dict[str, str]:
    """Label by path, none where there is no table. Raises Problem 409 for one that cannot be read, or that has more columns:
    what stands in them would be lost when it is written again."""
    try:
        with (folder / MANIFEST).open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except UnicodeError as error:
        raise _unreadable(f"It is not UTF-8: {error}.") from error
    try:
        return _rows(text)
    except SourceError as error:
        raise _unreadable(" ".join(filter(None, (error.what, error.why, error.fix)))) from error
    except csv.Error as error:
        raise _unreadable(f"{error}.") from error


def write_rows(folder: Path, task: Task, rows: dict[str, str]) -> None:
    """The table of these rows, and none where there are none: one without lines would be read in place of the folders.
    Several labels end with ";", by which a table says that they may be several."""
    if not rows:
        (folder / MANIFEST).unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(["path", "label"])
    for path, label in rows.items():
        several = task == "multilabel" and not label.endswith(SEPARATOR)
        writer.writerow([path, f"{label}{SEPARATOR}" if several else label])
    write_text(folder / MANIFEST, text.getvalue())


def task_of_rows(rows: dict[str, str]) -> Task:
    """Whether these are several labels or numbers, as `write_rows` writes them."""
    return "multilabel" if any(SEPARATOR in label for label in rows.values()) else "regression"


def _rows(text: str) -> dict[str, str]:
    """Raises SourceError, csv.Error."""
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count))
    header = next(lines, [])
    place = places_of(header, MANIFEST)
    if more := place.keys() - COLUMNS:
        raise SourceError(what=f"It has the column {min(more)!r}.", fix="Take it out: corrections have none.")
    rows = {}
    for cells in lines:
        if len(cells) > len(header):
            raise SourceError(what=f"Line {lines.line_num} has {len(cells)} cells for {len(header)} columns.")
        cells += [""] * (len(header) - len(cells))
        if path := cells[place["path"]].strip():
            rows[path] = cells[place["label"]].strip()
    return rows


def _unreadable(why: str) -> Problem:
    return Problem(
        409, f"The table of corrections, {MANIFEST}, is not as it must be.", why=why, fix="Mend it, or move it away."
    )
