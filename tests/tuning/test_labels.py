"""Several labels a photo: each is the two-class fit it would be alone, and thresholds are the best there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardised import standardised

from rehead.bundle import sigmoid
from rehead.tuning.labels import MIN_SHOWN, chosen_thresholds, solve_labels
from rehead.tuning.solve import solve_linear


def photos(n: int = 200, width: int = 30, n_labels: int = 3, seed: int = 0):
    random = np.random.default_rng(seed)
    features = (random.normal(size=(n, 8)) @ random.normal(size=(8, width)) + random.normal(size=(n, width))).astype(
        np.float32
    )
    scores = features @ random.normal(size=(width, n_labels)) / 6 + random.normal(size=(n, n_labels))
    return features, (scores > np.linspace(0.2, 2, n_labels)).astype(np.float32), np.arange(n) % 5


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(("n", "width"), [(200, 30), (60, 100)])
def test_each_label_is_scikit_learns_logistic_regression(n: int, width: int, class_weight: str | None) -> None:
    from sklearn.linear_model import LogisticRegression

    features, targets, folds = photos(n, width)
    solved = solve_labels(features, targets, folds=folds, class_weight=class_weight, penalties=[0.01])
    standard = standardised(features)
    for i, shown in enumerate(targets.T):
        oracle = LogisticRegression(C=2 / (0.01 * n), tol=1e-9, max_iter=9000, class_weight=class_weight)
        wanted = oracle.fit(standard, shown).decision_function(standard)
        np.testing.assert_allclose(solved.head.logits(features)[:, i], wanted, atol=2e-3)


def test_a_label_is_solved_as_if_it_were_alone() -> None:
    features, targets, folds = photos()
    together = solve_labels(features, targets, folds=folds)
    alone = solve_linear(features, targets[:, 1].astype(np.int64), 2, folds=folds)
    logits = alone.head.logits(features)
    np.testing.assert_allclose(together.head.logits(features)[:, 1], logits[:, 1] - logits[:, 0], atol=2e-3)


def test_what_is_out_of_fold_comes_from_a_fit_that_did_not_see_it() -> None:
    features, targets, folds = photos(400, 300)
    noise = np.random.default_rng(9).permutation(targets)
    logits = solve_labels(features, noise, folds=folds, penalties=[1.0, 1e-4]).out_of_fold
    assert np.isfinite(logits).all()
    right = ((logits > 0) == (noise > 0.5))[:, 0].mean()
    assert right < noise[:, 0].mean() + 0.5 * (1 - noise[:, 0].mean())  # labels by chance are not known beforehand


def test_a_label_that_stands_in_one_fold_alone_is_solved_at_the_usual_penalty() -> None:
    features, targets, folds = photos()
    targets[:, 2] = 0
    targets[:5:5, 2] = 1
    solved = solve_labels(features, targets, folds=folds)
    assert np.isnan(solved.out_of_fold[:, 2]).all()
    assert np.isfinite(solved.out_of_fold[:, 0]).all()
    assert np.isfinite(solved.head.logits(features)).all()


@pytest.mark.parametrize("alone", [0, 2])
def test_the_note_says_how_many_labels_have_the_usual_penalty(alone: int) -> None:
    features, targets, folds = photos()
    targets[:, alone] = 0
    targets[0, alone] = 1
    note = solve_labels(features, targets, folds=folds).note
    assert note.startswith("penalty chosen by ")
    assert note.endswith("; 1 of 3 labels: usual penalty")


def test_a_label_on_no_photo_or_on_all_is_refused() -> None:
    features, targets, folds = photos()
    targets[:, 1] = 1
    with pytest.raises(ValueError, match="a label is on 200 of 200 photos"):
        solve_labels(features, targets, folds=folds)


def test_same_photos_same_head_bit_for_bit() -> None:
    features, targets, folds = photos()
    first, second = (solve_labels(features, targets, folds=folds).head.layers[0] for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


@given(st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=1, max_size=40))
def test_no_threshold_has_a_higher_f1_than_the_one_chosen(cells: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import f1_score

    logits = np.array([[score / 2] for score, _ in cells], np.float32)
    shown = np.array([[is_shown] for _, is_shown in cells], np.float32)
    (threshold,) = chosen_thresholds(logits, shown)
    if shown.sum() < MIN_SHOWN:
        assert threshold == 0.5
        return
    p = sigmoid(logits)
    best = max(f1_score(shown, p >= other) for other in p.ravel())
    assert f1_score(shown, p >= np.float32(threshold)) == pytest.approx(best)


def test_a_threshold_is_even_odds_where_that_is_as_good_as_any() -> None:
    logits = np.array([[4.0]] * 6 + [[-1.0]] * 6, np.float32)
    assert chosen_thresholds(logits, (logits > 0).astype(np.float32)) == (0.5,)
    assert chosen_thresholds(np.full((8, 1), np.nan, np.float32), np.ones((8, 1), np.float32)) == (0.5,)
