"""Copies are found by their hashes; where the split is ours they are tied to one side."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import blake3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import catalog_of, facts_with, shapes
from PIL import Image

from rehead.auditing import hashes as of_hashes
from rehead.auditing import ties
from rehead.auditing.copies import alike, copy_groups, joined, tied_sides, with_near
from rehead.auditing.hashes import MAX_BITS, as_words, near_pairs
from rehead.auditing.kept import hashes_of_photos
from rehead.data.rows import Photo
from rehead.divided import folds_of
from rehead.job import Job
from rehead.progress import Silent
from rehead.tuning.recipe import Recipe

FEATURES = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)


def bits(n: int) -> int:
    return (1 << n) - 1


def pairs_of(hashes: dict[int, int]) -> tuple[tuple[int, int, int], ...]:
    return near_pairs(np.array([*hashes], np.int64), as_words(hashes.values()))


def test_a_photo_whose_hash_is_near_is_a_copy_and_others_are_not() -> None:
    x = FEATURES.copy()
    x[1], x[3], x[5] = x[0], x[2], x[4]
    hashes = [int(h) for h in np.random.default_rng(1).integers(0, 2**62, 12)]
    hashes = [h << 100 | h for h in hashes]
    hashes[1], hashes[3] = hashes[0] ^ bits(MAX_BITS), hashes[2] ^ bits(MAX_BITS + 1)
    hashes[5] = hashes[4]
    facts = facts_with(12, hash=hashes, contrast=[50.0] * 4 + [1.0] * 8)  # the hash of a blank picture says nothing
    assert alike(list(range(12)), x, facts).pairs == ((0, 1, MAX_BITS),)
    assert alike(list(range(12)), x, {i: f for i, f in facts.items() if i != 1}).pairs == ()


def test_near_copies_of_our_split_go_to_the_training_side() -> None:
    sides = ["train", "valid", "valid", "valid", "train", "valid"]
    catalog = catalog_of("aaabba", sides)
    tied, n = tied_sides(catalog, [(0, 1, 3), (1, 2, 3)], range(6))
    assert ([p.side for p in tied.photos], n) == (["train", "train", "train", "valid", "train", "valid"], 2)
    assert not any(group.is_leak for group in copy_groups(tied, [(0, 1, 3), (1, 2, 3)], range(6)))


def test_a_group_moves_as_a_whole() -> None:
    catalog = catalog_of("aaabb", ["train", "valid", "valid", "train", "valid"])
    photos = tuple(replace(p, group="patient" if i in (1, 2) else None) for i, p in enumerate(catalog.photos))
    more = Photo("more.jpg", "a", "valid", bytes(31) + b"x")
    tied, n = tied_sides(replace(catalog, photos=(*photos, more)), [(0, 1, 3)], range(6))
    assert ([p.side for p in tied.photos], n) == (["train", "train", "train", "train", "valid", "valid"], 2)


def test_a_class_keeps_a_held_out_photo_and_a_given_split_stays() -> None:
    catalog = catalog_of("abab", ["train", "train", "valid", "valid"])
    assert tied_sides(catalog, [(0, 2, 1)], range(4)) == (catalog, 0)
    more = catalog_of("ababab", ["train", "train", "valid", "valid", "valid", "valid"])
    assert tied_sides(more, [(0, 2, 1)], range(4)) == (more, 0)  # the other held-out photos are not used
    assert tied_sides(more, [(0, 2, 1)], range(6))[1] == 1
    given = replace(catalog_of("aabaab", ["train", "valid", "train", "valid", "valid", "valid"]), ours=False)
    assert tied_sides(given, [(0, 1, 1)], range(6)) == (given, 0)
    assert [group.is_leak for group in copy_groups(given, [(0, 1, 1)], range(6))] == [True]
    assert [group.is_leak for group in copy_groups(given, [(0, 1, 1)], [1, 2, 3])] == [False]


def test_groups_hold_exact_and_near_copies_leaks_first() -> None:
    catalog = catalog_of("aabb", ["train", "train", "train", "valid"], ours=False)
    twin = Photo("twin.jpg", "a", "train", catalog.photos[0].digest)
    catalog = replace(catalog, same=((catalog.photos[0], twin),))
    leak, same = copy_groups(catalog, [(2, 3, 8)], range(4))
    assert (leak.paths, leak.is_leak, leak.is_exact, leak.bits) == (("2.jpg", "3.jpg"), True, False, 2)
    assert (same.paths, same.is_leak, same.is_exact, same.bits) == (("0.jpg", "twin.jpg"), False, True, 0)


def test_copies_share_a_key_so_that_no_fold_parts_them() -> None:
    keys = with_near(catalog_of("aabb"), [(0, 1, 1), (1, 3, 1)]).keys()
    assert keys[0] == keys[1] == keys[3] != keys[2]


def test_links_join_what_hangs_together() -> None:
    assert sorted(map(sorted, joined([(1, 2), (5, 6), (3, 2), (6, 6)]))) == [[1, 2, 3], [5, 6]]


@settings(max_examples=15)
@given(st.integers(0, 140), st.integers(0, 5))
def test_pairs_are_those_of_a_plain_loop(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    hashes = {3 * i: int.from_bytes(random.bytes(32), "big") for i in range(n)}
    for i in range(0, n - 1, 7):
        hashes[3 * i] = hashes[3 * i + 3] ^ bits(int(random.integers(1, 20)))
    items = sorted(hashes.items())
    wanted = [(a, b, (x ^ y).bit_count()) for i, (a, x) in enumerate(items) for b, y in items[i + 1 :]]
    assert pairs_of(hashes) == tuple(pair for pair in wanted if pair[2] <= MAX_BITS)


def test_many_equal_hashes_are_a_chain_and_drawings_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs_of(dict.fromkeys(range(5), 7)) == tuple((0, i, 0) for i in range(1, 5))
    random = np.random.default_rng(0)
    alike = {i: bits(40) & int.from_bytes(random.bytes(32), "big") for i in range(300)}  # all pairs are near
    assert len(pairs_of(alike)) < 300
    whole = pairs_of(alike)
    monkeypatch.setattr("rehead.auditing.hashes.BLOCK_BYTES", 4 * 300 * 7)
    assert pairs_of(alike) == whole


@pytest.mark.long
def test_among_many_pictures_copies_are_found_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    n, random = 30_000, np.random.default_rng(0)
    hashes = {2 * i: int.from_bytes(random.bytes(32), "big") for i in range(n)}
    planted = {}
    for i in range(0, 3_000, 2):
        differ = sum(1 << int(bit) for bit in random.choice(256, int(random.integers(1, MAX_BITS + 1)), replace=False))
        hashes[2 * (n - 1 - i)] = hashes[2 * i] ^ differ
        planted[2 * i, 2 * (n - 1 - i)] = differ.bit_count()
    hashes[10_001] = hashes[10_000]
    hashes = dict(sorted(hashes.items()))
    told: list[int] = []
    keys = np.array([*hashes], np.int64)
    found = near_pairs(keys, as_words(hashes.values()), told=told.append)
    assert found == tuple(sorted((*((*pair, n) for pair, n in planted.items()), (10_000, 10_001, 0))))
    assert sum(told) == len(hashes)
    monkeypatch.setattr(of_hashes, "ALL_PAIRS", len(hashes))
    assert near_pairs(keys, as_words(hashes.values())) == found


def test_what_is_known_already_does_not_decide_which_are_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes come as they are known: the sides must not depend on it."""
    n, random = 400, np.random.default_rng(3)
    hashes = [bits(60) & int.from_bytes(random.bytes(32), "big") for _ in range(n)]  # as drawings: the limit is drawn
    catalog = catalog_of("ab" * (n // 2), ["train", "valid", "valid", "train"] * (n // 4))
    sides = []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(n).tolist()
        told = [(i, hashes[i].to_bytes(32, "big")) for i in order]
        monkeypatch.setattr(ties, "hashes_of_photos", lambda *_, told=told, **__: iter(told))
        tied = ties.tied(Job(catalog, tmp_path), order).catalog
        sides.append([photo.side for photo in tied.photos])
    assert all(found == sides[0] for found in sides)


def test_near_copies_stand_in_one_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    pictures = [random.bytes(32) for _ in range(60)]
    catalog = catalog_of("ab" * 60, ["train"] * 120)
    monkeypatch.setattr(ties, "hashes_of_photos", lambda *_, **__: ((i, pictures[i // 2]) for i in range(120)))
    tied = ties.tied(Job(catalog, tmp_path), range(120)).catalog
    folds = folds_of(tied, range(120), Recipe())
    assert (folds[::2] == folds[1::2]).all()
    alone = folds_of(catalog, range(120), Recipe())
    assert (alone[::2] != alone[1::2]).any()
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}


def test_sides_that_were_given_stay_and_near_copies_of_the_training_side_stand_in_one_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, asked = np.random.default_rng(0), list[int]()
    pictures = [random.bytes(32) for _ in range(60)]
    catalog = catalog_of("ab" * 60, ["train", "train", "valid"] * 40, ours=False)
    train = catalog.on("train")

    def hashes(
        _: object, positions: list[int], *rest: object, whole: bool, reads_far: bool
    ) -> Iterator[tuple[int, bytes]]:
        asked.extend(positions)
        assert not reads_far
        assert not whole
        return ((i, pictures[i // 2]) for i in positions)

    monkeypatch.setattr(ties, "hashes_of_photos", hashes)
    tied = ties.tied(Job(catalog, tmp_path), range(120)).catalog
    assert sorted(asked) == sorted(train)
    assert [photo.side for photo in tied.photos] == [photo.side for photo in catalog.photos]
    folds = dict(zip(train, folds_of(tied, train, Recipe()).tolist(), strict=True))
    alone = dict(zip(train, folds_of(catalog, train, Recipe()).tolist(), strict=True))
    pairs = [(i, i + 1) for i in train if i % 2 == 0 and i + 1 in folds]
    assert len(pairs) == 20
    assert all(folds[i] == folds[j] for i, j in pairs)
    assert any(alone[i] != alone[j] for i, j in pairs)


def test_what_lies_at_addresses_is_not_read_for_copies_alone(tmp_path: Path) -> None:
    """Where sides were given. Of what is known, or lies here, hashes are had."""
    pictures = [as_png(shapes(i)) for i in range(4)]
    near = catalog_of("abab")
    digests = [blake3.blake3(data).digest() for data in pictures]
    photos = tuple(replace(photo, digest=digest) for photo, digest in zip(near.photos, digests, strict=True))
    here = replace(near, photos=photos, read=lambda photo, *_: pictures[digests.index(photo.digest)])
    known = dict(hashes_of_photos(here, [0], tmp_path, Silent(), None, whole=True))

    class Far:
        photos = here.photos
        digests = here.digests
        read = staticmethod(here.read)

        def uri(self, photo: Photo) -> str | None:
            return None if photo is self.photos[1] else "s3://photos/" + photo.path

    found = dict(hashes_of_photos(Far(), range(4), tmp_path, Silent(), None, whole=False, reads_far=False))
    assert set(found) == {0, 1}
    assert found[0] == known[0]


def as_png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
