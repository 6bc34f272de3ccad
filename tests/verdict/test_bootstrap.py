"""Intervals by resampling within classes: they are as wide as few photos a class leave things open."""

from __future__ import annotations

import numpy as np
import pytest

from rehead.verdict.bootstrap import estimate, resampled, short
from rehead.verdict.calibrate import log_softmax
from rehead.verdict.compare import paired
from rehead.verdict.metrics import Verdict, judge

N_CLASSES = 50


def sample(n_each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of n_each photos of each class; some classes are much harder than others."""
    random, classes = np.random.default_rng((seed, n_each)), np.random.default_rng(0)
    clear, likeness = classes.normal(4, 1, N_CLASSES), classes.normal(size=(N_CLASSES, N_CLASSES))
    labels = np.repeat(np.arange(N_CLASSES), n_each)
    logits = likeness[labels] + random.normal(0, 1.5, (len(labels), N_CLASSES))
    logits[np.arange(len(labels)), labels] += clear[labels]
    return logits, labels


def judged(n_each: int, seed: int = 1) -> Verdict:
    logits, labels = sample(n_each, seed)
    names, paths = [f"{i}" for i in range(N_CLASSES)], [f"{i}.jpg" for i in range(len(labels))]
    return judge(logits, labels, classes=names, paths=paths, side="drawn")


@pytest.mark.parametrize("n_each", [1, 2, 5, 20])
def test_resampling_within_strata_varies_a_mean_as_much_as_its_error_is(n_each: int) -> None:
    random = np.random.default_rng(n_each)
    strata = np.repeat(np.arange(200), n_each)
    numbers = random.normal(size=len(strata))
    own = numbers.reshape(200, n_each)
    error = np.sqrt((own.var(axis=1, ddof=1) / n_each).sum()) / 200 if n_each > 1 else numbers.std(ddof=1) / 200**0.5
    weights = np.concatenate([*resampled(len(numbers), 1, 0, strata=strata, n_resamples=4_000)])
    assert (weights @ numbers / len(numbers)).std() == pytest.approx(error, rel=0.05)


def test_the_only_photo_of_its_class_is_drawn_with_those_of_another() -> None:
    strata = np.array([7, 7, 7, 3, 3, 5])
    weights = np.concatenate([*resampled(6, 1, 0, strata=strata)])
    assert len(np.unique(weights[:, 5])) > 1
    assert weights[:, :3].sum(axis=1) == pytest.approx(3)
    assert weights[:, 3:].sum(axis=1) == pytest.approx(3)


def test_one_photo_a_class_leaves_an_interval() -> None:
    verdict = judged(1)
    for found in (verdict.macro_f1, verdict.log_loss):
        assert found.low < found.value < found.high
    first, second = np.arange(50) % 3 > 0, np.arange(50) % 4 > 0
    difference = paired(first, second, np.arange(50)).difference
    assert difference.low < difference.value < difference.high


def test_a_number_that_no_photo_changes_has_no_interval_of_rounding() -> None:
    strata = np.repeat(np.arange(30), 3)
    found = estimate(lambda weights: weights @ np.full(90, 0.1), 90, strata=strata)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((found.value, found.value))


@pytest.mark.parametrize(
    ("value", "said"),
    [(999.6, "1000"), (-999.6, "-1000"), (999.4, "999"), (12345.6, "12346"), (12.34, "12.3"), (0.9996, "1.000"),
     (0.0, "0"), (1e-3, "0.001"), (-0.00012345, "-0.000123"), (1e-5, "1e-05")],
)  # fmt: skip
def test_a_number_of_any_size_can_be_read(value: float, said: str) -> None:
    assert short(value) == said


@pytest.mark.slow
@pytest.mark.parametrize(("n_each", "least"), [(1, 0.85), (2, 0.88), (5, 0.88), (20, 0.88)])
def test_intervals_hold_the_true_numbers_nearly_always(n_each: int, least: float) -> None:
    """Slow: two hundred verdicts."""
    logits, labels = sample(2_000, seed=0)
    many = judge(logits, labels, classes=[""] * N_CLASSES, paths=[""] * len(labels), side="drawn")
    true_f1, true_loss = many.macro_f1.value, -log_softmax(logits)[np.arange(len(labels)), labels].mean()
    found = [judged(n_each, seed) for seed in range(1, 201)]
    held_f1 = np.mean([v.macro_f1.low <= true_f1 <= v.macro_f1.high for v in found])
    held_loss = np.mean([v.log_loss.low <= true_loss <= v.log_loss.high for v in found])
    assert held_f1 >= least
    assert held_loss >= 0.88
