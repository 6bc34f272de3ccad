"""What is written as CSV is read back as it was, with any line end in a cell."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rehead.cli.predictions import TASK_WRITERS
from rehead.csv_rows import csv_writer
from rehead.data.catalog import Catalog, as_csv
from rehead.data.rows import Photo, Skip
from rehead.errors import PhotoError
from rehead.features.bad import bad_table
from rehead.serving.manifest import read_rows, write_rows

cells = st.text(st.sampled_from(list('a,;"\r\n\t \x00é\udce9')))


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.lists(st.lists(cells, min_size=1)))
@example([["\r"], ["a\r\n"], ["\n", "\r"]])
def test_rows_are_read_back_as_they_were(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv_writer(text).writerows(rows)
    assert read(text.getvalue()) == rows


def test_lines_end_with_a_line_feed_alone() -> None:
    text = io.StringIO(newline="")
    csv_writer(text).writerows([["a", "b"], ["c", "d"]])
    assert text.getvalue() == "a,b\nc,d\n"


def test_tables_of_names_with_a_carriage_return_are_read_back(tmp_path: Path) -> None:
    photo = Photo("ca\rt/1\r.jpg", "ca\rt", "train", bytes(32), None)
    catalog = Catalog("photos", "folders", (photo,), (photo.label,), lambda _: b"")
    assert read("".join(as_csv(catalog.photos)))[1:] == [[photo.path, photo.label, "train", bytes(32).hex(), ""]]
    assert read(bad_table([Skip(photo.path, "is gone")]))[1:] == [[photo.path, "is gone", "broken"]]
    write_rows(tmp_path, "regression", {photo.path: "1"})
    assert read_rows(tmp_path) == {photo.path: "1"}


@pytest.mark.parametrize("task", TASK_WRITERS)
def test_predictions_of_names_with_a_carriage_return_are_read_back(task: str) -> None:
    text = io.StringIO(newline="")
    TASK_WRITERS[task]["csv"](text, 1)("1\r.jpg", PhotoError(what="is gone"))
    row = read(text.getvalue())[1]
    assert (row[0], row[-1]) == ("1\r.jpg", "is gone")
