"""Calibration, unsure, unfamiliar and growth against what must hold of them, and against plain loops."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from rehead.bundle import softmax
from rehead.verdict.bootstrap import Estimate, estimate
from rehead.verdict.calibrate import COLDEST, HOTTEST, Calibration, calibration, fit_temperature, reliability
from rehead.verdict.growth import Growth, GrowthPoint, fit_law, growth
from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import Verdict, judge
from rehead.verdict.selective import Selective, judge_selective, threshold_for
from rehead.verdict.trust import chosen_trust


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels that are drawn by them, after division by the temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (n, 3)).astype(np.float32)
    p = softmax(logits / np.float32(temperature))
    return logits, (p.cumsum(axis=1) > random.random((n, 1))).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_by_which_labels_were_drawn_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)
    told = calibration(logits, labels, fit_temperature(logits, labels), 20_000)
    assert told.after.error.value < 0.01
    if temperature != 1.0:
        assert told.before.error.value > 0.05


def test_a_model_that_is_right_on_all_of_a_few_photos_does_not_become_sure_of_everything() -> None:
    logits = np.tile(np.array([[1.0, 0.0]], np.float32), (20, 1))
    p = softmax(logits / np.float32(fit_temperature(logits, np.zeros(20, np.int64))))
    assert p[0, 0] == pytest.approx(21 / 22, abs=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_a_temperature_is_the_one_that_scipy_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, k = int(random.integers(1, 800)), int(random.integers(2, 12))
    labels = random.integers(0, k, n)
    logits = (random.normal(size=(n, k)) + np.eye(k)[labels] * random.uniform(0, 6)) * random.uniform(0.02, 60)
    wanted = np.full((n, k), 1 / ((n + 2) * max(1, k - 1)))
    wanted[np.arange(n), labels] = (n + 1) / (n + 2)

    def loss(log_temperature: float) -> float:
        return float(-(wanted * log_softmax(logits / math.exp(log_temperature), axis=1)).sum(axis=1).mean())

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(found.x), rel=1e-5)


def test_logits_that_say_nothing_are_left_as_they_are() -> None:
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, np.int64)) == 1.0


def test_the_calibration_error_is_that_of_a_plain_loop() -> None:
    logits, labels = drawn(500, 2.0, seed=1)
    p = softmax(logits)
    wanted = 0.0
    for b in range(15):
        own = [i for i in range(500) if b / 15 < p[i].max() <= (b + 1) / 15]
        wanted += abs(sum(p[i].max() for i in own) - sum(p[i].argmax() == labels[i] for i in own)) / 500
    found = reliability(logits, labels)
    assert found.error.value == pytest.approx(wanted, abs=1e-6)
    assert found.error.low <= wanted <= found.error.high
    assert sum(b.n for b in found.bins) == 500


def test_the_log_loss_of_sure_errors_is_that_of_the_verdict() -> None:
    logits, labels = np.array([[500, 0], [0, 300]], np.float32), np.array([1, 1])
    verdict = judge(logits, labels, classes=["a", "b"], paths=["1", "2"], side="valid")
    assert calibration(logits, labels, 1.0, 20).after.log_loss == verdict.log_loss.value == 250


def test_resampling_within_strata_keeps_the_size_of_each() -> None:
    strata = np.array([0] * 30 + [1] * 10)
    share = estimate(lambda weights: weights @ (strata == 1) / 40, 40, strata=strata)
    assert share is not None
    assert (share.low, share.value, share.high) == pytest.approx((0.25, 0.25, 0.25))
    free = estimate(lambda weights: weights @ (strata == 1) / 40, 40)
    assert free is not None
    assert free.low < 0.25 < free.high


@given(st.integers(0, 10_000), st.sampled_from([0.6, 0.9, 0.99]))
def test_a_threshold_keeps_the_most_answers_of_which_enough_are_right(seed: int, precision: float) -> None:
    random = np.random.default_rng(seed)
    sure = np.round(random.random(40), 1)  # many are equal
    right = random.random(40) < sure
    found = threshold_for(sure, right, precision)
    reached = [t for t in np.unique(sure) if right[sure >= t].mean() >= precision]
    if found is None:
        assert not reached
    else:
        assert (sure >= found).sum() == (sure >= min(reached)).sum()


def test_what_a_threshold_costs_is_told() -> None:
    sure, right = np.linspace(0.5, 1, 100), np.arange(100) >= 20
    found = judge_selective(sure, right, precision=0.99, threshold=threshold_for(sure, right, 0.99), n_chosen=100)
    assert found.coverage.value == pytest.approx(0.8, abs=0.011)
    assert found.right is not None
    assert found.right.value >= 0.99
    assert found.curve[0].coverage == 1
    assert found.curve[0].right.value == pytest.approx(0.8)
    none = judge_selective(sure, right, precision=0.99, threshold=None, n_chosen=100)
    assert (none.coverage.value, none.right) == (0, None)


def test_the_numbers_of_a_power_law_are_found_again() -> None:
    n = np.array([50.0, 100, 200, 400, 800])
    floor, scale, exponent = fit_law(n, 0.02 + 1.5 * n**-0.5, np.full(5, 0.01))
    assert floor == pytest.approx(0.02, abs=2e-3)
    assert exponent == pytest.approx(0.5, abs=0.03)
    assert floor + scale * 1600**-exponent == pytest.approx(0.02 + 1.5 * 1600**-0.5, abs=1e-3)


def test_twice_as_many_photos_bring_what_the_law_says_with_its_uncertainty() -> None:
    random, n = np.random.default_rng(0), [50, 100, 200, 400, 800]
    hard = random.random(2_000)
    found = growth(n, [(hard > 1.5 * k**-0.5)[None] for k in n])
    assert found.gain is not None
    wanted = 1.5 * 800**-0.5 - 1.5 * 1600**-0.5
    assert found.gain.low <= wanted <= found.gain.high
    assert found.gain.value == pytest.approx(wanted, abs=0.01)
    assert found.sentence.startswith("Twice as many photos (1600) would likely bring +1.")


def test_where_nothing_is_wrong_no_law_is_drawn() -> None:
    found = growth([50, 100, 200, 400], [np.ones((1, 30), bool)] * 4)
    assert (found.law, found.gain) == (None, None)
    assert found.sentence == "It is right on all held-out photos already with 50 photos."
    few = growth([50, 100], [np.zeros((1, 30), bool)] * 2)
    assert (
        few.sentence
        == "What more than 100 photos would bring is not known: there are too few of a class to try with less."
    )


def test_of_a_gain_that_may_be_none_it_is_said_how_large_it_may_be() -> None:
    found = Growth(
        (GrowthPoint(100, wilson(90, 100)),), (0.1, 0.0, 1.0), Estimate(0.9, 0.9, 0.93, 100), Estimate(0, 0, 0.03, 100)
    )
    assert found.sentence == "Twice as many photos (200) may bring nothing, or up to 3.0 points."


def test_more_photos_never_bring_more_than_there_is_to_gain() -> None:
    """Of which 60 photos with one wrong are a sample: up to 8.9 points, by Wilson's interval."""
    wrong = [40, 30, 20, 10, 1]
    found = growth([40, 80, 160, 320, 640], [(np.arange(60) >= k)[None] for k in wrong])
    assert found.gain is not None
    assert found.at_twice is not None
    now = wilson(59, 60)
    assert found.gain.value == pytest.approx(1 / 60)
    assert found.gain.low == pytest.approx(1 - now.high)
    assert 1 / 60 < found.gain.high <= 1 - now.low
    assert found.at_twice.low < found.at_twice.value == found.at_twice.high == pytest.approx(1)


def test_where_all_are_right_in_the_end_nothing_is_said_of_more() -> None:
    found = growth([40, 80, 160, 320, 640], [(np.arange(60) >= k)[None] for k in [12, 8, 4, 2, 0]])
    assert (found.law, found.gain, found.at_twice) == (None, None, None)
    assert found.sentence == "It is right on all 60 held-out photos: what more would bring they cannot show."


def test_all_of_it_is_read_back_as_it_was_written() -> None:
    logits, labels = drawn(300, 2.0)
    trust = chosen_trust(logits, labels, 0.8)
    verdict = judge(logits, labels, classes=["a", "b", "c"], paths=[str(i) for i in range(300)], side="drawn")
    verdict = trust.on(verdict, logits, labels, np.arange(300) % 50 == 0)
    again = Verdict.from_dict(json.loads(json.dumps(verdict.to_dict())))
    assert again == verdict
    found = growth([50, 100, 200, 400], [np.arange(60)[None] % 7 > 3 - k for k in range(4)])
    assert Growth.from_dict(json.loads(json.dumps(asdict(found)))) == found
    assert isinstance(again.calibration, Calibration)
    assert isinstance(again.selective, Selective)


def test_too_few_photos_choose_nothing() -> None:
    logits, labels = drawn(19, 2.0)
    assert chosen_trust(logits, labels, 0.9).facts(None) == {"calibration": None, "unsure": None, "unfamiliar": None}
