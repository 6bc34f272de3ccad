"""What one model gains over another: the laws of a difference, and a plain loop."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehead.verdict.compare import Paired, gain, paired
from rehead.verdict.notes import notes_on_gain

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)


def both(pairs: list[tuple[bool, bool]]) -> tuple[np.ndarray, np.ndarray]:
    one, other = zip(*pairs, strict=True)
    return np.array(one), np.array(other)


@given(PAIRS)
def test_what_one_gains_the_other_loses(pairs: list[tuple[bool, bool]]) -> None:
    one, other = both(pairs)
    there, back = gain(one, other), gain(other, one)
    assert there.value == -back.value
    assert there.error == pytest.approx(back.error)
    assert not (there.is_clear and back.is_clear)


@given(PAIRS)
def test_it_is_the_mean_difference_and_its_standard_error(pairs: list[tuple[bool, bool]]) -> None:
    differences = [int(a) - int(b) for a, b in pairs]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (len(differences) - 1)
    found = gain(*both(pairs))
    assert found.value == pytest.approx(mean)
    assert found.error == pytest.approx(math.sqrt(variance / len(differences)))


def test_of_equals_none_is_clearly_better() -> None:
    right = np.array([True, False, True])
    assert not gain(right, right).is_clear


def test_of_one_photo_nothing_is_known() -> None:
    assert not gain(np.array([True]), np.array([False])).is_clear


@pytest.mark.parametrize(
    ("lost", "won", "said"),
    [
        (0, 9, None),
        (7, 2, "What its layers learned does not show on these photos: a linear head alone is right on 47 of 100 held-out "
         "photos, this model on 42 (p = 0.18)."),
        (57, 0, "A linear head alone is better here: it is right on 97 of 100 held-out photos, this model on 40 (p < 0.0001)."),
        (57, 59, "What its layers learned does not show on these photos: a linear head alone is right on 97 of 100 held-out "
         "photos, this model on 99 (p = 0.62); those that it misses are too few for a gain to show."),
        (60, 58, "What its layers learned does not show on these photos: a linear head alone is right on 100 of 100 held-out "
         "photos, this model on 98 (p = 0.5)."),
    ],
)  # fmt: skip
def test_layers_whose_learning_does_not_show_are_told(lost: int, won: int, said: str | None) -> None:
    before, now = (np.arange(100) < 40 for _ in range(2))
    before[40 : 40 + lost], now[100 - won :] = True, True
    found = paired(before, now, np.zeros(100, np.int64))
    assert Paired.from_dict(asdict(found)) == found
    notes = notes_on_gain(found)
    assert notes == ([] if said is None else [said])
