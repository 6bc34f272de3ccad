"""Verdicts on several labels a photo against scikit-learn's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from rehead.bundle import sigmoid
from rehead.verdict.average_precision import mean_average_precision
from rehead.verdict.bootstrap import MIN_RESAMPLES
from rehead.verdict.judging import first_number, judge_task, read_verdict
from rehead.verdict.multilabel import MultilabelVerdict, judge_labels

CLASSES, THRESHOLDS = ("a", "b", "c"), (0.5, 0.3, 0.7)


def judged(n: int = 150, seed: int = 0) -> tuple[MultilabelVerdict, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = (random.random((n, 3)) < (0.5, 0.3, 0.1)).astype(np.float32)
    logits = (random.normal(size=(n, 3)) + 2 * targets - 1).astype(np.float32)
    paths = [f"{i}.jpg" for i in range(n)]
    return (
        judge_labels(logits, targets, classes=CLASSES, thresholds=THRESHOLDS, paths=paths, side="valid"),
        logits,
        targets,
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_average_precision_is_scikit_learns_also_with_equal_scores(cells: list[tuple[int, bool]]) -> None:
    scores, shown = (np.array(column) for column in zip(*cells, strict=True))
    found = mean_average_precision(scores.astype(np.float32)[:, None], shown[:, None])
    if not shown.any():
        assert found is None
    else:
        assert found is not None
        assert found.value == pytest.approx(metrics.average_precision_score(shown, scores))


def test_metrics_are_scikit_learns() -> None:
    verdict, logits, targets = judged()
    named = sigmoid(logits) >= np.array(THRESHOLDS, np.float32)
    assert verdict.mean_ap is not None
    assert verdict.mean_ap.value == pytest.approx(metrics.average_precision_score(targets, logits, average="macro"))
    assert verdict.exact.value == pytest.approx(metrics.accuracy_score(targets, named))
    assert verdict.micro_f1.value == pytest.approx(metrics.f1_score(targets, named, average="micro"))
    assert verdict.macro_f1.value == pytest.approx(metrics.f1_score(targets, named, average="macro"))
    each = [metrics.log_loss(targets[:, i], sigmoid(logits)[:, i]) for i in range(3)]
    assert verdict.log_loss.value == pytest.approx(np.mean(each), rel=1e-5)
    assert [x.f1.value for x in verdict.labels if x.f1] == pytest.approx(metrics.f1_score(targets, named, average=None))
    assert [x.recall.value for x in verdict.labels if x.recall] == pytest.approx(
        metrics.recall_score(targets, named, average=None)
    )


def test_the_interval_holds_its_value_and_shrinks_with_more_photos() -> None:
    few, many = judged(60)[0].mean_ap, judged(960)[0].mean_ap
    assert few is not None
    assert many is not None
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_the_first_number_rests_on_fewer_resamples() -> None:
    _, logits, targets = judged()
    few = mean_average_precision(logits, targets, n_resamples=MIN_RESAMPLES)
    assert few != mean_average_precision(logits, targets)
    assert first_number("multilabel", logits, targets) == f"held-out mAP {few} on 150 photos"


def test_the_same_photos_have_the_same_interval() -> None:
    assert judged()[0] == judged()[0]


@pytest.mark.slow
def test_95_of_100_intervals_hold_the_true_mean_average_precision() -> None:
    """Slow: two hundred verdicts."""
    true = mean_average_precision(*judged(40_000, seed=1)[1:])
    assert true is not None
    held = 0
    for seed in range(200):
        found = mean_average_precision(*judged(120, seed=seed + 2)[1:])
        held += found is not None and found.low <= true.value <= found.high
    assert 176 <= held <= 198


def test_what_is_said_of_a_label_does_not_depend_on_the_others() -> None:
    verdict, logits, targets = judged()
    for i, label in enumerate(verdict.labels):
        own = judge_labels(
            logits[:, [i]], targets[:, [i]], classes=CLASSES[i : i + 1], thresholds=THRESHOLDS[i : i + 1],
            paths=[""] * len(logits), side="valid",
        )  # fmt: skip
        assert own.labels == (label,)
        assert (own.mean_ap, own.macro_f1, own.micro_f1) == (label.average_precision, label.f1, label.f1)


def test_the_worst_mistakes_come_first_and_name_the_label() -> None:
    logits = np.array([[9, -9, -9], [9, 7, -9], [9, -9, 1]], np.float32)
    targets = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], np.float32)
    verdict = judge_labels(logits, targets, classes=CLASSES, thresholds=[0.5] * 3, paths=["1", "2", "3"], side="test")
    assert [(m.path, m.labels, m.predicted, m.wrong) for m in verdict.mistakes] == [
        ("3", ("a", "b"), ("a", "c"), "b"),
        ("2", ("a",), ("a", "b"), "b"),
    ]


def test_labels_that_nobody_shows_or_names_have_no_share() -> None:
    logits, targets = np.full((4, 3), -5, np.float32), np.zeros((4, 3), np.float32)
    verdict = judge_labels(logits, targets, classes=CLASSES, thresholds=[0.5] * 3, paths=list("1234"), side="test")
    assert verdict.mean_ap is None
    assert verdict.exact.value == 1.0
    first = verdict.labels[0]
    assert (first.average_precision, first.precision, first.recall, first.f1) == (None, None, None, None)


def test_what_is_written_is_read_whatever_was_judged() -> None:
    verdict, logits, targets = judged()
    written = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert read_verdict(written) == verdict
    classes = {
        "classes": CLASSES,
        "thresholds": (),
        "median": 0.0,
        "paths": [str(i) for i in range(150)],
        "side": "test",
    }
    other = judge_task("classification", logits, targets.argmax(1), **classes)
    assert read_verdict(json.loads(json.dumps(other.to_dict()))) == other
    number = judge_task("regression", logits[:, :1], targets[:, 0], **classes)
    assert read_verdict(json.loads(json.dumps(number.to_dict()))) == number
