"""The label column: which task it tells, what is learned of it, and how catalogs of each task are checked."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos, noise
from hypothesis import given
from hypothesis import strategies as st

from rehead.data.catalog import Catalog
from rehead.data.scan import scan, scan_held_out
from rehead.data.sources import open_source
from rehead.data.split import fold_numbers
from rehead.data.targets import MANY_NUMBERS, classes_of, label_for, names_in, strata_of, targets_of, task_of
from rehead.errors import SourceError, SplitError


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["cat", "dog"], "classification"),
        (["cat", "dog;cat", ""], "multilabel"),
        (["1", "2;3"], "multilabel"),
        (["0", "1", "2"], "classification"),
        (["0.5", "1", "2"], "regression"),
        (["-1.5e-3", "7"], "regression"),
        (["1.5", "cat"], "classification"),
        ([str(2 * i) for i in range(MANY_NUMBERS)], "classification"),
        ([str(2 * i) for i in range(MANY_NUMBERS + 1)], "regression"),
        ([str(i) for i in range(100)], "classification"),
        ([str(i) for i in range(1, 101)], "classification"),
        ([str(i) for i in range(5, 105)], "regression"),
        (["nan", "inf", "1.5"], "classification"),
        (["1_000.5", "2"], "classification"),
        ([], "classification"),
    ],
)
def test_the_labels_tell_the_task(labels: list[str], task: str) -> None:
    assert task_of(labels, "manifest") == task


@pytest.mark.parametrize("layout", ["folders", "split", "flat"])
def test_names_of_folders_and_files_are_classes(layout: str) -> None:
    assert task_of(["red;round", "0.5"], layout) == "classification"


def test_a_label_is_kept_in_one_way() -> None:
    assert label_for("multilabel", " round; red;;red ") == "red;round"
    assert label_for("multilabel", "") == ""
    assert label_for("regression", "3.50") == "3.5"
    assert label_for("regression", "3.0") == label_for("regression", "3") == "3"
    assert label_for("classification", "red;round") == "red;round"
    with pytest.raises(ValueError, match="has no label"):
        label_for("regression", "")
    with pytest.raises(ValueError, match="'tall', which is no number"):
        label_for("regression", "tall")


names = st.text(st.characters(categories=["L"]), min_size=1, max_size=4)


@given(st.lists(st.sets(names, max_size=4), min_size=1, max_size=20))
def test_targets_hold_the_labels_they_were_made_of(sets: list[set[str]]) -> None:
    labels = [label_for("multilabel", ";".join(s)) for s in sets]
    classes = classes_of(labels, "multilabel")
    targets = targets_of(labels, "multilabel", classes)
    assert targets.shape == (len(sets), len(classes))
    assert [{classes[i] for i in np.flatnonzero(row)} for row in targets] == sets
    assert [set(names_in(label)) for label in labels] == sets


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_bins_of_numbers_are_of_one_size_and_in_order(values: list[float]) -> None:
    labels = [label_for("regression", str(value)) for value in values]
    strata = strata_of(labels, "regression", ())
    sizes = np.bincount(strata)
    assert sizes.max() - sizes.min() <= 1
    order = np.argsort(targets_of(labels, "regression", ()), kind="stable")
    assert (np.diff(strata[order]) >= 0).all()


def test_folds_hold_every_set_of_labels_and_every_label_in_proportion() -> None:
    random = np.random.default_rng(0)
    labels = [";".join(np.array(list("abcd"))[random.random(4) < (0.5, 0.3, 0.1, 0.06)]) for _ in range(400)]
    strata = strata_of(labels, "multilabel", "abcd")
    folds = fold_numbers([str(i).encode() for i in range(400)], strata, n_folds=5, seed=0)
    assert set(folds) == {0, 1, 2, 3, 4}
    targets = targets_of(labels, "multilabel", "abcd")
    for column in targets.T:
        shares = [column[folds == fold].mean() for fold in range(5)]
        assert max(shares) - min(shares) < 0.09


def test_a_label_that_one_photo_has_is_still_in_a_fold() -> None:
    strata = strata_of(["a"] * 20 + ["b"] * 20 + ["c", "d"], "multilabel", "abcd")
    assert strata[-1] == strata[-2]


def manifest(folder: Path, labels: list[str], header: str = "path,label") -> Path:
    """Photos with these labels and their manifest. A label may be followed by its cells for other columns."""
    folder.mkdir(exist_ok=True)
    with (folder / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for i, label in enumerate(labels):
            noise(i, (90, 90, 90), size=16).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", *label.split("|")])
    return folder / "photos.csv"


def scanned(source: object, task: str = "auto") -> Catalog:
    return scan(open_source(source, cache=Path("cache"), task=task), seed=0, valid_fraction=0.3, task=task)


def test_a_photo_without_a_label_is_one_of_several_labels(tmp_path: Path) -> None:
    catalog = scanned(manifest(tmp_path / "p", ["b;a", "a", "", "b"] * 8))
    assert (catalog.task, catalog.classes, len(catalog.photos)) == ("multilabel", ("a", "b"), 32)
    np.testing.assert_array_equal(catalog.labels([0, 1, 2, 3]), [[1, 1], [1, 0], [0, 0], [0, 1]])
    assert catalog.photos[0].label == "a;b"


def test_what_is_asked_for_goes_before_what_the_labels_tell(tmp_path: Path) -> None:
    path = manifest(tmp_path / "p", ["3", "1", "2", "4"] * 8)
    assert scanned(path).task == "classification"
    numbers = scanned(path, "regression")
    assert (numbers.task, numbers.classes, numbers.n_outputs) == ("regression", (), 1)
    np.testing.assert_array_equal(numbers.labels([0, 1]), [3, 1])
    several = scanned(manifest(tmp_path / "q", ["a", "b", ""] * 8), "multilabel")
    assert several.labels([0, 2]).tolist() == [[1, 0], [0, 0]]
    assert scanned(manifest(tmp_path / "r", ["a;b", "c"] * 12), "classification").classes == ("a;b", "c")


def test_lists_of_labels_are_several_labels(tmp_path: Path) -> None:
    manifest(tmp_path / "p", ["x"] * 30)
    paths = [tmp_path / "p" / f"{i}.png" for i in range(30)]
    assert scanned((paths, [["a", "b"], ["b"], []] * 10)).classes == ("a", "b")


def test_what_is_no_number_is_skipped_with_the_reason(tmp_path: Path) -> None:
    catalog = scanned(manifest(tmp_path / "p", ["1.5", "2.5", "3"] * 8 + ["tall"]), "regression")
    assert len(catalog.photos) == 24
    assert [skip.reason for skip in catalog.skipped] == ["has the label 'tall', which is no number"]
    catalog = scanned(manifest(tmp_path / "r", ["1.5", "2.5", "3"] * 8 + ["1e300"]), "regression")
    assert [skip.reason for skip in catalog.skipped] == ["has the label '1e300', which is too large a number"]
    with pytest.raises(SplitError, match="nearly all are numbers") as caught:
        scanned(manifest(tmp_path / "s", [f"{i}.5" for i in range(40)] + ["n/a"]), "auto")
    assert "'n/a'" in caught.value.why
    with pytest.raises(SourceError, match=r"No photo of .* has a label that can be used"):
        scanned(manifest(tmp_path / "q", ["a", "b"] * 8), "regression")
    folders = make_photos(tmp_path / "folders", {"red": 1, "blue": 1})
    shutil.copy(folders / "red" / "0.png", folders / "loose.png")
    with pytest.raises(SourceError, match="has a label that can be used") as told:
        scan(open_source(folders, cache=tmp_path), seed=0, valid_fraction=0.2, task="regression")
    assert told.value.why == (
        "blue/0.png has the label 'blue', which is no number; red/0.png has the label 'red', which is no number"
    )


@pytest.mark.parametrize(
    ("labels", "what", "why"),
    [
        ([f"{i},5" for i in range(40)], "'0,5', .* are numbers with a comma", "A number has a point here: 0.5."),
        (
            [f"{i},069.42" for i in range(1, 30)] + [f"{i}.5" for i in range(10)],
            "'1,069.42', .* are numbers with a comma",
            "A number has no comma between its thousands here: 1069.42.",
        ),
        ([f"{i}.5" for i in range(40)] + ["n/a"], "Of 41 classes nearly all are numbers", "No numbers are 'n/a'"),
    ],
)
def test_numbers_that_a_mistake_makes_names_are_told_also_where_the_sides_are_given(
    labels: list[str], what: str, why: str, tmp_path: Path
) -> None:
    sides = [f"{label}|{side}" for side in ("train", "test") for label in labels]
    with pytest.raises(SplitError, match=what) as caught:
        scanned(manifest(tmp_path / "p", sides, "path,label,split"))
    assert why in caught.value.why


def test_classes_that_are_called_by_numbers_are_no_mistake(tmp_path: Path) -> None:
    gapless, codes = [[*map(str, range(1, 41)), "none"] * 2, [*map(str, range(100, 300, 5)), "none"] * 2]
    assert len(scanned(manifest(tmp_path / "gapless", gapless)).classes) == 41
    path = manifest(tmp_path / "codes", codes)
    assert len(scanned(path, "classification").classes) == 41
    with pytest.raises(SplitError, match="nearly all are numbers") as caught:
        scanned(path)
    assert "--task classification" in caught.value.fix
    for i, code in enumerate(codes):
        (tmp_path / "folders" / code).mkdir(parents=True, exist_ok=True)
        (tmp_path / "codes" / f"{i}.png").rename(tmp_path / "folders" / code / f"{i}.png")
    assert len(scanned(tmp_path / "folders").classes) == 41


def test_the_same_bytes_with_the_same_labels_in_another_order_are_a_copy(tmp_path: Path) -> None:
    path = manifest(tmp_path / "p", ["a;b", "a", "b", "b;a"] * 6)
    (tmp_path / "p" / "3.png").write_bytes((tmp_path / "p" / "0.png").read_bytes())
    (tmp_path / "p" / "5.png").write_bytes((tmp_path / "p" / "1.png").read_bytes())
    (tmp_path / "p" / "6.png").write_bytes((tmp_path / "p" / "1.png").read_bytes())
    catalog = scanned(path)
    assert [skip.path for skip in catalog.copies] == ["3.png"]
    assert {skip.path for skip in catalog.skipped} == {"1.png", "5.png", "6.png"}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a;b"] * 20, "do not differ in their labels"),
        (["2.5"] * 20, "do not differ in their labels"),
        (["a;b", "a"] * 12, "have the label 'a'"),
    ],
)
def test_what_cannot_be_learned_is_said(tmp_path: Path, labels: list[str], words: str) -> None:
    with pytest.raises(SplitError, match=words):
        scanned(manifest(tmp_path / "p", labels))


@pytest.mark.parametrize("seed", range(8))
def test_two_photos_with_numbers_are_told_to_be_too_few(seed: int, tmp_path: Path) -> None:
    source = open_source(manifest(tmp_path / "p", ["1.5", "2.5"]), cache=tmp_path)
    with pytest.raises(SplitError) as caught:
        scan(source, seed=seed, valid_fraction=0.5)
    assert (caught.value.what, caught.value.why) in (
        ("1 photo is too few to learn from.", "Two with different numbers are needed, and another to hold out."),
        (
            "No photo is held out, so nothing could be verified.",
            "Two different numbers are needed to learn from, and no photo or group can be spared.",
        ),
    )
    assert "dd photos" in caught.value.fix


def test_photos_with_one_label_are_counted_in_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SplitError) as caught:
        scanned(manifest(tmp_path / "p", ["2.5|train"] + ["2.5|test"] * 3, "path,label,split"))
    assert caught.value.what == "The photos to learn from do not differ in their labels."
    assert caught.value.why == "All have the label '2.5': 1 photo."


def test_held_out_photos_with_a_label_that_none_teaches_are_left_out(tmp_path: Path) -> None:
    lines = ["a;b|train", "a|train", "b|train", "a|test", "a;c|test", "c|test", "|test"]
    catalog = scanned(manifest(tmp_path / "p", lines, "path,label,split"))
    assert catalog.classes == ("a", "b")
    assert [skip.path for skip in catalog.skipped] == ["4.png", "5.png"]
    assert [catalog.photos[i].path for i in catalog.on("test")] == ["3.png", "6.png"]


def test_a_held_out_table_may_have_photos_without_labels(tmp_path: Path) -> None:
    train = manifest(tmp_path / "train", ["a;b", "a", "b"] * 4)
    manifest(tmp_path / "test", ["a", ""])
    for i in (0, 1):
        noise(100 + i, (0, 90, 0), size=16).save(tmp_path / "test" / f"{i}.png")
    source = open_source(train, test=tmp_path / "test" / "photos.csv", cache=tmp_path)
    assert len(scan(source, seed=0, valid_fraction=0.2).on("test")) == 2


def test_a_catalog_for_verifying_reads_labels_as_the_task_has_them(tmp_path: Path) -> None:
    path = manifest(tmp_path / "p", ["a", "", "b"])
    catalog = scan_held_out(open_source(path, cache=tmp_path, task="multilabel"), task="multilabel")
    assert [photo.label for photo in catalog.photos] == ["a", "", "b"]
