"""Heads solved on stored features: scikit-learn is the oracle, and what must not change the answer does not."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from standardised import standardised

from rehead.bundle import Head, softmax
from rehead.tuning import convex
from rehead.tuning.head import _inner, fit_head
from rehead.tuning.recipe import Recipe
from rehead.tuning.sample import SAMPLE, in_each_fold
from rehead.tuning.solve import (
    ABSENT,
    PENALTIES,
    cross_validated,
    solve_linear,
    solve_prototype,
    solve_quick,
)
from rehead.tuning.tasks import cv_loss, fit_task


def photos(n: int = 240, width: int = 40, n_classes: int = 3, *, apart: float = 0.6, seed: int = 0):
    """Features like a network's: correlated, not negative, of very different sizes; labels uneven; five folds."""
    dice = np.random.default_rng(seed)
    labels = np.concatenate(
        [np.arange(n_classes), np.arange(n_classes), dice.integers(0, n_classes, n) ** 2 // n_classes]
    )[:n]
    hidden = (
        dice.standard_normal((n, 12)) / np.arange(1, 13) ** 0.5 + apart * dice.standard_normal((n_classes, 12))[labels]
    )
    mixed = hidden @ dice.standard_normal((12, width)) + 0.3 * dice.standard_normal((n, width))
    features = np.maximum(mixed, 0) * np.exp(dice.standard_normal(width))
    return features.astype(np.float32), labels.astype(np.int64), np.arange(n) % 5


def centred(logits: np.ndarray) -> np.ndarray:
    return logits - logits.mean(axis=1, keepdims=True)


def sklearn_logits(features, labels, n_classes, penalty, class_weight=None):
    from sklearn.linear_model import LogisticRegression

    standard = standardised(features)
    c = (2 if n_classes == 2 else 1) / (penalty * len(labels))
    oracle = LogisticRegression(C=c, tol=1e-9, max_iter=20_000, class_weight=class_weight, solver="newton-cg")
    decided = oracle.fit(standard, labels).decision_function(standard)
    return np.stack([-decided / 2, decided / 2], axis=1) if n_classes == 2 else centred(decided)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(("n", "width"), [(240, 40), (60, 200)])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-3])
def test_logits_are_those_of_scikit_learn(n_classes, n, width, class_weight, penalty):
    features, labels, folds = photos(n, width, n_classes)
    solved = solve_linear(features, labels, n_classes, folds=folds, class_weight=class_weight, penalties=[penalty])
    wanted = sklearn_logits(features, labels, n_classes, penalty, class_weight)
    np.testing.assert_allclose(centred(solved.head.logits(features)), wanted, atol=1e-3)


def test_logits_are_those_of_scikit_learn_where_only_a_sample_chooses_the_penalty():
    features, labels, folds = photos(6_000, 30, 3)
    solved = solve_linear(features, labels, 3, folds=folds, penalties=[0.1, 0.01])
    assert re.fullmatch(r"penalty chosen by 5 folds, on 4,00\d of 6,000 photos", solved.note)
    wanted = sklearn_logits(features, labels, 3, solved.penalty)
    np.testing.assert_allclose(centred(solved.head.logits(features)), wanted, atol=1e-3)


def test_without_principal_axes_the_head_is_the_same(monkeypatch):
    features, labels, folds = photos(900, 30, 3)
    wanted = solve_linear(features, labels, 3, folds=folds, penalties=[0.01]).head.logits(features)
    monkeypatch.setattr("rehead.tuning.solve.SAMPLE", 300)
    monkeypatch.setattr("rehead.tuning.convex.WIDEST", 20)
    got = solve_linear(features, labels, 3, folds=folds, penalties=[0.01]).head.logits(features)
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_photos_that_are_not_copied_give_the_same_head(monkeypatch):
    features, labels, folds = photos(900, 30, 3)
    monkeypatch.setattr("rehead.tuning.solve.SAMPLE", 300)
    wanted = solve_linear(features, labels, 3, folds=folds, penalties=[0.01]).head.logits(features)
    monkeypatch.setattr("rehead.tuning.convex.COPIED_BYTES", 0)
    got = solve_linear(features, labels, 3, folds=folds, penalties=[0.01]).head.logits(features)
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def solve_three(features, labels):
    """(head, how near its logits come to each other when float32 rounds otherwise) for each way to solve."""
    yield solve_linear(features, labels, 3, folds=np.arange(len(labels)) % 5).head, 2e-3
    yield solve_prototype(features, labels, 3), 1e-4
    yield solve_quick(features, labels, 3), 0.2


def test_the_scale_of_all_features_and_the_origin_of_each_do_not_matter():
    features, labels, _ = photos()
    moved = features * np.float32(8) - np.arange(features.shape[1], dtype=np.float32)
    for (head, near), (other, _) in zip(solve_three(features, labels), solve_three(moved, labels), strict=True):
        np.testing.assert_allclose(other.logits(moved), head.logits(features), atol=near)


def test_renaming_classes_renames_logits():
    features, labels, _ = photos()
    new = np.array([2, 0, 1])
    for (head, near), (other, _) in zip(solve_three(features, labels), solve_three(features, new[labels]), strict=True):
        np.testing.assert_allclose(other.logits(features)[:, new], head.logits(features), atol=near)


def test_balanced_is_as_if_the_photos_of_the_rarer_class_stood_there_twice():
    features, _, _ = photos(90, 3, 2)
    labels = (np.arange(90) % 3 == 0).astype(np.int64)  # 60 and 30, not separable
    rows = np.concatenate([np.arange(90), np.flatnonzero(labels)])
    # next to no penalty: copies change the standardisation, and with it what a penalty means
    once = solve_linear(features, labels, 2, folds=labels, class_weight="balanced", penalties=[1e-7])
    twice = solve_linear(features[rows], labels[rows], 2, folds=labels[rows], penalties=[1e-7])
    np.testing.assert_allclose(centred(twice.head.logits(features)), centred(once.head.logits(features)), atol=1e-3)


def test_every_photo_twice_changes_nothing():
    features, labels, folds = photos()
    once = solve_linear(features, labels, 3, folds=folds, penalties=[0.01])
    both, labels_of_both, folds_of_both = (np.concatenate([array, array]) for array in (features, labels, folds))
    twice = solve_linear(both, labels_of_both, 3, folds=folds_of_both, penalties=[0.01])
    np.testing.assert_allclose(twice.head.logits(features), once.head.logits(features), atol=1e-3)


def test_same_input_same_head_bit_for_bit():
    features, labels, folds = photos(5_000, 64, 4)
    kept = features.copy()
    first, second = (solve_linear(features, labels, 4, folds=folds) for _ in range(2))
    for one, other in zip(first.head.layers[0], second.head.layers[0], strict=True):
        assert one.tobytes() == other.tobytes()
    assert features.tobytes() == kept.tobytes()
    assert [array.dtype for array in first.head.layers[0]] == [np.float32, np.float32]


def test_a_handful_of_photos_with_many_features():
    labels = np.arange(20) % 4
    features = np.random.default_rng(1).standard_normal((20, 600)).astype(np.float32)
    features += 2 * np.random.default_rng(2).standard_normal((4, 600))[labels].astype(np.float32)
    solved = solve_linear(features, labels, 4, folds=np.arange(20) // 4)
    assert (solved.head.logits(features).argmax(axis=1) == labels).all()
    assert solved.cv_accuracy == 1


def test_features_that_never_change_have_no_weight():
    features, labels, folds = photos()
    features[:, 0], features[:, 1] = 0.1, 0
    for head in (solve_linear(features, labels, 3, folds=folds).head, solve_prototype(features, labels, 3)):
        assert np.isfinite(head.logits(features)).all()
        assert not head.layers[0][0][:, :2].any()


def test_half_precision_features_are_lifted_first():
    features, labels, folds = photos()
    half = features.astype(np.float16)
    for fit in (lambda x: solve_linear(x, labels, 3, folds=folds).head, lambda x: solve_prototype(x, labels, 3)):
        wanted = fit(half.astype(np.float32)).logits(features)
        np.testing.assert_array_equal(fit(half).logits(features), wanted)


def test_on_noise_the_strongest_penalty_wins():
    dice = np.random.default_rng(5)
    features = dice.standard_normal((200, 300)).astype(np.float32)
    solved = solve_linear(features, np.arange(200) % 2, 2, folds=np.arange(200) // 2 % 5)
    assert solved.penalty >= PENALTIES[1]
    assert solved.cv_log_loss == pytest.approx(np.log(2), abs=0.01)


def test_the_penalty_chosen_is_the_best_of_the_path():
    features, labels, folds = photos(300, 40, 3, apart=0.2)
    solved = solve_linear(features, labels, 3, folds=folds)
    losses = {}
    for penalty in PENALTIES:
        logits = cross_validated(
            features, labels, 3, folds, lambda x, y, _, p=penalty: solve_linear(x, y, 3, folds=y, penalties=[p]).head
        )
        losses[penalty] = -np.log(softmax(logits)[np.arange(300), labels]).mean()
    assert losses[solved.penalty] <= min(losses.values()) * 1.01
    assert solved.cv_log_loss == pytest.approx(losses[solved.penalty], rel=0.05)


def test_photos_that_no_fold_may_hold_out_still_give_a_head():
    features, labels, _ = photos(9, 30, 3)
    solved = solve_linear(features, labels, 3, folds=np.full(9, -1))
    assert (solved.cv_accuracy, solved.cv_log_loss) == (None, None)
    assert "no photo could be held out" in solved.note


def test_a_class_without_photos_is_refused():
    features, labels, folds = photos()
    for fit in (lambda: solve_linear(features, labels, 4, folds=folds), lambda: solve_prototype(features, labels, 4)):
        with pytest.raises(ValueError, match="class 3 has no photo"):
            fit()


def test_a_feature_that_is_not_finite_is_refused():
    features, labels, folds = photos()
    features[7, 5] = np.nan
    with pytest.raises(ValueError, match="feature 5 is not finite"):
        solve_linear(features, labels, 3, folds=folds)


def test_a_quick_head_is_near_the_solved_one():
    features, labels, folds = photos(2_000, 40, 3)
    solved = solve_linear(features, labels, 3, folds=folds, penalties=[0.01]).head
    quick = solve_quick(features, labels, 3, penalty=0.01)
    same = solved.logits(features).argmax(axis=1) == quick.logits(features).argmax(axis=1)
    assert same.mean() > 0.98


def test_a_quick_head_knows_that_a_class_has_not_been_seen_yet():
    features, labels, _ = photos()
    logits = solve_quick(features, labels, 5).logits(features)
    assert np.isfinite(logits).all()
    assert (logits[:, 3:] == ABSENT).all()
    assert np.isfinite(solve_quick(features[:1], labels[:1], 5).logits(features)).all()


def test_a_quick_head_of_many_photos_sees_every_class():
    features, labels, _ = photos(5_000, 20, 3)
    labels = np.where(np.arange(5_000) == 4_321, 3, labels)
    assert (solve_quick(features, labels, 4).logits(features)[:, 3] > ABSENT / 2).all()


def nearest_mean(features: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    standard = standardised(features)
    means = np.stack([standard[labels == k].mean(axis=0) for k in range(n_classes)])
    return np.square(standard[:, None] - means).sum(axis=2).argmin(axis=1)


@pytest.mark.parametrize(("n", "n_classes"), [(240, 3), (12, 5), (5_000, 10)])
def test_a_prototype_head_names_the_nearest_mean(n, n_classes):
    features, labels, _ = photos(n, 40, n_classes)
    head = solve_prototype(features, labels, n_classes)
    assert head.kind == "prototype"
    np.testing.assert_array_equal(head.logits(features).argmax(axis=1), nearest_mean(features, labels, n_classes))


def test_one_photo_a_class_is_enough_for_a_prototype():
    features, _, _ = photos(4, 40, 4)
    probabilities = softmax(solve_prototype(features, np.arange(4), 4).logits(features))
    assert (probabilities.argmax(axis=1) == np.arange(4)).all()
    assert (probabilities.max(axis=1) < 0.99).all()


def test_a_prototypes_probabilities_are_those_of_photos_it_has_not_seen():
    features, labels, folds = photos(600, 40, 3, apart=0.4)
    logits = cross_validated(features, labels, 3, folds, lambda x, y, _: solve_prototype(x, y, 3))
    losses = [-np.log(softmax(f * logits)[np.arange(600), labels]).mean() for f in (0.7, 1, 1.4)]
    assert losses[1] == min(losses)


def test_out_of_fold_logits_come_from_heads_that_did_not_see_the_photo():
    features, labels, folds = photos()
    folds = np.where(np.arange(240) < 10, -1, folds)
    seen = []

    def fit(x: np.ndarray, y: np.ndarray, _: np.ndarray) -> Head:
        seen.append({row.tobytes() for row in x})
        return Head("linear", ((np.full((3, 40), len(seen), np.float32), np.zeros(3, np.float32)),))

    logits = cross_validated(features, labels, 3, folds, fit)
    assert np.isnan(logits[:10]).all()
    for i in range(10, 240):
        number = round(float(logits[i, 0] / features[i].sum()))
        assert features[i].tobytes() not in seen[number - 1]
        assert number == folds[i] + 1


def test_a_sample_has_photos_of_each_class_in_each_fold_that_has_some():
    few, folds = np.repeat(np.arange(1_000), 12), np.tile([0] * 10 + [4] * 2, 1_000)
    rows = in_each_fold(few, folds, 2_000)
    assert (np.bincount(few[rows[folds[rows] == 0]], minlength=1_000) == 5).all()
    assert (np.bincount(few[rows[folds[rows] == 4]], minlength=1_000) == 2).all()
    labels, folds = np.arange(20_000) % 2, np.arange(20_000) % 7 - 1
    rows = in_each_fold(labels, folds, 2_000)
    assert 2_000 <= len(rows) <= 2_014
    np.testing.assert_allclose(np.bincount(folds[rows] + 1), 2_000 / 7, atol=3)


def test_many_photos_answers_of_a_prototype_are_had_of_a_sample():
    features, labels, folds = photos(9_000, 40, 3)
    fitted = fit_head(features.astype(np.float16), labels, 3, folds, Recipe(head="prototype"))
    assert fitted.apart is not None
    assert SAMPLE <= len(fitted.apart.rows) <= SAMPLE + 15
    right = (fitted.apart.logits.argmax(axis=1) == labels[fitted.apart.rows]).mean()
    whole = cross_validated(features, labels, 3, folds, lambda x, y, _: solve_prototype(x, y, 3))
    assert right == pytest.approx((whole.argmax(axis=1) == labels).mean(), abs=0.02)


def test_the_best_head_is_found_where_a_class_has_two_photos():
    features, labels, _ = photos(60, 10, 2)
    labels[:] = np.arange(60) >= 58
    folds = np.append(np.arange(58) % 5, [0, 1])
    assert fit_head(features, labels, 2, folds, Recipe(head="auto", epochs=1)).head.logits(features).shape == (60, 2)


def test_heads_are_compared_on_a_sample_and_not_where_nothing_is_held_out(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def spied(x: np.ndarray, *rest: object) -> np.ndarray:
        sizes.append(len(x))
        return cross_validated(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("rehead.tuning.head.cross_validated", spied)
    features, labels, folds = photos(9_000, 8, 3)
    fit_head(features.astype(np.float16), labels, 3, folds, Recipe(head="auto", epochs=1))
    assert sizes
    assert max(sizes) <= SAMPLE + 15
    sizes.clear()
    fitted = fit_head(np.eye(3, 8, dtype=np.float32), np.arange(3), 3, np.full(3, -1), Recipe(head="auto"))
    assert not sizes
    assert fitted.head.kind == "linear"
    assert fitted.note.endswith("; linear as the simplest, as heads could not be compared")


def test_thresholds_of_an_mlp_are_chosen_on_a_sample(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def spied(x: np.ndarray, *rest: object) -> np.ndarray:
        sizes.append(len(x))
        return cross_validated(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("rehead.tuning.tasks.cross_validated", spied)
    features, labels, folds = photos(9_000, 8, 3)
    shown = np.eye(3, dtype=np.float32)[labels]
    fitted = fit_task("multilabel", features, shown, 3, folds, Recipe(head="mlp:4", epochs=1))
    assert len(fitted.thresholds) == 3
    assert len(sizes) == 1
    assert sizes[0] <= SAMPLE + 15


def test_a_loss_to_compare_by_is_had_where_the_sample_lacks_classes_and_labels():
    features, labels, folds = photos(120, 10, 3)
    loss, words = cv_loss("classification", features, labels + (labels > 0), 5, folds)  # no photo of 1 and of 4
    assert loss == cv_loss("classification", features, labels, 3, folds)[0] > 0
    assert "right" in words
    shown = np.eye(4, dtype=np.float32)[labels]
    shown[:, 3] = 1
    assert np.isfinite(cv_loss("multilabel", features, shown, 4, folds)[0])
    assert cv_loss("classification", features, np.zeros(120, np.int64), 2, folds) == (np.inf, "")


def test_no_warning_is_raised_where_classes_lie_far_apart():
    features, labels, folds = photos(100, 20, 3)
    features += 1_000 * labels[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve_linear(features, labels, 3, folds=folds).cv_accuracy == 1
        solve_prototype(features, labels, 3)


def test_photos_without_a_mistake_do_not_make_a_head_surer_than_their_number_allows() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = (random.normal(size=(400, 6)) + 40 * labels[:, None]).astype(np.float32)
    solved = solve_linear(features, labels, 2, folds=np.arange(400) % 5)
    assert solved.cv_accuracy == 1.0
    assert solved.cv_log_loss is not None
    assert 1e-6 < solved.cv_log_loss < 1 / 400
    assert solved.penalty > PENALTIES[-1]


def test_axes_that_are_kept_give_the_same_head_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, folds = photos(n=90, width=40)
    file, computed = tmp_path / "axes.safetensors", []
    principal = convex._principal
    monkeypatch.setattr(convex, "_principal", lambda *a, **k: computed.append(1) or principal(*a, **k))
    heads = [
        solve_linear(features, labels, 3, folds=folds, class_weight=weight, axes_in=at).head.layers[0]
        for weight, at in [(None, None), (None, file), (None, file), ("balanced", None), ("balanced", file)]
    ]
    assert len(computed) == 3  # twice without a file, once to write it
    for one, other in ((0, 1), (0, 2), (3, 4)):
        assert all(np.array_equal(a, b) for a, b in zip(heads[one], heads[other], strict=True))


def test_axes_of_other_photos_or_of_a_damaged_file_are_computed_again(tmp_path: Path) -> None:
    file = tmp_path / "axes.safetensors"
    for seed, harm in ((0, None), (1, None), (1, b""), (1, b"\xff" * 64), (1, b"cut"), (1, b"flip")):
        features, labels, folds = photos(n=60, seed=seed)
        if harm is not None:
            whole = file.read_bytes()
            flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
            file.write_bytes({b"cut": whole[:40], b"flip": flipped}.get(harm, harm))
        wanted = solve_linear(features, labels, 3, folds=folds).head.layers[0][0]
        assert np.array_equal(wanted, solve_linear(features, labels, 3, folds=folds, axes_in=file).head.layers[0][0])


def test_where_axes_cannot_be_written_the_head_is_solved_all_the_same(tmp_path: Path) -> None:
    features, labels, folds = photos(n=60)
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "axes.safetensors"
    assert solve_linear(features, labels, 3, folds=folds, axes_in=nowhere).cv_accuracy is not None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_feature_that_hardly_varied_does_not_decide_when_it_moves() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = random.normal(0, 1, (60, 40)).astype(np.float32)
    features[:, 0] += 2 * labels
    features[:, 1] = 1e-5 * (labels + random.normal(0, 0.3, 60))  # tells the classes here, by next to nothing
    head = solve_linear(features, labels, 2, folds=np.arange(60) // 2 % 5).head
    new = features.copy()
    new[:, 1] = 0.1
    assert np.abs(head.logits(new) - head.logits(features)).max() < 0.5


def test_the_inner_folds_hold_copies_together_and_never_all_of_a_class():
    """20 classes, three in four with one photo beside the outer fold; copies stand in pairs, one fold each."""
    labels = np.repeat(np.arange(20), [6] * 5 + [2] * 15)
    folds = np.arange(60) // 2 % 5
    inner = _inner(labels, folds)
    assert (inner[::2] == inner[1::2])[:15].all()
    for label in range(20):
        own = set(inner[labels == label].tolist())
        assert own == {-1} or len(own) > 1
    assert (inner[30:] == -1).all()


def test_of_one_fold_that_is_left_the_inner_folds_are_dealt_anew():
    labels = np.repeat(np.arange(3), [4, 5, 1])
    inner = _inner(labels, np.where(np.arange(10) == 0, -1, 1))
    assert inner[0] == inner[9] == -1
    assert all(set(inner[labels == label].tolist()) >= {0, 1} for label in (0, 1))
