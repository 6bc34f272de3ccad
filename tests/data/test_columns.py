"""Columns give what was put in, and take little memory."""

from __future__ import annotations

import copy
import itertools
import pickle
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehead.data import spill
from rehead.data.columns import Chosen, Digests, Names, Photos, Positions, Rows, Texts
from rehead.data.listing import Listing
from rehead.data.rows import Photo, Row


@pytest.fixture(autouse=True, scope="module", params=[spill.BLOCK_BYTES, 40], ids=["in memory", "in files"])
def _blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    before, spill.BLOCK_BYTES = spill.BLOCK_BYTES, request.param
    yield
    spill.BLOCK_BYTES = before


names = st.text(st.characters(), max_size=12)  # surrogates too
sides = st.sampled_from([None, "train", "valid", "test"])
rows = st.lists(st.builds(Row, names, names, sides, st.none() | names), max_size=20)


@given(rows, st.integers(-25, 25), st.sets(st.integers(0, 20)))
def test_rows_are_those_that_were_put_in(some: list[Row], place: int, away: set[int]) -> None:
    column = Rows(some)
    assert list(column) == some == column == column[:]
    assert column[place : place + 7 : 2] == some[place : place + 7 : 2]
    if -len(some) <= place < len(some):
        assert column[place] == some[place]
    else:
        with pytest.raises(IndexError):
            column[place]
    assert column.without(away) == [row for i, row in enumerate(some) if i not in away]
    assert pickle.loads(pickle.dumps(column)) == copy.deepcopy(column) == some
    assert set(column.labels.different) == {row.label for row in some}
    assert column.labels.each(len, int).tolist() == [len(row.label) for row in some]


@given(st.lists(st.sampled_from([bytes([n % 2]) * 9 + bytes([n]) * 23 for n in range(8)]), max_size=30))
def test_equal_digests_are_found_by_their_places(some: list[bytes]) -> None:
    places: dict[bytes, list[int]] = defaultdict(list)
    for i, digest in enumerate(some):
        places[digest].append(i)
    assert Digests(some).same() == [found for found in places.values() if len(found) > 1]


@given(st.lists(st.lists(names, max_size=8), max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_lists_come_behind_each_other(lists: list[list[str]], begin: int, end: int) -> None:
    whole, parts = Texts(), Texts()
    for some in lists:
        whole.extend(Texts(some))
        places = min(begin, len(some)), min(max(begin, end), len(some))
        parts.extend(Texts(some), *places)
    assert whole == list(itertools.chain.from_iterable(lists))
    assert parts == [name for some in lists for name in some[begin : max(begin, end)]]


def test_positions_are_a_list_and_an_array() -> None:
    positions = Positions([4, 0, 7])
    assert positions == [4, 0, 7] == [*positions]
    assert (positions[-1], positions[1:], bool(positions), bool(Positions())) == (7, [0, 7], True, False)
    assert np.arange(9)[positions].tolist() == [4, 0, 7]
    assert np.asarray(positions, np.int64).dtype == np.int64


def test_a_digest_is_of_32_bytes() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Digests([bytes(31)])


def test_a_choice_of_a_column_is_a_column() -> None:
    assert list(Chosen(Texts("abcde"), [4, 0, 4])) == ["e", "a", "e"]
    assert Chosen(Names("aab"), [2, 1])[-1] == "a"


@given(st.lists(names, unique=True, max_size=20), names)
def test_a_listing_is_asked_for_a_path(paths: list[str], other: str) -> None:
    listing = Listing()
    for i, path in enumerate(sorted(paths)):
        listing.add(path, (i, i + 1, i + 1) if i % 3 else None)
    assert dict(listing) == {path: (i, i + 1, i + 1) if i % 3 else None for i, path in enumerate(sorted(paths))}
    assert (other in listing) == (other in paths)


def test_a_photo_takes_some_hundred_bytes() -> None:
    n = 20_000
    tracemalloc.start()
    photos = Photos(Photo(f"a folder/{i:08d}.jpg", "ab"[i % 2], "train", i.to_bytes(32, "big")) for i in range(n))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(photos) == n
    assert taken / n < 110  # 21 of the path, 32 of the digest, 8 and 4 of where each begins and of three names
