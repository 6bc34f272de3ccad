"""A photo's side comes from its own bytes; copies and groups stay together; orders and folds are fair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rehead.begin import about
from rehead.data.catalog import as_csv
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.data.split import fold_numbers, side_of, split_keys, stratified_order
from rehead.errors import SplitError
from rehead.verdict.notes import notes_on


def colourful(folder: Path, counts: dict[str, int]) -> Path:
    """Pictures of noise, a folder for each class."""
    random = np.random.default_rng(0)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / label / f"{i}.png")
    return folder


keys = st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=60, unique=True)


@given(keys, keys, st.integers(0, 99))
def test_a_side_does_not_move_when_photos_come_and_go(some: list[bytes], others: list[bytes], seed: int) -> None:
    alone = {key: side_of(key, seed=seed, valid_fraction=0.2) for key in some}
    together = {key: side_of(key, seed=seed, valid_fraction=0.2) for key in [*others, *some]}
    assert all(together[key] == side for key, side in alone.items())


def test_a_fifth_is_held_out_in_expectation() -> None:
    held_out = [side_of(str(i).encode(), seed=1, valid_fraction=0.2) == "valid" for i in range(20_000)]
    assert 0.19 < np.mean(held_out) < 0.21


def test_groups_that_share_bytes_are_tied() -> None:
    a, b, c, *_ = split_keys([b"1", b"1", b"2", b"3"], ["x", "y", "y", "z"])
    assert a == b == c
    assert split_keys([b"1", b"1"], [None, None]) == [b"1", b"1"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=60), st.integers(2, 6))
def test_no_fold_holds_all_photos_of_a_class_whatever_the_groups(photos: list[tuple[int, int]], n_folds: int) -> None:
    groups = [bytes([group]) for group, _ in photos]
    labels = np.array([label for _, label in photos], np.int64)
    folds = fold_numbers(groups, labels, n_folds=n_folds, seed=0)
    assert all(len({fold for fold, own in zip(folds, groups, strict=True) if own == group}) == 1 for group in groups)
    for label in set(labels.tolist()):
        mine = set(folds[labels == label].tolist())
        assert mine == {-1} or len(mine) > 1


@given(keys, st.integers(2, 6), st.integers(0, 9))
def test_folds_are_even_in_every_class(some: list[bytes], n_folds: int, seed: int) -> None:
    labels = np.array([key[0] % 3 for key in some], np.int64)
    folds = fold_numbers(some, labels, n_folds=n_folds, seed=seed)
    for label in set(labels.tolist()):
        mine = folds[labels == label]
        if len(mine) == 1:
            assert mine[0] == -1
        else:
            counts = np.bincount(mine, minlength=n_folds)
            assert counts.max() - counts.min() <= 1


def test_a_twentieth_of_small_classes_is_a_twentieth() -> None:
    """Of ten classes of nine photos each, none of which fills twenty folds."""
    folds = fold_numbers([str(i).encode() for i in range(90)], np.arange(90) % 10, n_folds=20, seed=0)
    counts = np.bincount(folds, minlength=20)
    assert (counts.min(), counts.max()) == (4, 5)


@given(keys, st.integers(0, 9))
def test_every_beginning_of_the_order_is_in_proportion(some: list[bytes], seed: int) -> None:
    strata = [key[0] % 2 for key in some]
    order = stratified_order(np.array(strata), some, seed=seed, floor=1)
    assert sorted(order.tolist()) == list(range(len(some)))
    first = [strata[i] for i in order[: len(set(strata))]]
    assert set(first) == set(strata)
    for end in range(1, len(some) + 1):
        for stratum in set(strata):
            share = sum(strata[i] == stratum for i in order[:end]) / strata.count(stratum)
            assert abs(share - end / len(some)) <= 3 / strata.count(stratum)


def scanned(folder: Path, **settings: object) -> object:
    return scan(open_source(folder, cache=folder.parent / "cache", **settings), seed=0, valid_fraction=0.3)  # type: ignore[arg-type]


def test_copies_count_once_and_bytes_with_two_labels_are_left_out(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "3.png").read_bytes())
    (photos / "blue" / "stranger.png").write_bytes((photos / "red" / "5.png").read_bytes())
    catalog = scanned(photos)
    assert len(catalog.photos) == 23  # type: ignore[attr-defined]
    assert [skip.path for skip in catalog.copies] in (["red/copy.png"], ["red/3.png"])  # type: ignore[attr-defined]
    assert {skip.path for skip in catalog.skipped} == {"red/5.png", "blue/stranger.png"}  # type: ignore[attr-defined]


def test_a_held_out_photo_that_is_also_learned_from_is_named(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "data" / "train", {"red": 8, "blue": 8})
    held_out = make_photos(tmp_path / "data" / "val", {"green": 0, "red": 2})
    (held_out / "green").rmdir()
    (held_out / "blue").mkdir()
    (held_out / "blue" / "leak.png").write_bytes((photos / "blue" / "1.png").read_bytes())
    catalog = scanned(tmp_path / "data")
    train, held = catalog.on("train"), catalog.on("valid")  # type: ignore[attr-defined]
    leaks = catalog.leaks(train, held)  # type: ignore[attr-defined]
    assert leaks == ("val/blue/leak.png",)
    notes = notes_on(catalog, held, np.eye(2)[catalog.labels(held)], leaks)  # type: ignore[arg-type,attr-defined]
    assert notes == ("1 of the held-out photos is byte for byte in the training side too.",)


def test_probabilities_worse_than_none_are_named_and_others_are_not(tmp_path: Path) -> None:
    catalog = scanned(colourful(tmp_path / "photos", {"red": 12, "blue": 12}))
    held = catalog.on("valid")  # type: ignore[attr-defined]
    right = np.eye(2)[catalog.labels(held)]  # type: ignore[attr-defined]
    assert notes_on(catalog, held, 9 * right, ()) == ()  # type: ignore[arg-type]
    right[0] = 9 * (1 - right[0])  # one that it is all but sure of, and wrong about
    (note,) = notes_on(catalog, held, right, ())  # type: ignore[arg-type]
    loss = (9 + np.log1p(np.exp(-9)) + (len(held) - 1) * np.log1p(np.exp(-1))) / len(held)
    assert note == (
        "Its probabilities are worse than none: to give all 2 classes the same on every photo would have a log-loss of 0.693, "
        f"these have {loss:.3f}."
    )


def test_a_leak_is_of_photos_that_are_learned_from_and_judged(tmp_path: Path) -> None:
    photos = colourful(tmp_path / "data" / "train", {"red": 8, "blue": 8})
    colourful(tmp_path / "data" / "val", {"red": 8, "blue": 8})
    for number, label in enumerate(("red", "blue")):
        for i in range(4):
            picture = np.random.default_rng(1 + number).integers(0, 256, (16 + i, 16, 3), np.uint8)
            place = tmp_path / "data" / "test" / label / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place)
    catalog = scanned(tmp_path / "data")
    train, held_out = catalog.on("train"), catalog.on("test")  # type: ignore[attr-defined]
    assert catalog.leaks(train, held_out) == ()  # type: ignore[attr-defined]
    assert " also " not in about(catalog)  # type: ignore[arg-type]
    (photos / "red" / "leak.png").write_bytes((tmp_path / "data" / "test" / "red" / "2.png").read_bytes())
    catalog = scanned(tmp_path / "data")
    train, held_out = catalog.on("train"), catalog.on("test")  # type: ignore[attr-defined]
    assert catalog.leaks(train, held_out) == ("test/red/2.png",)  # type: ignore[attr-defined]
    assert "1 held-out photo is also a training photo" in about(catalog)  # type: ignore[arg-type]
    learned = [i for i in train if catalog.photos[i].path != "train/red/leak.png"]  # type: ignore[attr-defined]
    assert catalog.leaks(learned, held_out) == ()  # type: ignore[attr-defined]


def test_a_catalog_is_a_manifest_that_gives_the_same_photos(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 15, "blue": 15})
    catalog = scanned(photos)
    (photos / "catalog.csv").write_text("".join(as_csv(catalog.photos)))  # type: ignore[attr-defined]
    again = scan(open_source(photos / "catalog.csv", cache=tmp_path), seed=9, valid_fraction=0.5)
    assert [(p.path, p.label, p.side, p.digest) for p in again.photos] == [
        (p.path, p.label, p.side, p.digest)
        for p in catalog.photos  # type: ignore[attr-defined]
    ]


@pytest.mark.realdata
def test_ants_and_bees_keep_the_split_they_come_with(data: Path, tmp_path: Path) -> None:
    catalog = scan(open_source(data / "hymenoptera", cache=tmp_path), seed=0, valid_fraction=0.2)
    assert (len(catalog.on("train")), len(catalog.on("valid"))) == (245, 153)


def manifest(folder: Path, header: str, cells: Callable[[int], str]) -> Path:
    """A manifest of 24 photos, each with what `cells` gives for its number behind path and label."""
    photos = make_photos(folder / "photos", {"red": 12, "blue": 12})
    paths = sorted(photos.glob("*/*.png"))
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name},{cells(i)}" for i, path in enumerate(paths)]
    (folder / "photos.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "photos.csv"


def test_a_group_on_both_sides_of_a_given_split_is_named(tmp_path: Path) -> None:
    path = manifest(
        tmp_path, "path,label,split,group", lambda i: f"{'test' if i % 3 == 0 else 'train'},patient {i // 2}"
    )
    catalog = scanned(path)
    assert catalog.torn_groups[:2] == ("patient 0", "patient 1")  # type: ignore[attr-defined]
    assert scanned(manifest(tmp_path / "apart", "path,label,split,group", lambda i: f"{'test' if i % 3 == 0 else 'train'},{i}")
                   ).torn_groups == ()  # type: ignore[attr-defined]  # fmt: skip


def test_of_torn_groups_those_are_told_whose_photos_are_judged(tmp_path: Path) -> None:
    def cells(i: int) -> str:
        return f"{'test' if i % 3 == 0 else 'train'},patient {i // 2 if i < 12 else i}"

    catalog: Any = scanned(manifest(tmp_path, "path,label,split,group", cells))
    torn = next(i for i in catalog.on("test") if catalog.photos[i].group == "patient 1")
    whole = next(i for i in catalog.on("test") if catalog.photos[i].group not in catalog.torn_groups)
    notes = [notes_on(catalog, [i], np.eye(2)[catalog.labels([i])], ())[0] for i in (torn, whole)]
    assert notes[0] == "1 held-out photo of 1 group that the training side has too: patient 1."
    assert "group" not in notes[1]


def test_photos_without_a_split_in_a_manifest_are_counted(tmp_path: Path) -> None:
    catalog = scanned(manifest(tmp_path, "path,label,split", lambda i: ("test", "train", "")[i % 3]))
    assert catalog.n_unsided == 8  # type: ignore[attr-defined]
    with pytest.raises(SplitError) as caught:
        scanned(manifest(tmp_path / "train", "path,label,split", lambda i: ("train", "")[i % 2]))
    assert caught.value.why == (
        "The source gives sides, and all of them are the training side: 12 of 24 photos have no split, which counts as train."
    )


def test_photos_of_one_group_cannot_be_split_and_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(SplitError) as caught:
        scanned(manifest(tmp_path, "path,label,group", lambda i: "patient 7"))
    assert caught.value.why == "Photos of one group stay on one side, and all 24 are of the group 'patient 7'."
    with pytest.raises(SplitError) as caught:
        scanned(manifest(tmp_path / "two", "path,label,group", lambda i: "A" if i < 12 else f"B{i}"))
    assert caught.value.what.startswith("The class 'blue' is too small to be split: 12 photos, none ")
    assert caught.value.why == (
        "Two classes with held-out photos are needed, and its 12 photos are of one group, which stays on one side."
    )


def test_a_class_that_no_dice_can_hold_out_is_not_told_to_throw_them_again(tmp_path: Path) -> None:
    photos = colourful(tmp_path / "photos", {"cat": 10, "dog": 1})
    for seed in range(3):
        with pytest.raises(SplitError) as caught:
            scan(open_source(photos, cache=tmp_path), seed=seed, valid_fraction=0.5)
        assert caught.value.what == "The class 'dog' is too small to be split: 1 photo, none held out."
        assert caught.value.why == (
            "Two classes with held-out photos are needed, and it is learned from its one photo."
        )
        assert caught.value.fix == "Add photos of it, or name held-out photos with --valid DIR."
    rows = ["a,g", "b,g", "a,h", "c,h", *["d,"] * 6]  # a has two groups, and neither b nor c another
    (photos / "table.csv").write_text(
        "path,label,group\n" + "".join(f"cat/{i}.png,{row}\n" for i, row in enumerate(rows))
    )
    with pytest.raises(SplitError) as caught:
        scan(open_source(photos / "table.csv", cache=tmp_path), seed=0, valid_fraction=0.2)
    assert caught.value.what == "The class 'a' is too small to be split: 2 photos, none held out."
    assert caught.value.why == (
        "Two classes with held-out photos are needed, and without a group that it has photos in another could not be learned."
    )


def test_a_class_whose_groups_others_need_to_be_learned_is_held_out_where_it_can_be(tmp_path: Path) -> None:
    photos = colourful(tmp_path / "photos", {"cat": 4})
    table = tmp_path / "photos" / "table.csv"
    rows = ["a,K1", "b,K1", "a,K2", "b,K3"]
    table.write_text("path,label,group\n" + "".join(f"cat/{i}.png,{row}\n" for i, row in enumerate(rows)))
    source = open_source(photos / "table.csv", cache=tmp_path)
    for seed in range(12):
        catalog = scan(source, seed=seed, valid_fraction=0.8)
        for side in ("train", "valid"):
            assert {photo.label for photo in catalog.photos if photo.side == side} == {"a", "b"}, seed


def test_a_split_that_is_all_test_is_told_to_give_some_for_training(tmp_path: Path) -> None:
    with pytest.raises(SplitError) as caught:
        scanned(manifest(tmp_path, "path,label,split", lambda i: "test"))
    assert caught.value.what == "No photo is left to learn from."
    assert caught.value.why == "The source gives sides, and all 24 photos are of test."
    assert "leave the split out" in caught.value.fix
    make_photos(tmp_path, {"red": 1})
    (tmp_path / "one.csv").write_text("path,label,split\nred/0.png,red,test\n")
    with pytest.raises(SplitError) as caught:
        scanned(tmp_path / "one.csv")
    assert caught.value.why == "The source gives sides, and the one photo is of test."


def test_classes_that_only_held_out_photos_have_are_counted(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    other = make_photos(tmp_path / "other", {"red": 2, "green": 3})
    source = open_source(photos, valid=other, cache=tmp_path / "cache")
    catalog = scan(source, seed=0, valid_fraction=0.2)
    assert (catalog.classes, catalog.strangers) == (("blue", "red"), {"green": 3})


def test_held_out_photos_under_other_names_are_told_apart_from_none(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 6, "blue": 6})
    held = make_photos(tmp_path / "held", {"green": 6, "grey": 6})
    (held / "green").rename(held / "Red")
    (held / "grey").rename(held / "Blue")
    with pytest.raises(SplitError) as told:
        scan(open_source(photos, test=held, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    assert told.value.what == "No held-out photo has a class that is learned, so nothing could be verified."
    assert told.value.why == "Held out are 'Blue', 'Red'; learned are 'blue', 'red'."


def test_each_class_of_a_few_photos_has_some_on_both_sides(tmp_path: Path) -> None:
    photos = colourful(tmp_path / "photos", {f"class {i}": 2 + i % 3 for i in range(40)})
    catalog = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    for side in ("train", "valid"):
        assert {photo.label for photo in catalog.photos if photo.side == side} == set(catalog.classes)


def test_a_photo_that_comes_later_moves_none_of_a_small_class_to_the_held_out_side(tmp_path: Path) -> None:
    photos = colourful(tmp_path / "photos", {f"class {i}": 6 for i in range(20)})
    later = [tmp_path / "photos" / f"class {i}" / "5.png" for i in range(20)]
    away = [path.rename(tmp_path / f"{i}.png") for i, path in enumerate(later)]
    before = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    for path, there in zip(away, later, strict=True):
        path.rename(there)
    after = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    side = {photo.digest: photo.side for photo in after.photos}
    moved = [photo for photo in before.photos if side[photo.digest] != photo.side]
    alone = {name for name in before.classes if sum(p.side == "valid" for p in before.photos if p.label == name) == 1}
    assert all(photo.side == "valid" and photo.label in alone for photo in moved)


def test_a_class_of_one_photo_is_learned_and_the_verdict_says_that_none_shows_it(tmp_path: Path) -> None:
    photos = colourful(tmp_path / "photos", {"cat": 8, "dog": 8, "Cat": 1})
    catalog = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    (alone,) = [photo for photo in catalog.photos if photo.label == "Cat"]
    assert alone.side == "train"
    held_out = list(catalog.on("valid"))
    notes = notes_on(catalog, held_out, np.eye(3)[catalog.labels(held_out)], ())
    assert notes == ("No held-out photo shows Cat. 'Cat' and 'cat' are two classes: names count letter by letter.",)
    with pytest.raises(SplitError) as caught:
        scan(
            open_source(colourful(tmp_path / "ones", {"a": 1, "b": 1}), cache=tmp_path / "cache"),
            seed=0,
            valid_fraction=0.2,
        )
    assert caught.value.why == "Each of the 2 classes has one photo, from which it is learned."


@pytest.mark.parametrize(
    ("labels", "task"), [("0.5 1.5 2 3 4 5 6 7", "regression"), ("a a;b b a;b a b c;a c;b", "multilabel")]
)
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_of_a_few_photos_with_numbers_or_several_labels_some_are_on_both_sides(
    labels: str, task: str, fraction: float, tmp_path: Path
) -> None:
    colourful(tmp_path, {"": 8})
    lines = [f"{i}.png,{label}" for i, label in enumerate(labels.split())]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    source = open_source(tmp_path / "table.csv", cache=tmp_path / "cache")
    for seed in range(60):
        catalog = scan(source, seed=seed, valid_fraction=fraction, is_learned=False)
        assert catalog.task == task
        assert catalog.on("valid")
        assert not catalog.unlearnable(catalog.on("train")) or task == "multilabel"
        drawn = [side_of(photo.digest, seed=seed, valid_fraction=fraction) for photo in catalog.photos]
        n_moved = sum(photo.side != side for photo, side in zip(catalog.photos, drawn, strict=True))
        assert n_moved <= (0 if drawn.count("train") > 1 and "valid" in drawn else 2) or task == "multilabel"


def test_photos_of_one_number_are_told_to_have_no_other(tmp_path: Path) -> None:
    colourful(tmp_path, {"": 6})
    lines = [f"{i}.png,{number}" for i, number in enumerate(["1.5"] * 6)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    for seed in range(20):
        with pytest.raises(SplitError, match="do not differ in their labels"):
            scan(open_source(tmp_path / "table.csv", cache=tmp_path / "cache"), seed=seed, valid_fraction=0.2)


def test_a_group_of_two_classes_is_held_out_only_where_both_keep_photos_to_learn_from(tmp_path: Path) -> None:
    labels, groups = ["a", "b", "a", "b", "a", "b", *"cccc"], ["g1", "g1", "g2", "g2", "g3", "g3", *"wxyz"]
    rows = [f"{i}.png,{label},{group}" for i, (label, group) in enumerate(zip(labels, groups, strict=True))]
    colourful(tmp_path, {"": len(rows)})
    (tmp_path / "table.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    for seed in range(30):
        catalog = scan(open_source(tmp_path / "table.csv", cache=tmp_path / "cache"), seed=seed, valid_fraction=0.2)
        for side in ("train", "valid"):
            assert {photo.label for photo in catalog.photos if photo.side == side} == {"a", "b", "c"}
        for group in ("g1", "g2", "g3"):
            assert len({photo.side for photo in catalog.photos if photo.group == group}) == 1
