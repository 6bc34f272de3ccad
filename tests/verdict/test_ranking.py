"""Which backbone is recommended: the rule as a law, and the sentence in each case."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rehead.verdict.compare import gain
from rehead.verdict.ranking import Rival, recommended


@st.composite
def rivals(draw: st.DrawFn) -> list[Rival]:
    n = draw(st.integers(2, 40))
    found = []
    for i in range(draw(st.integers(1, 5))):
        right = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        found.append(Rival(f"net{i}", right, draw(st.floats(0.1, 1000))))
    return found


@given(rivals())
def test_the_fastest_is_taken_of_those_that_the_best_does_not_clearly_lead(field: list[Rival]) -> None:
    chosen, _ = recommended(field)
    best = max(field, key=lambda rival: (rival.share, rival.images_per_s))
    assert not gain(best.right, field[chosen].right).is_clear
    faster = [rival for rival in field if rival.images_per_s > field[chosen].images_per_s]
    assert all(gain(best.right, rival.right).is_clear for rival in faster)


def rival(name: str, n_right: int, images_per_s: float) -> Rival:
    return Rival(name, np.arange(100) < n_right, images_per_s)


def test_the_better_one_is_worth_waiting_for_where_the_difference_is_clear() -> None:
    chosen, why = recommended([rival("small", 80, 100), rival("large", 90, 20), rival("tiny", 50, 300)])
    assert chosen == 1
    assert why == (
        "Take large: 90.0% right, more than a standard error above the 80.0% of small, the best of the faster ones "
        "(a difference of 10.0 points, give or take 3.0)."
    )


def test_the_faster_one_is_taken_where_the_difference_may_be_chance() -> None:
    chosen, why = recommended([rival("large", 91, 20), rival("small", 90, 100)])
    assert chosen == 1
    assert why == (
        "Take small: 90.0% right, within a standard error of the 91.0% of large "
        "(a difference of 1.0 points, give or take 1.0), and 5.0 times as fast."
    )


def test_one_that_leads_in_both_needs_no_weighing() -> None:
    assert recommended([rival("a", 90, 100), rival("b", 80, 50)])[1].endswith("and none is faster.")
    assert "the only one here" in recommended([rival("a", 90, 100)])[1]
