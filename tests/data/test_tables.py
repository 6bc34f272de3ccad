"""Manifests and tables: what they may look like, and what is said of those that are wrong."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from pathlib import Path
from subprocess import run
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehead.data.rows import Skip
from rehead.data.sources import Row, Source, open_source
from rehead.errors import MissingExtra, SourceError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a.jpg, b.jpg and sub/c.jpg, each holding its own path."""
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for path in ("a.jpg", "b.jpg", "sub/c.jpg"):
        (tmp_path / "data" / path).write_bytes(path.encode())
    return tmp_path / "data"


def opened(source: object, **options: Any) -> Source:
    return open_source(source, cache=Path(os.devnull), **options)


def manifest(folder: Path, text: str | bytes, name: str = "photos.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def notebook() -> tuple[list[str], Any]:
    """A list, and a listener that notes into it what a job says."""
    notes: list[str] = []
    return notes, SimpleNamespace(note=notes.append, phase=lambda *_: None, advance=lambda _: None)


def test_paths_are_relative_to_the_manifest(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest(photos, "path,label\na.jpg,cat\nsub/c.jpg,dog\n")
    monkeypatch.chdir(tmp_path)
    source = opened("data/photos.csv")
    monkeypatch.chdir(photos)
    assert (source.layout, source.name) == ("manifest", "photos")
    assert source.rows == [Row("a.jpg", "cat"), Row("sub/c.jpg", "dog")]
    assert [source.read(row) for row in source.rows] == [b"a.jpg", b"sub/c.jpg"]
    assert opened(path).rows == source.rows


def test_pictures_that_the_table_of_a_folder_does_not_name_are_told(photos: Path) -> None:
    manifest(photos, f"path,label\n./a.jpg,cat\n{photos / 'sub' / 'c.jpg'},dog\n")
    notes, told = notebook()
    assert len(opened(photos, progress=told).rows) == 2
    assert notes == ["photos.csv says what is learned; 1 picture that it does not name is left out"]
    manifest(photos, "path,label\na.jpg,cat\nb.jpg,cat\nsub/c.jpg,dog\nnone.jpg,dog\n")
    assert len(opened(photos, progress=told).rows) == 3
    assert len(notes) == 1


def test_a_parquet_data_set_is_one_manifest(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "set"
    (folder / "of=2").mkdir(parents=True)
    lines = [("../data/a.jpg", "cat"), ("../data/b.jpg", "dog"), ("../data/none.jpg", "dog"), ("../data/sub/c.jpg", "")]
    for name, some in (("of=2/part-1.parquet", lines[2:]), ("of=2/part-0.parquet", lines[:2])):
        table = pa.table({"path": [path for path, _ in some], "label": [label for _, label in some]})
        pq.write_table(table, folder / name)
    (folder / "_SUCCESS").write_bytes(b"")
    source = opened(folder)
    assert (source.name, source.layout) == ("set", "manifest")
    assert source.rows == [Row("../data/a.jpg", "cat"), Row("../data/b.jpg", "dog")]
    assert source.skipped == [Skip("../data/none.jpg", "is not there"), Skip("../data/sub/c.jpg", "has no label")]
    assert [source.read(row) for row in source.rows] == [b"a.jpg", b"b.jpg"]
    data = (folder / "of=2" / "part-0.parquet").read_bytes()
    (folder / "of=2" / "part-0.parquet").write_bytes(data[:4] + bytes(30) + data[34:])
    with pytest.raises(SourceError, match=r"part-0\.parquet"):
        opened(folder)
    pq.write_table(pa.table({"path": ["../data/a.jpg"], "label": ["cat"]}), folder / "of=2" / "part-0.parquet")
    pq.write_table(pa.table({"path": ["../data/./a.jpg"], "label": ["cat"]}), folder / "part-2.parquet")
    with pytest.raises(SourceError, match="twice") as caught:
        opened(folder)
    assert "line 1 of of=2/part-0.parquet and line 1 of part-2.parquet" in caught.value.why


def test_folders_of_a_data_set_may_name_what_their_lines_have(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for label, path in (("cat", "a.jpg"), ("a%20dog", "b.jpg")):
        (tmp_path / "set" / f"label={label}").mkdir(parents=True)
        pq.write_table(pa.table({"path": [str(photos / path)]}), tmp_path / "set" / f"label={label}" / "0.parquet")
    assert [row.label for row in opened(tmp_path / "set").rows] == ["a dog", "cat"]


def test_parts_of_a_data_set_may_be_sides_and_may_be_missing(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "set"
    (folder / "_temporary" / "0").mkdir(parents=True)
    for name, path in (
        ("train-00000-of-00001", "a.jpg"),
        ("test-00000-of-00001", "b.jpg"),
        ("_temporary/0/x", "b.jpg"),
    ):
        pq.write_table(pa.table({"path": [f"../data/{path}"], "label": ["cat"]}), folder / f"{name}.parquet")
    assert [(row.path, row.side) for row in opened(folder).rows] == [
        ("../data/b.jpg", "test"),
        ("../data/a.jpg", "train"),
    ]
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")
    with pytest.raises(SourceError, match="has 1 of the 2 files train-"):
        opened(folder)
    (folder / "train-00000-of-00002.parquet").unlink()
    (folder / "README.md").write_text("a note")
    assert [row.side for row in opened(folder, layout="manifest").rows] == [None]
    pq.write_table(pa.table({"path": ["x"], "width": [3]}), folder / "sizes.parquet")
    assert [row.path for row in opened(folder).rows] == ["../data/b.jpg"]  # the one that is a manifest


def test_paths_may_be_absolute(photos: Path) -> None:
    source = opened(manifest(photos / "sub", f"path,label\n{photos / 'a.jpg'},cat\n../b.jpg,dog\n"))
    assert [source.read(row) for row in source.rows] == [b"a.jpg", b"b.jpg"]


def test_split_and_group_are_read(photos: Path) -> None:
    source = opened(
        manifest(photos, "group,split,label,path\np1,Train,cat,a.jpg\n,VALIDATION,dog,b.jpg\n,,x,sub/c.jpg\n")
    )
    assert source.rows == [
        Row("a.jpg", "cat", "train", "p1"),
        Row("b.jpg", "dog", "valid", None),
        Row("sub/c.jpg", "x", None, None),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_byte_order_marks_and_line_ends_are_recognised(
    photos: Path, separator: str, start: str, end: str
) -> None:
    lines = [separator.join(cells) for cells in (("path", "label"), ("a.jpg", "big, cat"), ("b.jpg", "dog"))]
    text = start + end.join(lines).replace("big, cat", '"big, cat"') + end
    assert [row.label for row in opened(manifest(photos, text)).rows] == ["big, cat", "dog"]


def test_excels_unicode_text_is_read(photos: Path) -> None:
    text = "path\tlabel\na.jpg\tçat\n".encode("utf-16")
    assert opened(manifest(photos, text)).rows == [Row("a.jpg", "çat")]


def test_a_catalog_that_was_written_out_is_a_manifest(photos: Path) -> None:
    text = "path,label,side,digest,group\na.jpg,cat,train,00ff,\nb.jpg,dog,valid,ff00,g\n"
    assert opened(manifest(photos, text)).rows == [Row("a.jpg", "cat", "train"), Row("b.jpg", "dog", "valid", "g")]


def test_a_folder_with_a_manifest_is_read_by_it(photos: Path) -> None:
    manifest(photos, "path,label\na.jpg,cat\nb.jpg,dog\n", "labels.csv")
    assert opened(photos).layout == "manifest"
    assert opened(photos).name == "data"
    assert len(opened(photos).rows) == 2


@pytest.fixture
def classes(photos: Path) -> Path:
    """The same folder with class folders in it."""
    for label in ("cat", "dog"):
        (photos / label).mkdir()
        (photos / label / "1.jpg").write_bytes(b"")
    return photos


def test_another_table_in_a_folder_changes_nothing(classes: Path) -> None:
    manifest(classes, "date,what\n2020,holiday\n", "notes.csv")
    notes, told = notebook()
    assert opened(classes, progress=told).layout == "folders"
    assert notes == []
    with pytest.raises(SourceError, match="no CSV or Parquet file with the columns path,label"):
        opened(classes, layout="manifest")


@pytest.mark.parametrize(
    ("tables", "note"),
    [
        (
            {"labels.csv": "path,label,age\na.jpg,cat,3\n"},
            "labels.csv has an unknown column 'age'. Known are path, label, split, group. "
            "Rename it to one of these, or take it out.",
        ),
        (
            dict.fromkeys(("test.csv", "train.csv"), "path,label\na.jpg,cat\n"),
            "2 tables name photos and labels: test.csv, train.csv. "
            "Name the one that says what is learned, in place of the folder; photos to hold out: --test TABLE.",
        ),
    ],
)
def test_a_table_that_looks_like_a_manifest_and_is_not_taken_is_told(
    classes: Path, tables: dict[str, str], note: str
) -> None:
    for name, text in tables.items():
        manifest(classes, text, name)
    notes, told = notebook()
    assert opened(classes, progress=told).layout == "folders"
    assert notes == [f"Left out: {note[:-1]}"]
    with pytest.raises(SourceError) as caught:
        opened(classes, layout="manifest")
    assert caught.value.what == f"{classes} has no CSV or Parquet file that can be taken."
    assert f"{caught.value.why} {caught.value.fix}" == note
    for path in ("cat/1.jpg", "dog/1.jpg", "sub/c.jpg"):
        (classes / path).unlink()
    with pytest.raises(SourceError, match="has no layout of labelled photos") as caught:
        opened(classes)
    assert f"{caught.value.why} {caught.value.fix}".endswith(f"no label can be told from folders or names. {note}")


def test_tables_of_single_photos_are_told_where_a_manifest_was_asked_for(classes: Path) -> None:
    for i in range(21):
        manifest(classes / "cat", "path,label\nhead,box\n", f"{i}.csv")
    notes, told = notebook()
    assert opened(classes, progress=told).layout == "folders"
    assert notes == []
    with pytest.raises(SourceError) as caught:
        opened(classes, layout="manifest")
    assert caught.value.why == "21 tables are too many to be looked into."
    assert caught.value.fix.startswith("Name the one that says what is learned, in place of the folder")


@pytest.mark.parametrize("n", [3, 25])
def test_parts_of_a_parquet_data_set_beside_other_files_are_read_by_a_layout(photos: Path, n: int) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder = photos.parent / "set"
    folder.mkdir()
    manifest(folder, "what this is", "README.md")
    for i in range(n):
        (photos / f"{i}.jpg").write_bytes(b"%d" % i)
        table = pa.table({"path": [f"../data/{i}.jpg"], "label": ["cat"]})
        pq.write_table(table, folder / f"part-{i:05d}-of-{n:05d}.parquet")
    notes, told = notebook()
    with pytest.raises(SourceError, match="has no layout of labelled photos") as caught:
        opened(folder, progress=told)
    fix = caught.value.fix
    assert fix == "To learn from the Parquet files, pass --layout manifest."
    assert notes == []
    assert len(opened(folder, layout="manifest").rows) == n
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        manifest(folder / label, b"", "1.jpg")
    assert opened(folder, progress=told).layout == "folders"
    assert [note.endswith(fix[:-1]) for note in notes] == [True] * (n == 3)


def test_a_table_beside_the_one_that_is_taken_is_told(photos: Path) -> None:
    manifest(photos, "path,label\na.jpg,cat\nb.jpg,dog\nsub/c.jpg,dog\n", "labels.csv")
    manifest(photos, "path,label,probability\na.jpg,cat,0.9\n", "named.csv")
    notes, told = notebook()
    assert len(opened(photos, progress=told).rows) == 3
    assert [note[:45] for note in notes] == ["Left out: named.csv has an unknown column 'pr"]


def test_a_parquet_file_that_cannot_be_looked_into_is_told(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    manifest(classes, b"PAR1", "labels.parquet")
    notes, told = notebook()
    assert opened(classes, progress=told).layout == "folders"
    assert notes == [
        "Left out: labels.parquet needs the library 'pyarrow', which is not installed. "
        'Install it with: pip install "rehead[parquet]"'
    ]
    with pytest.raises(MissingExtra, match=r"labels\.parquet needs the library 'pyarrow'"):
        opened(classes, layout="manifest")


@pytest.mark.skipif(os.name == "nt", reason="names as on POSIX")
def test_names_with_newlines_and_invalid_utf8_are_found(photos: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.jpg"), "new\nline.jpg", "🐈 cat.jpg"]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["path", "label"], *([name, "cat"] for name in names)])
    for name in names:
        (photos / name).write_bytes(os.fsencode(name))
    source = opened(manifest(photos, text.getvalue().encode("utf-8", "surrogateescape")))
    assert [source.read(row) for row in source.rows] == [os.fsencode(name) for name in names]


@pytest.mark.skipif(os.name == "nt", reason="there a backslash is a separator")
def test_a_manifest_from_windows_is_understood(photos: Path) -> None:
    assert opened(manifest(photos, "path,label\nsub\\c.jpg,cat\n")).rows == [Row("sub/c.jpg", "cat")]


@pytest.mark.parametrize(
    "text",
    [
        "label, path\ncat, a.jpg\ndog, sub/c.jpg\n",
        "path,label\na.jpg,cat,\nsub/c.jpg,dog,,\n",
        "sep=;\npath;label\na.jpg;cat\nsub/c.jpg;dog\n",
        '"sep=|"\r\npath|label\r\na.jpg|cat\r\nsub/c.jpg|dog\r\n',
    ],
)
def test_csv_as_others_write_it_is_understood(text: str, photos: Path) -> None:
    assert opened(manifest(photos, text)).rows == [Row("a.jpg", "cat"), Row("sub/c.jpg", "dog")]


def test_a_space_of_a_files_name_stays(photos: Path) -> None:
    (photos / " a.jpg").write_bytes(b" a")
    source = opened(manifest(photos, "path,label\n a.jpg,cat\nb.jpg,dog\n"))
    assert [source.read(row) for row in source.rows] == [b" a", b"b.jpg"]


def test_files_that_are_missing_or_have_no_label_are_skipped(photos: Path) -> None:
    source = opened(manifest(photos, "path,label\ngone.jpg,cat\na.jpg, \nsub,dog\n,dog\nb.jpg\nsub/c.jpg,dog\n"))
    assert source.rows == [Row("sub/c.jpg", "dog")]
    assert [skip.reason for skip in source.skipped] == [
        "is not there",
        "has no label",
        "is a folder",
        "has no path",
        "has no label",
    ]
    assert source.skipped[3].path.startswith("line 5 of ")


def test_a_manifest_of_which_nothing_is_there_says_where_it_looked(photos: Path) -> None:
    with pytest.raises(SourceError, match=re.escape(f"looked for in {photos}")):
        opened(manifest(photos, "path,label\nx/a.jpg,cat\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,lable\na.jpg,cat\n", r"unknown column 'lable'.*\n.*\n.*Did you mean 'label'"),
        ("path,label,extra\na.jpg,cat,1\n", "unknown column 'extra'"),
        ("path,split\na.jpg,train\n", "has no column 'label'"),
        ("a.jpg,cat\n", "unknown column 'a.jpg'"),
        ("", "has no column 'path' and no column 'label'"),
        ("path,label,path\na.jpg,cat,b.jpg\n", "the column 'path' twice"),
        ("path,label,split,side\na.jpg,cat,train,test\n", "the column 'split' twice"),
        ("path,label\na.jpg,cat\nb.jpg,dog\n./a.jpg,cat\n", r"'./a.jpg' twice.\n.*lines 2 and 4"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,tets\n", r"'tets' on line 3.\n.*\n.*'test'"),
        ("path,label\na.jpg,cat,dog\n", "Line 2 .* has 3 cells for 2 columns"),
        ("path,label\na.jpg;cat\n", "Line 2 of .* is parted by ';', and the names of the columns are by ','"),
        ("path,label\n", "has no lines"),
        (b"path,label\n" + b"x" * 200_000 + b",cat\n", "not a CSV file"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong_and_where(photos: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        opened(manifest(photos, text))


@given(st.binary(max_size=200))
def test_any_bytes_as_a_manifest_are_rows_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for head in (b"", b"path,label\n", b"\xff\xfe"):
        with pytest.raises(SourceError):
            opened(manifest(folder, head + data))


labels = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp", "Mn"]), min_size=1, max_size=9
)


@given(st.lists(st.tuples(labels, st.sampled_from(["", "train", "valid", "test"]), labels), min_size=1, max_size=3))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, str]]) -> None:
    import unicodedata

    folder = tmp_path_factory.getbasetemp() / "written"
    folder.mkdir(exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "label", "split", "group"])
    for i, row in enumerate(cells):
        (folder / f"{i}.jpg").touch()
        writer.writerow([f"{i}.jpg", *row])
    composed = [
        (unicodedata.normalize("NFC", a), side or None, unicodedata.normalize("NFC", b)) for a, side, b in cells
    ]
    rows = opened(manifest(folder, text.getvalue())).rows
    assert [(row.label, row.side, row.group) for row in rows] == composed


def test_parquet_is_read_like_csv(photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "path": ["a.jpg", "b.jpg", "gone.jpg", "sub/c.jpg"],
        "label": pyarrow.array(["cat", "dog", "cat", None]).dictionary_encode(),
        "group": [1.0, None, 2.0, 3.0],
    }
    parquet.write_table(pyarrow.table(columns), photos / "photos.parquet")
    source = opened(photos / "photos.parquet")
    assert source.layout == "manifest"
    assert source.rows == [Row("a.jpg", "cat", None, "1"), Row("b.jpg", "dog")]
    assert source.skipped == [Skip("gone.jpg", "is not there"), Skip("sub/c.jpg", "has no label")]


def test_a_broken_parquet_file_is_a_clear_error(photos: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(SourceError, match="not a Parquet file that can be read"):
        opened(manifest(photos, b"PAR1 and then nothing", "photos.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "rehead\[parquet\]"'):
        opened(manifest(photos, b"PAR1", "photos.parquet"))


def test_data_frames_and_arrow_tables_are_tables(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": [photos / "a.jpg", "b.jpg"], "label": [3, None], "split": ["train", "test"]})
    monkeypatch.chdir(photos)
    source = opened(frame)
    monkeypatch.chdir("/")
    assert source.layout == "table"
    assert source.rows == [Row(str(photos / "a.jpg"), "3", "train")]
    assert source.skipped == [Skip("b.jpg", "has no label")]
    monkeypatch.chdir(photos)
    frame = pandas.DataFrame({"path": ["a.jpg", "b.jpg"], "label": pandas.Categorical(["cat", "dog"])})
    assert opened(frame).rows == [Row("a.jpg", "cat"), Row("b.jpg", "dog")]
    assert opened(pytest.importorskip("pyarrow").Table.from_pandas(frame)).rows == opened(frame).rows
    with pytest.raises(SourceError, match="The table has an unknown column 'lable'"):
        opened(frame.rename(columns={"label": "lable"}))


def test_pandas_kinds_of_nothing_are_no_labels_but_their_names_are(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(photos)
    paths = ["a.jpg", "b.jpg", "sub/c.jpg"]
    numbers = pandas.DataFrame({"path": paths, "label": pandas.array([1, None, 2], dtype="Int64")})
    assert [row.label for row in opened(numbers).rows] == ["1", "2"]
    words = pandas.DataFrame({"path": paths, "label": ["NaT", "nan", pandas.NaT]})
    assert [row.label for row in opened(words).rows] == ["NaT", "nan"]


def test_lists_of_paths_and_labels_are_a_source(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    source = opened((["a.jpg", photos / "b.jpg"], ["cat", 1]))
    assert source.layout == "lists"
    assert source.rows == [Row("a.jpg", "cat"), Row(str(photos / "b.jpg"), "1")]
    with pytest.raises(SourceError, match="positions 0 and 1"):
        opened((["a.jpg", "./a.jpg"], ["cat", "dog"]))


def test_a_photo_that_two_manifests_name_is_held_out_alone(photos: Path) -> None:
    train = manifest(photos, "path,label\na.jpg,cat\nb.jpg,dog\n")
    test = manifest(photos, "path,label\na.jpg,cat\n", "test.csv")
    source = opened(train, test=test)
    assert [(row.path, row.side) for row in source.rows] == [("b.jpg", "train"), ("./a.jpg", "test")]
    assert source.read(source.rows[1]) == b"a.jpg"


@pytest.mark.parametrize(("column", "word"), [("label", "label"), ("group", "group")])
def test_a_label_in_latin_1_is_an_error_that_names_the_line(photos: Path, column: str, word: str) -> None:
    header, café = f"path,label{',group' * (column == 'group')}", "café".encode("latin-1")
    cells = café if column == "label" else b"cat," + café
    path = manifest(photos, f"{header}\na.jpg,cat\nb.jpg,".encode() + cells + b"\n")
    with pytest.raises(SourceError) as caught:
        opened(path)
    assert caught.value.what == f"Line 3 of {path} has the {word} 'caf\\xe9', which is not UTF-8."
    assert caught.value.why == "The file may have been saved as Windows-1252 or Latin-1."
    assert caught.value.fix.startswith("Save it as UTF-8 (in Excel: CSV UTF-8), or write another and name that: iconv ")
    run(caught.value.fix.partition("name that: ")[2], shell=True, check=True)
    assert [row.path for row in opened(photos / "photos-utf8.csv").rows] == ["a.jpg", "b.jpg"]


def test_an_open_quote_does_not_print_the_rest_of_the_file(photos: Path) -> None:
    rest = "".join(f"photos/{i}.jpg,cat\n" for i in range(2_000))
    with pytest.raises(SourceError) as caught:
        opened(manifest(photos, f'path,label\n"a.jpg,cat\n{rest}'))
    assert len(str(caught.value)) < 600
    assert "a quote before line 2002 may not be closed" in caught.value.why


def test_lists_and_data_frames_are_told_of_in_words_of_python(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(SourceError, match="Nothing in the list of paths can be used") as caught:
        opened((["gone.jpg"], ["cat"]))
    assert caught.value.fix == f"Its paths are looked for from the current folder, {photos}."
    with pytest.raises(SourceError, match=r"The list of paths names 'a\.jpg' twice") as caught:
        opened((["a.jpg", "a.jpg"], ["cat", "cat"]))
    assert caught.value.fix == "Name each photo once."
    pandas = pytest.importorskip("pandas")
    with pytest.raises(SourceError, match="The table has no column 'label'") as caught:
        opened(pandas.DataFrame({"path": ["a.jpg"]}))
    assert "first line" not in caught.value.fix
