"""Numbers against scikit-learn's, and intervals against their laws."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import Verdict, _macro_f1, judge


def judged(n_classes: int, n: int = 200) -> tuple[Verdict, np.ndarray, np.ndarray]:
    random = np.random.default_rng(n_classes)
    labels = random.integers(0, n_classes, n)
    logits = random.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    names = [f"class {i}" for i in range(n_classes)]
    paths = [f"{i}.jpg" for i in range(n)]
    return judge(logits, labels, classes=names, paths=paths, side="valid"), logits, labels


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_is_scipys_and_holds_its_value(counts: tuple[int, int]) -> None:
    right, n = counts
    ours = wilson(right, n)
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, abs=1e-9)
    assert ours.low <= ours.value + 1e-12
    assert ours.value <= ours.high + 1e-12


@pytest.mark.parametrize("n_classes", [2, 5, 12])
def test_metrics_are_scikit_learns(n_classes: int) -> None:
    verdict, logits, labels = judged(n_classes)
    predicted = logits.argmax(1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert verdict.top1.value == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert verdict.macro_f1.value == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert verdict.log_loss.value == pytest.approx(metrics.log_loss(labels, p))
    assert np.array_equal(verdict.confusion, metrics.confusion_matrix(labels, predicted))
    recall = metrics.recall_score(labels, predicted, average=None)
    assert [c.recall.value for c in verdict.classes if c.recall] == pytest.approx(recall)
    if n_classes >= 10:
        assert verdict.top5 is not None
        assert verdict.top5.value == pytest.approx(metrics.top_k_accuracy_score(labels, p, k=5))
    else:
        assert verdict.top5 is None


def test_the_worst_mistakes_come_first() -> None:
    verdict, _, _ = judged(3)
    sure = [mistake.probability for mistake in verdict.mistakes]
    assert sure == sorted(sure, reverse=True)
    assert len(sure) == 10
    assert all(mistake.label != mistake.predicted for mistake in verdict.mistakes)


def test_an_interval_reads_as_in_the_readme() -> None:
    assert repr(wilson(394, 400)) == "Interval(0.985, low=0.968, high=0.993)"


def test_classes_that_nobody_shows_or_names_have_no_share() -> None:
    logits = np.array([[2.0, 0.0, -5.0], [0.0, 2.0, -5.0]])
    verdict = judge(logits, np.array([0, 1]), classes=["a", "b", "c"], paths=["1", "2"], side="test")
    assert verdict.classes[2].recall is None
    assert verdict.classes[2].precision is None


def test_rounding_puts_no_bound_below_the_value_and_no_loss_below_zero() -> None:
    for n in range(1, 400):
        assert (wilson(n, n).high, wilson(0, n).low) == (1.0, 0.0)
    sure = judge(np.array([[900.0, 0.0]]), np.array([0]), classes=["a", "b"], paths=["1"], side="valid")
    assert f"{sure.log_loss.value:.3f}" == "0.000"


def test_macro_f1_of_a_thousand_classes_takes_no_column_a_class() -> None:
    random = np.random.default_rng(0)
    labels, others = random.integers(0, 1_000, (2, 20_000))
    predicted = np.where(random.random(20_000) < 0.8, labels, others)
    tracemalloc.start()
    found = _macro_f1(labels, predicted, 1_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.value == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert peak < 300e6  # one such column a class is 160 MB, and there were three
