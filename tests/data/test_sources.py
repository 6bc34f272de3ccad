"""Folders, walks and what a program holds in memory become rows; nothing that lies in a folder makes it crash."""

from __future__ import annotations

import gc
import io
import os
import re
import shutil
import threading
import weakref
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos, noise
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rehead.data.layouts import flat_label, recognised
from rehead.data.memory import encoded
from rehead.data.rows import label_of, short_name
from rehead.data.scan import scan
from rehead.data.sources import LAYOUTS, Row, Skip, Source, open_source, walk
from rehead.errors import PhotoError, SourceError, SplitError
from rehead.progress import Silent

DATA = Path(os.environ.get("REHEAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared photos are not at {DATA}")
as_a_user = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
posix = pytest.mark.skipif(os.name == "nt", reason="names and links as on POSIX")


def fill(root: Path, *paths: str) -> Path:
    """`root` with these files, each holding its own path."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(path))
    return root


def opened(source: object, tmp_path: Path, **options: Any) -> Source:
    return open_source(source, cache=tmp_path / "cache", **options)


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def as_dict(source: Source) -> dict[str, tuple[str, str | None]]:
    return {row.path: (row.label, row.side) for row in source.rows}


# -- class folders


def test_a_class_is_the_first_folder_whatever_is_below_it(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "cat/indoors/2020/2.jpg", "dog/3.png")
    source = opened(photos, tmp_path)
    assert source.layout == "folders"
    assert source.name == "photos"
    assert as_dict(source) == {
        "cat/1.jpg": ("cat", None),
        "cat/indoors/2020/2.jpg": ("cat", None),
        "dog/3.png": ("dog", None),
    }


def test_a_row_is_read_from_where_it_lies(tmp_path: Path) -> None:
    source = opened(str(fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")), tmp_path)
    assert [source.read(row) for row in source.rows] == [b"cat/1.jpg", b"dog/2.jpg"]


def test_rows_are_read_after_the_working_folder_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    monkeypatch.chdir(tmp_path)
    source = opened("photos", tmp_path)
    monkeypatch.chdir("/")
    assert source.read(source.rows[0]) == b"cat/1.jpg"


def test_one_folder_around_everything_is_looked_through(tmp_path: Path) -> None:
    source = opened(fill(tmp_path / "zip", "pets/images/cat/1.jpg", "pets/images/dog/2.jpg", "pets/README"), tmp_path)
    assert as_dict(source) == {"pets/images/cat/1.jpg": ("cat", None), "pets/images/dog/2.jpg": ("dog", None)}


def test_a_single_class_stays_a_class(tmp_path: Path) -> None:
    source = opened(fill(tmp_path / "photos", "cat/a.jpg", "cat/b.jpg", "cat/IMG_1.jpg", "cat/IMG_2.jpg"), tmp_path)
    assert {row.label for row in source.rows} == {"cat"}


def test_cameras_names_are_no_classes(tmp_path: Path) -> None:
    names = [f"cat/{camera}_{i}.jpg" for camera in ("IMG", "DSC") for i in range(3)]
    assert {row.label for row in opened(fill(tmp_path / "photos", *names), tmp_path).rows} == {"cat"}


def test_class_folders_win_over_names_that_look_flat(tmp_path: Path) -> None:
    names = [f"{kind}/photo_{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    source = opened(fill(tmp_path / "photos", *names), tmp_path)
    assert source.layout == "folders"
    assert {row.label for row in source.rows} == {"cat", "dog"}


def test_a_photo_beside_the_class_folders_is_listed_but_a_readme_is_not(tmp_path: Path) -> None:
    source = opened(fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg", "cover.jpg", "README.md"), tmp_path)
    assert source.skipped == [Skip("cover.jpg", "lies outside the class folders", "aside")]


def test_the_same_name_in_two_spellings_of_unicode_is_one_class() -> None:
    assert label_of("cafe\u0301") == label_of("caf\u00e9") == "caf\u00e9"


def test_half_a_character_in_a_label_is_an_escape() -> None:
    assert label_of("cat \ud800") == r"cat \ud800"


# -- what is never a photo and never a class


def test_hidden_files_and_leftovers_of_systems_are_neither_photos_nor_classes(tmp_path: Path) -> None:
    left = [".ipynb_checkpoints/1.jpg", "__MACOSX/cat/._1.jpg", "@eaDir/1.jpg", "cat/.hidden.jpg", "cat/@eaDir/2.jpg"]
    left += ["cat/Thumbs.db", "cat/desktop.ini", "cat/.DS_Store", "dog/._2.jpg", ".git/config"]
    source = opened(fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg", *left), tmp_path)
    assert as_dict(source) == {"cat/1.jpg": ("cat", None), "dog/2.jpg": ("dog", None)}
    assert source.skipped == []


def test_a_folder_called_like_a_photo_is_a_folder(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/x.jpg/inside.jpg", "dog/1.jpg")
    (photos / "dog" / "empty.jpg").mkdir()
    assert [row.path for row in opened(photos, tmp_path).rows] == ["cat/x.jpg/inside.jpg", "dog/1.jpg"]


@posix
def test_a_pipe_is_skipped_and_does_not_hang(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    os.mkfifo(photos / "cat" / "pipe.jpg")
    assert opened(photos, tmp_path).skipped == [Skip("cat/pipe.jpg", "is not a regular file")]


@posix
@pytest.mark.parametrize("name", ["two words.jpg", "🐈.jpg", "new\nline.jpg", os.fsdecode(b"caf\xe9.jpg"), "a\\b.jpg"])
def test_strange_names_are_files_like_others(tmp_path: Path, name: str) -> None:
    source = opened(fill(tmp_path / "photos", f"cat/{name}", "dog/1.jpg"), tmp_path)
    assert source.rows[0] == Row(f"cat/{name}", "cat")
    assert source.read(source.rows[0]) == os.fsencode(f"cat/{name}")


@posix
def test_classes_with_invalid_names_stay_apart_and_can_be_written(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe8/1.jpg"), os.fsdecode(b"caf\xe9/1.jpg"), "new\nline/1.jpg"]
    labels = [row.label for row in opened(fill(tmp_path / "photos", *names), tmp_path).rows]
    assert labels == ["caf\\xe8", "caf\\xe9", "new\nline"]
    "".join(labels).encode()


# -- links and permissions


@posix
def test_loops_of_links_end(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    (photos / "cat" / "back").symlink_to(photos)
    (photos / "cat" / "self").symlink_to("self")
    (photos / "dog" / "up").symlink_to("..")
    assert [path.name for path in walk(photos)] == ["1.jpg", "2.jpg"]


@posix
def test_links_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "big/1.jpg", "2.jpg")
    photos = fill(tmp_path / "photos", "dog/3.jpg")
    (photos / "cat").symlink_to(outside / "big")
    (photos / "dog" / "4.jpg").symlink_to(outside / "2.jpg")
    source = opened(photos, tmp_path)
    assert [row.path for row in source.rows] == ["cat/1.jpg", "dog/3.jpg", "dog/4.jpg"]
    assert source.read(source.rows[2]) == b"2.jpg"


@posix
def test_a_linked_folder_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    (photos / "a_cat").symlink_to("cat")
    source = opened(photos, tmp_path)
    assert list(as_dict(source)) == ["cat/1.jpg", "dog/2.jpg"]
    assert source.skipped == [Skip("a_cat", "is a link to a folder that is listed under its own name", "aside")]


@posix
def test_a_link_to_a_hidden_store_is_followed(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", ".store/0/1.jpg", "dog/2.jpg")
    (photos / "cat").symlink_to(".store/0")
    assert list(as_dict(opened(photos, tmp_path))) == ["cat/1.jpg", "dog/2.jpg"]


@posix
def test_a_broken_link_is_listed_as_skipped(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    (photos / "cat" / "gone.jpg").symlink_to("nowhere")
    assert opened(photos, tmp_path).skipped == [Skip("cat/gone.jpg", "is a link to nothing")]


@as_a_user
def test_a_folder_without_permission_is_listed_as_skipped(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg", "dog/private/3.jpg")
    (photos / "dog" / "private").chmod(0)
    try:
        source = opened(photos, tmp_path)
    finally:
        (photos / "dog" / "private").chmod(0o755)
    assert source.skipped == [Skip("dog/private", "cannot be listed: Permission denied")]
    assert len(source.rows) == 2


@as_a_user
def test_a_top_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg")
    photos.chmod(0)
    try:
        with pytest.raises(SourceError, match="cannot be listed"):
            opened(photos, tmp_path)
    finally:
        photos.chmod(0o755)


@posix
@pytest.mark.parametrize("ending", ["", ".zip", ".csv"])
def test_a_name_that_cannot_be_looked_up_is_an_error_of_one_sentence(tmp_path: Path, ending: str) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    name = tmp_path / ("n" * 300 + ending)
    for options in ({"source": name}, {"source": photos, "test": name}, {"source": name, "test": photos}):
        with pytest.raises(SourceError, match=r"cannot be (listed|read).\nFile name too long.\nCheck the"):
            opened(options.pop("source"), tmp_path, **options)


@as_a_user
@pytest.mark.parametrize("name", ["photos", "photos.zip"])
def test_what_lies_in_a_folder_without_permission_is_an_error_that_says_so(tmp_path: Path, name: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        with pytest.raises(SourceError, match=r"cannot be (listed|read).\nPermission denied.\nCheck the"):
            opened(closed / name, tmp_path)
    finally:
        closed.chmod(0o755)


@posix
def test_a_path_longer_than_the_system_allows_is_skipped(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    here = os.open(photos / "cat", os.O_RDONLY)
    for _ in range(20):  # 20 x 251 bytes are more than PATH_MAX
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    source = opened(photos, tmp_path)
    assert [skip.reason for skip in source.skipped] == ["cannot be listed: File name too long"]
    assert len(source.rows) == 2


# -- the walk


names = st.text("abAB.1 é", min_size=1, max_size=4).filter(lambda name: not name.startswith("."))
trees = st.sets(st.lists(names, min_size=1, max_size=4).map("/".join), max_size=12)


@given(trees)
def test_a_walk_gives_every_file_once_sorted_by_the_parts_of_its_path(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str]
) -> None:
    root = tmp_path_factory.mktemp("walk")
    kept = []
    for path in sorted(paths):
        try:
            fill(root, path)
        except OSError:  # a file stands where a folder should
            continue
        kept.append(path)
    assert [path.relative_to(root).as_posix() for path in walk(root)] == sorted(kept, key=lambda path: path.split("/"))
    shutil.rmtree(root)


def test_hundreds_of_folders_in_each_other_are_walked(tmp_path: Path) -> None:
    deep = tmp_path / "photos" / Path(*["d"] * 400)
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(b"")
    assert len(list(walk(tmp_path / "photos"))) == 1


# -- split folders


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "Test", "VAL"])
def test_split_folders_give_sides(tmp_path: Path, held_out: str) -> None:
    photos = fill(tmp_path / "photos", "Train/cat/1.jpg", "Train/dog/2.jpg", f"{held_out}/cat/3.jpg")
    source = opened(photos, tmp_path)
    assert source.layout == "split"
    side = "test" if held_out == "Test" else "valid"
    assert [row.side for row in sorted(source.rows, key=lambda row: row.path[-5])] == ["train", "train", side]
    assert {row.label for row in source.rows} == {"cat", "dog"}


def test_only_a_train_folder_is_no_split(tmp_path: Path) -> None:
    source = opened(fill(tmp_path / "photos", "train/cat/1.jpg", "train/dog/2.jpg"), tmp_path)
    assert source.layout == "folders"
    assert as_dict(source) == {"train/cat/1.jpg": ("cat", None), "train/dog/2.jpg": ("dog", None)}


def test_a_test_folder_without_classes_is_named_and_makes_no_split(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "train/cat/1.jpg", "train/dog/2.jpg", "test/3.jpg", "test/4.jpg")
    source = opened(photos, tmp_path)
    assert {row.side for row in source.rows} == {None}
    assert source.skipped == [Skip("test", "2 files (test/3.jpg and 1 more) without a class folder", "aside")]


def test_train_can_be_a_class(tmp_path: Path) -> None:
    source = opened(fill(tmp_path / "photos", "train/1.jpg", "car/2.jpg", "plane/3.jpg"), tmp_path)
    assert {row.label for row in source.rows} == {"train", "car", "plane"}


# -- flat names


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("cat_001.jpg", "cat"),
        ("cat-1.jpeg", "cat"),
        ("cat (2).jpg", "cat"),
        ("cat(2).jpg", "cat"),
        ("cat12.png", "cat"),
        ("great_pyrenees_12.jpg", "great_pyrenees"),
        ("train/dog.4.jpg", "dog"),
        ("cat.0", "cat"),
        ("cat.jpg", "cat"),
        ("7.0013.png", "7"),
        ("17.jpg", ""),
        ("_1.jpg", ""),
        ("-.2.jpg", ""),
    ],
)
def test_a_flat_name_says_its_label(name: str, label: str) -> None:
    assert flat_label(name) == label


@given(st.text(max_size=20))
def test_any_name_has_a_flat_label_or_none(name: str) -> None:
    assert flat_label(name) == flat_label("folder/" + name) or "/" in name


def test_flat_names_are_recognised_with_and_without_a_folder_around(tmp_path: Path) -> None:
    names = [f"{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    for source in (
        opened(fill(tmp_path / "bare", *names), tmp_path),
        opened(fill(tmp_path / "wrapped", *(f"train/{name}" for name in names)), tmp_path),
    ):
        assert source.layout == "flat"
        assert Counter(row.label for row in source.rows) == {"cat": 3, "dog": 3}
        assert {row.side for row in source.rows} == {None}


def test_a_flat_name_without_a_label_is_skipped(tmp_path: Path) -> None:
    names = [f"{kind}_{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    source = opened(fill(tmp_path / "photos", *names, "17.jpg"), tmp_path)
    assert source.skipped == [Skip("17.jpg", "has no label in its name", "aside")]


def test_many_loose_photos_beside_class_folders_make_no_class_of_each_name(tmp_path: Path) -> None:
    names = [f"{kind}/{i}_{kind}a{i}.jpg" for kind in ("cat", "dog") for i in range(4)]
    loose = [f"100{i}_e{i}b.jpg" for i in range(8)] + ["200_f 1.jpg", "200_f 2.jpg", "300_f 1.jpg", "300_f 2.jpg"]
    source = opened(fill(tmp_path / "photos", *names, *loose), tmp_path)
    assert source.layout == "folders"
    assert {row.label for row in source.rows} == {"cat", "dog"}
    assert len(source.skipped) == len(loose)


@pytest.mark.parametrize(
    "name",
    [
        "IMG-202401{:02}-WA{:04}.jpg",
        "202401{:02}_12345{}.jpg",
        "PXL_202401{:02}_12345{}678.jpg",
        "Screenshot_2024-01-{:02}-12-30-0{}.png",
        "WhatsApp Image 2024-01-{:02} at 12.30.0{}.jpeg",
    ],
)
def test_dates_that_phones_name_photos_by_are_no_classes(name: str) -> None:
    assert recognised([name.format(day, i) for day in (1, 2) for i in range(3)])[0] == ""


def test_numbers_in_names_may_be_classes() -> None:
    assert recognised([f"{kind}_{i}.png" for kind in (3, 7) for i in range(3)])[1].labels() == {"3", "7"}


def test_kaggles_folder_of_unlabelled_photos_is_one_skip(tmp_path: Path) -> None:
    names = [f"train/{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    source = opened(fill(tmp_path / "photos", *names, "test1/1.jpg", "test1/2.jpg", "sampleSubmission.csv"), tmp_path)
    assert source.layout == "flat"
    assert Counter(row.label for row in source.rows if row.path.startswith("train/")) == {"cat": 3, "dog": 3}
    assert {row.side for row in source.rows} == {None}
    assert source.skipped == [Skip("test1", "2 files (test1/1.jpg and 1 more) without a label in the name", "aside")]


def test_flat_names_in_side_folders_have_sides(tmp_path: Path) -> None:
    names = [f"{side}/{kind}.{i}.jpg" for side in ("train", "valid") for kind in ("cat", "dog") for i in range(3)]
    source = opened(fill(tmp_path / "photos", *names), tmp_path)
    assert source.layout == "flat"
    assert Counter(row.side for row in source.rows) == {"train": 6, "valid": 6}


# -- forcing, and what fits nothing


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "train/cat.1.jpg", "train/dog.1.jpg", "car/bus.1.jpg")
    assert {row.label for row in opened(photos, tmp_path, layout="folders").rows} == {"train", "car"}
    assert {row.label for row in opened(photos, tmp_path, layout="flat").rows} == {"cat", "dog", "bus"}


def test_a_forced_layout_is_looked_for_inside_the_only_folder(tmp_path: Path) -> None:
    photos = fill(tmp_path / "zip", "pets/cat/1.jpg", "pets/dog/2.jpg")
    assert {row.label for row in opened(photos, tmp_path, layout="folders").rows} == {"cat", "dog"}


def test_a_forced_layout_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not have the layout 'split'") as caught:
        opened(fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg"), tmp_path, layout="split")
    assert caught.value.why == "It holds 2 folders (cat, dog), which is the layout 'folders'."
    assert caught.value.fix == "Leave --layout out, or pass --layout folders."


@pytest.mark.parametrize("layout", ["archive", "table"])
def test_a_layout_that_no_folder_can_have_is_refused(tmp_path: Path, layout: str) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    with pytest.raises(
        SourceError, match=f"{re.escape(str(photos))} is a folder and cannot have the layout '{layout}'."
    ):
        opened(photos, tmp_path, layout=layout)


def test_a_layout_of_folders_that_a_manifest_cannot_have_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "photos.csv"
    table.write_text("path,label\na.jpg,cat\n")
    with pytest.raises(SourceError, match=r"photos\.csv is a manifest and cannot have the layout 'flat'\."):
        opened(table, tmp_path, layout="flat")


def test_an_archive_without_files_is_called_by_its_own_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(SourceError, match=re.escape(f"{tmp_path / 'empty.zip'} holds no files.")):
        opened(tmp_path / "empty.zip", tmp_path)


def test_an_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Did you mean 'folders'") as caught:
        opened(fill(tmp_path / "photos", "cat/1.jpg"), tmp_path, layout="folder")
    assert caught.value.why == "There are auto, folders, split, flat, manifest, webdataset, archive."
    with pytest.raises(SourceError, match="Did you mean 'dataset'") as caught:
        opened([(b"", "cat")], tmp_path, layout="datasets")
    assert all(name in caught.value.why for name in LAYOUTS)


def test_photos_without_any_label_are_an_error_that_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        opened(fill(tmp_path / "photos", "1.jpg", "2.jpg", "3.jpg", "4.jpg"), tmp_path)
    assert caught.value.what.endswith("photos has no layout of labelled photos that is known here.")
    assert caught.value.why.startswith("It holds 4 files (1.jpg, 2.jpg, 3.jpg, ...)")
    assert "photos/cat/1.jpg" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 3


def test_train_and_test_without_classes_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"2 folders \(test, train\)"):
        opened(fill(tmp_path / "photos", "train/1.jpg", "test/2.jpg"), tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"There is no folder .*nowhere") as caught:
        opened(tmp_path / "nowhere", tmp_path)
    assert str(tmp_path) in caught.value.why


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "photos", ".DS_Store", ".git/config").joinpath("empty").mkdir()
    with pytest.raises(SourceError, match="holds no files"):
        opened(tmp_path / "photos", tmp_path)


def test_a_single_photo_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a file, but neither a manifest"):
        opened(fill(tmp_path, "cat.jpg") / "cat.jpg", tmp_path)


@given(st.lists(st.text("ab/.0", min_size=1, max_size=8).map(lambda text: text.strip("/") or "a"), max_size=20))
def test_recognition_takes_any_paths_and_keeps_each_at_most_once(paths: list[str]) -> None:
    layout, reading = recognised(sorted(set(paths)))
    found = [row.path for row in reading.rows]
    assert bool(layout) == bool(found) or not found
    assert set(found) <= set(paths)
    assert len(found) == len(set(found))
    assert all(row.label for row in reading.rows)


# -- held-out folders


def test_held_out_folders_give_sides(tmp_path: Path) -> None:
    main = fill(tmp_path / "train", "cat/1.jpg", "dog/2.jpg")
    valid, test = fill(tmp_path / "val", "cat/1.jpg"), fill(tmp_path / "held", "dog.9.jpg", "dog.8.jpg", "cat.7.jpg")
    source = opened(main, tmp_path, valid=valid, test=str(test))
    assert as_dict(source) == {
        "cat/1.jpg": ("cat", "train"),
        "dog/2.jpg": ("dog", "train"),
        "../val/cat/1.jpg": ("cat", "valid"),
        "../held/cat.7.jpg": ("cat", "test"),
        "../held/dog.8.jpg": ("dog", "test"),
        "../held/dog.9.jpg": ("dog", "test"),
    }
    assert source.read(next(row for row in source.rows if row.path == "../held/dog.9.jpg")) == b"dog.9.jpg"


def test_a_held_out_folder_inside_the_photos_is_not_read_twice(tmp_path: Path) -> None:
    main = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg", "holdout/cat/3.jpg")
    assert as_dict(opened(main, tmp_path, test=main / "holdout")) == {
        "cat/1.jpg": ("cat", "train"),
        "dog/2.jpg": ("dog", "train"),
        "holdout/cat/3.jpg": ("cat", "test"),
    }


@pytest.mark.parametrize("how", ["its own table", "a table elsewhere", "held out by a table", "by a link", "lists"])
def test_what_is_held_out_is_learned_from_by_no_table(how: str, tmp_path: Path) -> None:
    main = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg", "later/cat/3.jpg", "later/dog/4.jpg")
    (tmp_path / "link").symlink_to(main)
    names = [path.relative_to(main).as_posix() for path in sorted(main.rglob("*.jpg"))]
    source: object = main
    test: object = main / "later"
    if how == "lists":
        source = [str(main / name) for name in names], [name.split("/")[-2] for name in names]
    elif how != "held out by a table":
        place, begin = (
            (main, "") if how == "its own table" else (tmp_path, "link/" if how == "by a link" else "photos/")
        )
        source = place / "labels.csv"
        source.write_text("path,label\n" + "".join(f"{begin}{name},{name.split('/')[-2]}\n" for name in names))
        source = main if how == "its own table" else source
    else:
        test = tmp_path / "test.csv"
        test.write_text("path,label\nphotos/later/cat/3.jpg,cat\nlink/later/dog/4.jpg,dog\n")
    told = Told()
    found = opened(source, tmp_path, test=test, progress=told)
    name = "labels" if how in ("a table elsewhere", "by a link") else "photos"
    assert told.notes == [f"2 photos of {name} are held out, and not learned from"]
    rows = [(Path(row.path).name, row.label, row.side) for row in found.rows]
    assert sorted(rows) == [
        ("1.jpg", "cat", "train"), ("2.jpg", "dog", "train"), ("3.jpg", "cat", "test"), ("4.jpg", "dog", "test"),
    ]  # fmt: skip
    assert [found.read(row).decode().split("/")[-1] for row in found.rows] == [name for name, *_ in rows]


@posix
@pytest.mark.parametrize("linked", ["held", "photos"])
def test_a_photo_that_is_held_out_by_a_link_is_not_learned_from(linked: str, tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")
    held = tmp_path / "held"
    for kind in ("cat", "dog"):
        (held / kind).mkdir(parents=True)
        if linked == "photos":
            (photos / kind / "2.jpg").rename(held / kind / "2.jpg")
        ends = photos / kind / "2.jpg", held / kind / "2.jpg"
        link, to = ends if linked == "photos" else ends[::-1]
        link.symlink_to(os.path.relpath(to, link.parent))
    told = Told()
    assert as_dict(opened(photos, tmp_path, test=held, progress=told)) == {
        "cat/1.jpg": ("cat", "train"),
        "dog/1.jpg": ("dog", "train"),
        "../held/cat/2.jpg": ("cat", "test"),
        "../held/dog/2.jpg": ("dog", "test"),
    }
    assert told.notes == ["2 photos of photos are held out, and not learned from"]


def test_a_table_of_nothing_but_held_out_photos_is_an_error(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "labels.csv").write_text("path,label\nphotos/cat/1.jpg,cat\nphotos/dog/2.jpg,dog\n")
    with pytest.raises(SourceError, match="All photos of labels are to be tuned on and held out at once"):
        opened(tmp_path / "labels.csv", tmp_path, test=photos)


def test_a_named_test_folder_takes_the_place_of_the_photos_own_test_side(tmp_path: Path) -> None:
    sides = [f"{side}/{label}/1.jpg" for side in ("train", "val", "test") for label in ("cat", "dog")]
    source = opened(
        fill(tmp_path / "photos", *sides), tmp_path, test=fill(tmp_path / "later", "cat/1.jpg", "dog/2.jpg")
    )
    assert {row.path for row in source.rows if row.side == "test"} == {"../later/cat/1.jpg", "../later/dog/2.jpg"}
    assert Counter(row.side for row in source.rows) == {"train": 2, "valid": 2, "test": 2}
    assert source.skipped == [
        Skip("test", "is the photos' own side (2 photos) and left out, as --test names others", "aside")
    ]


def test_a_held_out_folder_may_lack_a_class(tmp_path: Path) -> None:
    main = fill(tmp_path / "train", "cat/1.jpg", "dog/2.jpg")
    source = opened(main, tmp_path, valid=fill(tmp_path / "val", "cat/DSC_3.jpg", "cat/IMG_3.jpg"))
    assert [row.label for row in source.rows if row.side == "valid"] == ["cat", "cat"]


def test_the_photos_cannot_be_their_own_held_out_side(tmp_path: Path) -> None:
    main = fill(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    with pytest.raises(SourceError, match="tuned on and held out at once"):
        opened(main, tmp_path, valid=tmp_path / "photos" / ".." / "photos")


def test_a_mapping_names_the_sides(tmp_path: Path) -> None:
    sides = {side: fill(tmp_path / side, "cat/1.jpg", "dog/1.jpg") for side in ("train", "validation")}
    assert Counter(row.side for row in opened(sides, tmp_path).rows) == {"train": 2, "valid": 2}
    with pytest.raises(SourceError, match="no 'train'"):
        opened({"test": sides["train"]}, tmp_path)


def test_beside_held_out_folders_the_rest_is_what_was_given_no_side(tmp_path: Path) -> None:
    photos, held_out = fill(tmp_path / "photos", "1.jpg", "2.jpg"), fill(tmp_path / "held", "cat/1.jpg")
    table = photos / "labels.csv"
    table.write_text("path,label,split\n1.jpg,cat,train\n2.jpg,dog,\n")
    source = opened(table, tmp_path, valid=held_out)
    assert [row.path for row in source.rows if source.is_rest(row)] == ["2.jpg"]
    source = opened({"train": table, "valid": held_out}, tmp_path)
    assert not any(map(source.is_rest, source.rows))


# -- in memory


def red(size: tuple[int, int] = (5, 4), mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", size, (200, 30, 10)).convert(mode)


def pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_pairs_of_images_and_labels_are_a_source(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"encoded")
    source = opened([(red(), "cat"), (np.zeros((4, 5, 3), np.uint8), 7), (tmp_path / "photo", "dog")], tmp_path)
    assert source.layout == "dataset"
    assert [(row.path, row.label) for row in source.rows] == [
        ("dataset[0]", "cat"),
        ("dataset[1]", "7"),
        ("dataset[2]", "dog"),
    ]
    assert (pixels(source.read(source.rows[0])) == (200, 30, 10)).all()
    assert source.read(source.rows[2]) == b"encoded"


def test_images_and_labels_may_be_two_lists(tmp_path: Path) -> None:
    source = opened((np.zeros((3, 8, 8), np.uint8), np.array([0, 1, 1])), tmp_path)
    assert [row.label for row in source.rows] == ["0", "1", "1"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"])
def test_decoded_images_are_encoded_without_loss(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    image = Image.fromarray(noise).convert("L" if mode == "I;16" else "RGB" if mode == "LAB" else mode)
    if mode == "I;16":
        image = image.convert("I").convert("I;16")
    if mode == "LAB":
        image = Image.frombytes("LAB", (5, 7), noise.tobytes())
    data = encoded(image)
    with Image.open(io.BytesIO(data)) as back:
        assert back.size == image.size
        assert np.array_equal(np.asarray(back.convert(mode) if back.mode != mode else back), np.asarray(image))
    assert encoded(image) == data


def test_a_turned_photo_is_encoded_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    red((8, 4)).save(stream, "JPEG", exif=exif)
    with Image.open(stream) as image:
        assert pixels(encoded(image)).shape == (8, 4, 3)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(), (1,), (3,), (4,)]), st.integers(0, 2**32 - 1))
def test_arrays_come_back_as_they_went_in(h: int, w: int, channels: tuple[int, ...], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, (h, w, *channels), np.uint8)
    assert np.array_equal(pixels(encoded(array)), array[:, :, 0] if channels == (1,) else array)
    assert encoded(array.astype(np.float32) / 255) == encoded(array)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2, 5), np.uint8), np.zeros(4, np.uint8), np.full((2, 2), 3.0), np.zeros((0, 2, 3), np.uint8)]
)
def test_arrays_that_are_no_pictures_say_so(bad: Any) -> None:
    with pytest.raises(PhotoError):
        encoded(bad)


class Brittle:
    """A data set as people write them: numbered classes, and one item that cannot be read."""

    classes = ("cat", "dog")

    def __init__(self) -> None:
        self.inside = threading.Lock()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        if not self.inside.acquire(blocking=False):
            raise AssertionError("two threads at once")
        try:
            if i == 3:
                raise RuntimeError("truncated\nphoto")
            return red(), i % 2
        finally:
            self.inside.release()


def test_an_item_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    source = opened(Brittle(), tmp_path)
    assert source.skipped == [Skip("dataset[3]", "cannot be read: RuntimeError: truncated photo")]
    assert {row.label for row in source.rows} == {"cat", "dog"}


def test_a_data_set_is_read_by_one_thread_at_a_time(tmp_path: Path) -> None:
    source = opened(Brittle(), tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(source.read, source.rows))) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (5, "int is no source of labelled photos"),
        (iter([]), "no source of labelled photos"),
        ([], "Nothing in the data set can be used"),
        (["a.jpg", "b.jpg"], "not a pair of an image and a label"),
        ([("a.jpg", np.array([0, 1]))], "A label is an array"),
        ([("a.jpg", {"cat": 1})], "A label is a mapping"),
        ((["a.jpg", "b.jpg"], ["cat"]), "2 photos and 1 labels"),
    ],
)
def test_what_is_no_source_says_what_is_wanted(tmp_path: Path, source: object, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        opened(source, tmp_path)


def test_a_label_in_memory_may_be_a_list(tmp_path: Path) -> None:
    pairs = [(red(), ["red", "round"]), (red(), ("round",)), (red(), []), (red(), None)]
    assert [row.label for row in opened(pairs, tmp_path).rows] == ["red;round", "round;", ";", ""]
    pairs = [(noise(i, (9 * i, 9, 9), 8), ["round"] * (i < 12)) for i in range(20)]  # no photo has several of them
    catalog = scan(opened(pairs, tmp_path), seed=0, valid_fraction=0.2)
    assert (catalog.task, sorted(photo.label for photo in catalog.photos)) == ("multilabel", [""] * 8 + ["round"] * 12)
    with pytest.raises(SplitError, match="There is only one class"):
        scan(opened(pairs, tmp_path), seed=0, valid_fraction=0.2, task="classification")
    with pytest.raises(SourceError, match="A list of labels holds 'rock;roll'"):
        opened([(red(), ["rock;roll", "jazz"])], tmp_path)


def test_a_layout_for_files_cannot_be_forced_on_what_is_in_memory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'flat' was asked for"):
        opened([(red(), "cat")], tmp_path, layout="flat")


def image_files(root: Path) -> Path:
    for label in ("cat", "dog"):
        for i in range(3):
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (i * 40, 9, 9)).save(root / label / f"{i}.png")
    return root


def test_torchvisions_image_folder_is_read_from_its_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    root = image_files(tmp_path / "photos")
    source = opened(datasets.ImageFolder(root), tmp_path)
    assert as_dict(source) == as_dict(opened(root, tmp_path))
    assert source.read(source.rows[0]) == (root / "cat" / "0.png").read_bytes()


def test_what_torchvisions_data_set_makes_of_labels_and_files_is_what_is_taken(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    data = pytest.importorskip("torch.utils.data")
    root = image_files(tmp_path / "photos")
    turned = datasets.ImageFolder(root, target_transform=lambda target: 1 - target)
    for dataset in (turned, data.Subset(turned, range(6))):
        assert [row.label for row in opened(dataset, tmp_path).rows] == ["1"] * 3 + ["0"] * 3
    named = datasets.ImageFolder(root, target_transform=("small", "large").__getitem__)
    assert [row.label for row in opened(named, tmp_path).rows] == ["small"] * 3 + ["large"] * 3
    source = opened(datasets.ImageFolder(root, loader=lambda _: Image.new("RGB", (2, 2), (7, 7, 7))), tmp_path)
    assert [row.label for row in source.rows] == ["cat"] * 3 + ["dog"] * 3
    assert pixels(source.read(source.rows[0])).shape == (2, 2, 3)


def test_items_of_a_subclass_are_what_it_gives(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    root = image_files(tmp_path / "photos")

    class Turned(datasets.ImageFolder):  # type: ignore[misc, name-defined]
        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (2, 2), (i, 7, 7)), 1 - self.targets[i]

    class Cut(datasets.ImageFolder):  # type: ignore[misc, name-defined]
        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (2, 2), (i, 7, 7)), self.targets[i]

    for kind, labels in ((Turned, ["dog", "cat"]), (Cut, ["cat", "dog"])):
        source = opened(kind(root), tmp_path)
        assert [row.label for row in source.rows] == [labels[0]] * 3 + [labels[1]] * 3
        assert pixels(source.read(source.rows[4])).ravel()[:3].tolist() == [4, 7, 7]


def test_a_column_of_pairs_goes_by_position(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    root = image_files(tmp_path / "photos")
    pairs = [(str(path), path.parent.name) for path in sorted(root.rglob("*.png"))]
    source = opened(pandas.Series(pairs, index=range(5, -1, -1)), tmp_path)
    assert [row.label for row in source.rows] == ["cat"] * 3 + ["dog"] * 3
    assert source.read(source.rows[5]) == (root / "dog" / "2.png").read_bytes()


@pytest.mark.parametrize("source", ["photos\0", Path("photos\0"), b"photos\0", {"train": "photos\0"}])
def test_a_name_with_a_nul_is_told(source: object, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="A name of photos holds a NUL"):
        open_source(source, cache=tmp_path)


@pytest.mark.parametrize("streamed", [0, 1])
def test_a_stream_of_paths_or_labels_is_told(streamed: int, tmp_path: Path) -> None:
    lists: list[Any] = [["1.jpg", "2.jpg"], ["cat", "dog"]]
    lists[streamed] = iter(lists[streamed])
    with pytest.raises(SourceError, match="A list_iterator is no source of labelled photos"):
        open_source(tuple(lists), cache=tmp_path)


def test_torchvisions_transforms_and_subsets_keep_the_names_of_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    transforms = pytest.importorskip("torchvision.transforms")
    data = pytest.importorskip("torch.utils.data")
    root = image_files(tmp_path / "photos")
    whole = datasets.ImageFolder(root, transform=transforms.ToTensor())
    source = opened(data.Subset(whole, [5, 0]), tmp_path, test=whole)
    assert [(row.path, row.label, row.side) for row in source.rows][:3] == [
        ("dataset[0]", "dog", "train"),
        ("dataset[1]", "cat", "train"),
        ("test/dataset[0]", "cat", "test"),
    ]
    with Image.open(root / "dog" / "2.png") as image:
        assert np.array_equal(pixels(source.read(source.rows[0])), np.asarray(image))


def test_hugging_face_images_are_not_decoded(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    root = image_files(tmp_path / "photos")
    files = sorted(root.rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"image": [{"bytes": path.read_bytes(), "path": None} for path in files], "label": [0, 0, 0, 1, 1, -1]}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    dataset.set_transform(lambda batch: pytest.fail(f"decoded {len(batch)}"))
    source = opened(dataset, tmp_path)
    assert source.layout == "huggingface"
    assert [row.label for row in source.rows] == ["cat", "cat", "cat", "dog", "dog"]
    assert source.skipped == [Skip("dataset[5]", "has no label")]
    assert [source.read(row) for row in source.rows] == [path.read_bytes() for path in files[:5]]


def test_a_hugging_face_column_of_lists_is_several_labels_a_photo(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in sorted(image_files(tmp_path / "photos").rglob("*.png"))][:3]
    lists = [
        (datasets.Value("string"), [["red", "round"], ["round"], []]),
        (datasets.ClassLabel(names=["red", "round"]), [[0, 1], [1], []]),
    ]
    for kind, labels in lists:
        features = datasets.Features({"image": datasets.Image(), "labels": datasets.Sequence(kind)})
        dataset = datasets.Dataset.from_dict({"image": files, "labels": labels}, features=features)
        assert [row.label for row in opened(dataset, tmp_path).rows] == ["red;round", "round;", ";"]


def test_hugging_face_columns_by_other_names_and_several_sides(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in sorted(image_files(tmp_path / "photos").rglob("*.png"))]
    side = datasets.Dataset.from_dict({"img": files, "category": list("aaabbb")}).cast_column("img", datasets.Image())
    source = opened(datasets.DatasetDict({"train": side, "test": side}), tmp_path)
    assert Counter((row.label, row.side) for row in source.rows) == Counter(
        {(label, side): 3 for label in "ab" for side in ("train", "test")}
    )
    assert source.read(source.rows[0]) == Path(files[0]).read_bytes()
    with pytest.raises(SourceError, match="no image column"):
        opened(side.remove_columns("img"), tmp_path)


# -- names, size, real photos


@given(st.text())
def test_short_names_can_name_a_folder(text: str) -> None:
    name = short_name(text)
    assert 0 < len(name) <= 60
    assert name.isascii()
    assert "/" not in name
    assert not name.startswith(".")


@pytest.mark.slow
def test_a_hundred_thousand_files_take_little_memory(tmp_path: Path) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    for folder in range(100):
        (tmp_path / "photos" / f"class {folder}").mkdir(parents=True)
        for i in range(1000):
            os.close(os.open(tmp_path / "photos" / f"class {folder}" / f"photo_{i:04}.jpg", os.O_CREAT))
    tracemalloc.start()
    source = opened(tmp_path / "photos", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source.rows) == 100_000
    assert peak < 60e6  # bytes; the paths alone are 8


@pytest.mark.realdata
@needs_data
@pytest.mark.parametrize(
    ("folder", "layout", "n", "classes"),
    [
        ("dogscats", "folders", 1399, {"cat", "dog"}),
        ("flowers", "folders", 4317, {"daisy", "dandelion", "rose", "sunflower", "tulip"}),
        ("hymenoptera", "split", 398, {"ants", "bees"}),
        ("hymenoptera/train", "folders", 245, {"ants", "bees"}),
    ],
)
def test_real_photos_are_recognised(tmp_path: Path, folder: str, layout: str, n: int, classes: set[str]) -> None:
    source = opened(DATA / folder, tmp_path)
    assert (source.layout, len(source.rows), {row.label for row in source.rows}) == (layout, n, classes)


@pytest.mark.parametrize("names", [{"source": ""}, {"source": ".", "valid": ""}, {"source": ".", "test": " "}])
def test_an_empty_name_is_not_the_current_folder(names: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="A name of photos is empty"):
        open_source(names.pop("source"), cache=tmp_path, **names)


def test_corrections_of_several_models_are_not_taken_for_classes(tmp_path: Path) -> None:
    for model in ("pets", "wild"):
        make_photos(tmp_path / "feedback" / model, {"red": 2, "blue": 2})
        (tmp_path / "feedback" / model / ".feedback.lock").touch()
    with pytest.raises(SourceError, match="each model by itself: pets, wild") as error:
        open_source(tmp_path / "feedback", cache=tmp_path)
    assert f"rehead tune {tmp_path / 'feedback' / 'pets'}" in error.value.fix
    assert len(open_source(tmp_path / "feedback" / "pets", cache=tmp_path).rows) == 4


def test_a_run_among_the_photos_is_left_out(tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg", "runs/a/recipe.toml", "runs/a/bundle/neighbours.jpg")
    (photos / "runs" / "a" / "catalog.csv").write_text("path,label\n../../cat/1.jpg,cat\n")
    (photos / "b").mkdir()
    (photos / "b" / "recipe.toml").write_text("")
    (photos / "b" / "catalog.csv").write_text("path,label\ngone.jpg,cat\n")
    source = opened(photos, tmp_path)
    assert [row.path for row in source.rows] == ["cat/1.jpg", "dog/1.jpg"]
    assert [(skip.path, skip.reason) for skip in source.skipped] == [
        ("b", "is a run of rehead"), ("runs/a", "is a run of rehead")
    ]  # fmt: skip


def test_a_catalog_does_not_keep_the_rows_it_was_made_of(tmp_path: Path) -> None:
    """Of many photos they take as much memory as it does."""
    source = open_source(make_photos(tmp_path / "photos", {"red": 10, "blue": 10}), cache=tmp_path)
    rows = weakref.ref(source.rows)
    catalog = scan(source, seed=0, valid_fraction=0.3)
    del source
    gc.collect()
    assert rows() is None
    assert catalog.read(catalog.photos[0])
