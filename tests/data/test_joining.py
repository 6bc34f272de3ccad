"""Earlier photos and new ones as one catalog: nothing moves, nothing counts twice, what was held out stays so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import blake3
import pytest
from conftest import make_photos
from hypothesis import given
from hypothesis import strategies as st

from rehead.data.catalog import Catalog
from rehead.data.checks import checked_split
from rehead.data.joining import joined
from rehead.data.rows import Photo
from rehead.data.scan import scan
from rehead.data.small import with_both_sides
from rehead.data.sources import open_source
from rehead.data.split import side_of
from rehead.errors import SplitError

sides = st.sampled_from(["train", "valid", "test"])


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def photos(root: str, facts: list[tuple[int, str, str, str | None]]) -> tuple[Photo, ...]:
    return tuple(
        Photo(f"{root}/{number}", label, side, digest(number), group)
        for number, label, side, group in {fact[0]: fact for fact in facts}.values()
    )


def catalog(photos: tuple[Photo, ...], *, ours: bool = True) -> Catalog:
    labels = tuple(sorted({photo.label for photo in photos}))
    return Catalog(
        "new", "folders", photos, labels, lambda photo: b"new " + photo.digest, ours=ours, is_placed=lambda _: not ours
    )


def join(old: tuple[Photo, ...], new: Catalog, *, ours: bool = True) -> Catalog:
    return joined(new, old, ours, lambda photo: b"old " + photo.digest, lambda photo: True).catalog


def lots(labels: str, some: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[int, str, str, str | None]]]:
    one = st.tuples(st.integers(0, 40), st.sampled_from(labels), some, st.sampled_from([None, None, "g", "h"]))
    return st.lists(one, max_size=30)


@given(lots("ab", st.sampled_from(["train", "valid"])), lots("bc", st.sampled_from(["train", "valid"])))
def test_every_photo_is_there_once_and_no_earlier_one_moves(old: list, new: list) -> None:
    before, added = photos("/old", old), photos("new", new)
    both = join(before, catalog(added))
    assert {photo.digest for photo in both.photos} == {photo.digest for photo in (*before, *added)}
    assert len(both.photos) == len({photo.digest for photo in both.photos})
    side_by_digest = {photo.digest: photo.side for photo in both.photos}
    tied = {photo.digest for photo in (*before, *added) if photo.group is not None}
    assert all(side_by_digest[photo.digest] == photo.side for photo in before if photo.digest not in tied)


@given(lots("ab", st.sampled_from(["train", "valid"])), lots("bc", st.sampled_from(["train", "valid"])))
def test_new_photos_of_one_group_stand_on_one_side(old: list, new: list) -> None:
    both = join(photos("/old", old), catalog(photos("new", [(n, label, "train", group) for n, label, _, group in new])))
    fresh = [photo for photo in both.photos if photo.path.startswith("new")]
    for group in ("g", "h"):
        assert len({photo.side for photo in fresh if photo.group == group}) <= 1


@given(lots("ab", sides), lots("bc", sides))
def test_what_either_holds_out_is_held_out_together(old: list, new: list) -> None:
    before, added = photos("/old", old), photos("new", new)
    both = join(before, catalog(added, ours=False))
    for lot in (before, added):
        side = "test" if any(photo.side == "test" for photo in lot) else "valid"
        held_out = {photo.digest for photo in lot if photo.side == side} - {
            photo.digest for photo in added if lot is before
        }
        assert held_out <= {photo.digest for photo in both.photos if photo.side == both.held_out_side}


@pytest.mark.parametrize("held_out", [["valid"], ["test"], ["valid", "test"]])
def test_sides_that_an_earlier_job_was_given_stay_and_new_photos_are_held_out_where_its_verdict_was(
    held_out: list[str],
) -> None:
    facts = [(label, side) for label in "ab" for side in ("train", *held_out)]
    old = photos("/old", [(n, label, side, None) for n, (label, side) in enumerate(facts)])
    both = join(old, catalog(photos("new", [(20, "c", "train", None), (21, "c", "valid", None)])), ours=False)
    assert not both.ours
    assert both.held_out_side == held_out[-1]
    side_by_digest = {photo.digest: photo.side for photo in both.photos}
    assert all(side_by_digest[photo.digest] == photo.side for photo in old)
    assert (side_by_digest[digest(20)], side_by_digest[digest(21)]) == ("train", held_out[-1])


def test_a_new_label_of_the_same_bytes_counts_and_is_told() -> None:
    old = photos("/old", [(1, "a", "train", None), (2, "b", "train", None)])
    new = photos("new", [(1, "b", "valid", None), (2, "b", "valid", None)])
    found = joined(catalog(new), old, True, lambda _: b"", lambda _: True)
    assert [(photo.label, photo.side) for photo in found.catalog.photos] == [("b", "train"), ("b", "train")]
    assert found.n_again == 2
    assert [(skip.path, skip.reason) for skip in found.corrected] == [("new/1", "was a and is b")]


def test_new_photos_of_a_known_group_go_where_it_stands() -> None:
    old = photos("/old", [(1, "a", "valid", "patient"), (2, "a", "train", None)])
    new = photos("new", [(3, "a", "train", "patient"), (4, "a", "train", "another")])
    sides = {photo.digest: photo.side for photo in join(old, catalog(new)).photos}
    assert (sides[digest(3)], sides[digest(4)]) == ("valid", "train")


def test_each_photo_is_read_where_it_is_from_and_only_earlier_ones_can_be_gone() -> None:
    old, new = photos("/old", [(1, "a", "train", None)]), photos("new", [(2, "b", "train", None)])
    both = join(old, catalog(new))
    assert [both.read(photo) for photo in both.photos] == [b"old " + digest(1), b"new " + digest(2)]
    assert [both.is_gone(photo) for photo in both.photos] == [True, False]


@pytest.mark.parametrize("given_test", ["old", "new"])
def test_a_test_side_of_one_lot_takes_in_what_the_other_holds_out(given_test: str) -> None:
    facts = [(1, "a", "train", None), (2, "a", "valid", None)]
    tested = [(3, "b", "train", None), (4, "b", "test", None)]
    old, new = (tested, facts) if given_test == "old" else (facts, tested)
    both = join(photos("/old", old), catalog(photos("new", new), ours=given_test == "old"))
    assert {photo.digest for photo in both.photos if photo.side == "test"} == {digest(2), digest(4)}


def test_a_photo_that_was_given_no_side_goes_where_it_was_held_out_whatever_others_are_given(tmp_path: Path) -> None:
    make_photos(tmp_path, {"red": 3, "blue": 3})
    make_photos(tmp_path / "later", {"blue": 3, "red": 3})
    shutil.copy(tmp_path / "blue" / "1.png", tmp_path / "later" / "blue" / "copy.png")
    table = [
        "path,label,group",
        "red/0.png,red,",
        "red/1.png,red,",
        "red/2.png,blue,",
        "blue/0.png,blue,g",
        "blue/1.png,blue,",
    ]
    (tmp_path / "table.csv").write_text("\n".join(table))
    opened = open_source(tmp_path / "table.csv", valid=tmp_path / "later", cache=tmp_path / "cache")
    digests = {row.path: blake3.blake3(opened.read(row)).digest() for row in opened.rows}
    known = [digests[path] for path in ("red/0.png", "red/2.png", "blue/1.png")]
    old = [
        *(Photo(f"/old/{i}", "red", "valid", digest) for i, digest in enumerate(known)),
        Photo("/old/3", "blue", "valid", digest(3), "g"),
        *(Photo(f"/old/{i}", ("red", "blue")[i % 2], "train", digest(i)) for i in range(4, 9)),
    ]
    found = scan(
        opened, seed=0, valid_fraction=0.2,
        join=lambda new: joined(new, old, True, lambda _: b"", lambda _: True).catalog,
    )  # fmt: skip
    sides = {photo.digest: photo.side for photo in found.photos}
    assert {sides[digest] for digest in (*known, digests["blue/0.png"])} == {"valid"}
    assert sides[digests["red/1.png"]] == "train"
    assert found.torn_groups == ()
    assert len(found.photos) == len(sides)
    assert [skip.reason for skip in found.copies] == ["is a copy of blue/1.png"]
    assert [{photo.side for photo in group} for group in found.same] == [{"valid"}]
    assert not found.n_unsided


def test_a_side_that_was_given_anew_counts() -> None:
    old = photos("/old", [(1, "a", "valid", None), (2, "a", "train", None), (3, "b", "train", None)])
    new = photos("new", [(1, "a", "train", None), (2, "a", "valid", None), (4, "b", "valid", None)])
    both = join(old, replace(catalog(new, ours=False), is_placed=lambda photo: photo.path != "new/2"))
    assert [(photo.path, photo.side) for photo in both.photos[1:]] == [
        ("new/1", "train"), ("new/2", "train"), ("new/4", "valid"),
    ]  # fmt: skip


def test_of_a_few_new_photos_of_known_classes_those_are_held_out_that_the_dice_say(tmp_path: Path) -> None:
    more = make_photos(tmp_path / "more", {"red": 3, "blue": 3, "green": 3, "grey": 1})
    facts = [(label, side) for label in ("red", "blue", "green", "grey") for side in ("train", "valid")]
    old = photos("/old", [(i, label, side, None) for i, (label, side) in enumerate(facts)])
    for ours in (True, False):
        found = scan(
            open_source(more, cache=tmp_path / "cache"), seed=0, valid_fraction=0.4,
            join=lambda new, ours=ours: joined(new, old, ours, lambda _: b"", lambda _: True).catalog,
        )  # fmt: skip
        assert [*found.photos[: len(old)]] == [*old]
        for photo in found.photos[len(old) :]:
            assert photo.side == side_of(photo.digest, seed=0, valid_fraction=0.4)


@given(lots("ab", st.sampled_from(["train", "valid"])), lots("abc", st.sampled_from(["train", "valid"])), st.booleans())
def test_only_where_a_class_has_no_other_to_learn_from_an_earlier_photo_is(old: list, new: list, ours: bool) -> None:
    before = join(photos("/old", old), catalog(photos("new", new)), ours=ours)
    after = with_both_sides(before, seed=0)
    learned = {photo.label for photo in before.photos if photo.side == "train"}
    moved = [(was, now) for was, now in zip(before.photos, after.photos, strict=True) if was.side != now.side]
    for was, now in moved:
        assert not before.is_placed(was) or (ours and now.side == "train")
        assert now.side == "valid" or was.label not in learned or was.group is not None


@pytest.mark.parametrize("ours", [True, False])
def test_a_new_class_of_photos_that_were_held_out_is_learned_where_they_were_drawn(ours: bool) -> None:
    old = photos("/old", [(n, "a", side, None) for n, side in enumerate(["valid", "valid", "valid", "train"])])
    new = photos("new", [(0, "c", "train", None), (1, "c", "train", None), (8, "a", "train", None)])
    both = with_both_sides(join(old, catalog(new), ours=ours), seed=0)
    assert sorted(photo.side for photo in both.photos if photo.label == "c") == ["train" if ours else "valid", "valid"]


@pytest.mark.parametrize("ours", [True, False])
def test_a_new_class_of_photos_that_were_held_out_is_learned_beside_others_that_are_held_out_by_name(
    ours: bool,
) -> None:
    old = photos("/old", [(n, "a", side, None) for n, side in enumerate(["valid", "valid", "valid", "train"])])
    old += photos("/old", [(4, "a", "valid", "g"), (5, "b", "train", None), (7, "b", "valid", None)])
    rest = [(0, "c", "train", None), (1, "c", "train", None), (2, "a", "train", None), (6, "d", "train", "g")]
    new = catalog(photos("new", [*rest, (8, "c", "valid", None), (9, "a", "valid", None)]), ours=False)
    new = replace(new, is_placed=lambda photo: photo.side == "valid")
    found = join(old, replace(new, same=((new.photos[0], replace(new.photos[0], path="new/copy")),)), ours=ours)
    side_by_number = {int(photo.path.rpartition("/")[2]): photo.side for photo in found.photos}
    assert [side_by_number[n] for n in (0, 1, 2, 6, 8, 9)] == ["train" if ours else "valid", *["valid"] * 5]
    assert {photo.side for photo in found.same[0]} == {side_by_number[0]}
    assert ("c" in checked_split(found, is_told=True).classes) is ours


@pytest.mark.parametrize("ours", [True, False])
def test_of_a_new_class_and_of_one_that_had_a_single_photo_new_ones_go_to_the_other_side(ours: bool) -> None:
    old = photos("/old", [(1, "a", "train", None), (2, "b", "train", None), (3, "b", "valid", None)])
    new = photos("new", [(n, "ca"[n % 2], "valid" if n % 2 == 0 else "train", None) for n in range(4, 10)])
    both = with_both_sides(join(old, catalog(new), ours=ours), seed=0)
    assert [*both.photos[:3]] == [*old]
    for label in "abc":
        assert {photo.side for photo in both.photos if photo.label == label} == {"train", "valid"}


def test_a_class_that_is_too_small_beside_earlier_photos_is_not_told_to_be_drawn_otherwise() -> None:
    old = photos("/old", [(1, "a", "train", None), (2, "a", "valid", None)])
    both = join(old, catalog(photos("new", [(3, "b", "train", None)])))
    with pytest.raises(SplitError, match="'b' is too small") as caught:
        checked_split(with_both_sides(both, seed=0), is_told=True)
    assert caught.value.why == "Two classes with held-out photos are needed, and it is learned from its one photo."
    assert caught.value.fix == "Add photos of it, or name held-out photos with --valid DIR."
    old += photos("/old", [(4, "b", "train", None), (5, "b", "train", None)])
    both = join(old, catalog(photos("new", [(6, "a", "train", None)])))
    with pytest.raises(SplitError, match=r"(?s)'b' is too small .* an earlier job learned from its photos."):
        checked_split(with_both_sides(both, seed=0), is_told=True)


def test_a_photo_that_is_there_again_keeps_its_group_unless_it_has_another_now() -> None:
    old = photos(
        "/old", [(1, "a", "valid", "g"), (2, "a", "valid", "g"), (3, "b", "train", "h"), (4, "b", "train", None)]
    )
    new = photos(
        "new", [(1, "b", "train", None), (3, "b", "train", "other"), (4, "b", "train", "i"), (5, "b", "train", None)]
    )
    for ours in (True, False):
        both = join(old, catalog(new, ours=ours))
        assert {photo.path: photo.group for photo in both.photos} == {
            "/old/2": "g", "new/1": "g", "new/3": "other", "new/4": "i", "new/5": None,
        }  # fmt: skip
        assert len({both.keys()[i] for i, photo in enumerate(both.photos) if photo.group == "g"}) == 1
