"""Verdicts on a number a photo against scikit-learn's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from rehead.verdict.bootstrap import short
from rehead.verdict.regression import RegressionVerdict, judge_numbers


def judged(n: int = 120, seed: int = 0) -> tuple[RegressionVerdict, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    values = random.normal(20, 5, n)
    predicted = values + random.normal(0, 2, n)
    paths = [f"{i}.jpg" for i in range(n)]
    return judge_numbers(predicted, values, median=19.0, paths=paths, side="valid"), predicted, values


def test_metrics_are_scikit_learns() -> None:
    verdict, predicted, values = judged()
    assert verdict.mae.value == pytest.approx(metrics.mean_absolute_error(values, predicted))
    assert verdict.rmse.value == pytest.approx(metrics.root_mean_squared_error(values, predicted))
    assert verdict.r2 is not None
    assert verdict.r2.value == pytest.approx(metrics.r2_score(values, predicted))
    assert verdict.baseline.value == pytest.approx(np.abs(values - 19).mean())


def test_an_interval_of_a_mean_is_scipys_bootstrap() -> None:
    from scipy.stats import bootstrap

    verdict, predicted, values = judged()
    theirs = bootstrap([np.abs(predicted - values)], np.mean, method="percentile", n_resamples=4000, random_state=0)
    low, high = theirs.confidence_interval
    assert verdict.mae.low == pytest.approx(low, abs=0.05)
    assert verdict.mae.high == pytest.approx(high, abs=0.05)


def test_numbers_that_do_not_differ_have_no_r2() -> None:
    verdict = judge_numbers(np.array([1.0, 3.0]), np.array([2.0, 2.0]), median=2.0, paths=["a", "b"], side="test")
    assert verdict.r2 is None
    assert verdict.mae.value == 1.0


def test_the_photos_furthest_off_come_first() -> None:
    verdict, predicted, values = judged()
    off = [abs(m.value - m.predicted) for m in verdict.mistakes]
    assert off == sorted(off, reverse=True)
    assert off[0] == pytest.approx(np.abs(predicted - values).max())


@pytest.mark.parametrize(
    ("value", "text"), [(0.9321, "0.932"), (12.345, "12.3"), (2041.4, "2041"), (4e-5, "4e-05"), (0, "0")]
)
def test_numbers_are_shown_with_three_figures(value: float, text: str) -> None:
    assert short(value) == text
