"""Nearest neighbours are those that a plain loop finds, in blocks of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehead.verdict import neighbours as module
from rehead.verdict.neighbours import neighbours, other_neighbours


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 12), st.integers(0, 10))
def test_they_are_those_of_a_plain_loop(n: int, d: int, k: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    found = neighbours(x, x, k)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    wanted = -np.sort(-(unit @ unit.T), axis=1)[:, :k]
    np.testing.assert_allclose(found.similarity, wanted, atol=1e-5)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(unit @ unit.T, found.places, axis=1), atol=1e-5)


@given(st.integers(0, 30), st.integers(1, 6), st.integers(0, 10))
def test_no_photo_is_its_own_neighbour(n: int, k: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 2, (n, 3)).astype(np.float32)  # many are equal, some are zeros
    found = other_neighbours(x, k)
    assert found.places.shape == (n, min(k, max(0, n - 1)))
    assert not (found.places == np.arange(n)[:, None]).any()
    assert all(len(set(row)) == len(row) for row in found.places.tolist())


def test_small_blocks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(50, 8))
    whole, done = neighbours(x, x[:20], 3), []
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 50 * 7)
    parts = neighbours(x, x[:20], 3, told=done.append)
    np.testing.assert_array_equal(whole.places, parts.places)
    assert done == [7, 7, 6]
