"""What one model gains over another: the laws of a difference, and a plain loop."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehead.verdict.average_precision import mean_average_precision
from rehead.verdict.compare import Paired, Scored, gain, paired, scored_labels, scored_numbers
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


def numbers(seed: int, n: int, more: float = 0.0) -> Scored:
    """Of two models that are off by the photo, and by chance; the second by `more` on top."""
    dice = np.random.default_rng(seed)
    hard = dice.exponential(1.0, n)
    first, second = (hard + dice.exponential(0.5, n) for _ in range(2))
    return scored_numbers(first, second + more, np.zeros(n))


def labels(seed: int, n: int, noise: tuple[float, float]) -> Scored:
    """Of two models that rank three labels by what is there, what is hard about the photo, and noise of their own."""
    dice = np.random.default_rng(seed)
    targets = (dice.random((n, 3)) < 0.3).astype(np.float32)
    hard = dice.normal(0, 0.5, (n, 3))
    first, second = (targets + hard + dice.normal(0, own, (n, 3)) for own in noise)
    found = scored_labels(first, second, targets)
    assert found is not None
    for score, scores in ((found.first, first), (found.second, second)):
        plain = mean_average_precision(scores, targets, n_resamples=200)
        assert plain is not None
        assert score == plain.value
    return found


def test_scores_are_those_of_each_model_and_photos_are_compared_with_themselves() -> None:
    found = numbers(0, 100, more=0.3)
    assert found.measure == "mean error"
    assert found.difference.value == pytest.approx(found.second - found.first)
    assert found.is_clear
    assert not found.is_better
    assert found.difference.high - found.difference.low < 0.4  # the errors of either alone spread twice as far
    assert Scored.from_dict(asdict(found)) == found
    better = labels(0, 200, (1.0, 0.2))
    assert better.is_clear
    assert better.is_better
    assert better.difference.value == pytest.approx(better.second - better.first)


def test_models_that_are_equally_good_are_seldom_told_apart() -> None:
    """At most one in twenty; of 200 draws more than 20 come up once in a thousand times."""
    assert sum(numbers(seed, 60).is_clear for seed in range(200)) <= 20
    assert sum(labels(seed, 60, (0.5, 0.5)).is_clear for seed in range(60)) <= 9


def test_of_few_photos_and_of_no_labels_nothing_is_said() -> None:
    assert not numbers(0, 9, more=5.0).is_clear
    none = np.zeros((4, 2), np.float32)
    assert scored_labels(none, none, none) is None
    assert notes_on_gain(None) == []


def test_layers_whose_learning_does_not_show_in_scores_are_told() -> None:
    assert notes_on_gain(labels(0, 200, (1.0, 0.2))) == []
    (worse,) = notes_on_gain(numbers(0, 100, more=0.3))
    assert worse == (
        "A linear head alone is better here: it is off by 1.72 on average, this model by 2.09 "
        "(difference 0.370, 0.214 to 0.536)."
    )
    (even,) = notes_on_gain(labels(0, 60, (0.5, 0.5)))
    assert even.startswith(
        "What its layers learned does not show on these photos: a linear head alone has an mAP of 0."
    )
    assert ", this model of 0." in even
    assert "(difference " in even
