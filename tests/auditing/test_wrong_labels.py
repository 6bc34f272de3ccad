"""Labels that are likely wrong, photos unlike all others, odd pictures: found where they are, and not where they are usual."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made import catalog_of, facts_with

from rehead.auditing import examine
from rehead.auditing.apart import logits_apart, logits_held_out
from rehead.auditing.copies import alike
from rehead.auditing.labels import label_issues
from rehead.auditing.outliers import outliers
from rehead.auditing.pictures import odd_pictures
from rehead.data.split import fold_numbers
from rehead.job import Job
from rehead.progress import Silent
from rehead.tuning.recipe import Recipe

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.integers(0, 3, 150)
FEATURES = (RANDOM.normal(size=(150, 12)) + 3 * np.eye(12)[TRUE]).astype(np.float32)
KEYS = [i.to_bytes(4, "big") for i in range(150)]


@pytest.mark.parametrize("seed", range(1, 5))
def test_flipped_labels_are_found_with_the_right_suggestion(seed: int) -> None:
    """Of twelve seeds one finds six of the eight, the others seven or all."""
    given = TRUE.copy()
    given[:8] = (given[:8] + 1) % 3
    catalog = catalog_of(["abc"[label] for label in given])
    folds = fold_numbers(KEYS, given, n_folds=5, seed=seed)
    issues = label_issues(catalog, range(150), logits_apart(FEATURES, given, 3, folds))
    flipped = {f"{i}.jpg": "abc"[TRUE[i]] for i in range(8)}
    hits = [issue for issue in issues[:10] if issue.path in flipped]
    assert len(hits) >= 7
    assert all(hit.suggested == flipped[hit.path] and hit.given < hit.probability for hit in hits)
    assert [issue.given for issue in issues] == sorted(issue.given for issue in issues)


def test_photos_without_a_model_that_did_not_see_them_are_left_out() -> None:
    logits = np.full((150, 3), np.nan, np.float32)
    catalog = catalog_of(["abc"[label] for label in TRUE])
    assert label_issues(catalog, range(150), logits) == ()
    logits[:40, :2] = RANDOM.normal(size=(40, 2))  # the third class is known to none
    assert all(issue.suggested != "c" and issue.label != "c" for issue in label_issues(catalog, range(150), logits))


@pytest.mark.parametrize("folds", [[0] * 6, [-1] * 6, [0, 0, 0, 0, 1, 1]])
def test_a_class_of_one_fold_is_never_held_out(folds: list[int]) -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert np.isnan(logits_apart(FEATURES[:6], labels, 2, np.array(folds))).all()


def test_a_class_that_no_photo_has_is_known_to_no_head() -> None:
    labels, is_train = np.array([0, 2] * 10), np.arange(20) < 14
    apart = logits_apart(FEATURES[:20], labels, 4, np.arange(20) // 2 % 5)
    assert np.isnan(apart).any(axis=0).tolist() == [False, True, False, True]
    held_out = logits_held_out(FEATURES[:20], labels, 4, is_train)
    assert np.isnan(held_out[:14]).all()
    assert np.isneginf(held_out[14:, 1]).all()
    assert np.isfinite(held_out[14:, [0, 2]]).all()


def test_a_photo_far_from_its_neighbours_is_an_outlier() -> None:
    x = np.abs(RANDOM.normal(size=(60, 8)) * 0.1 + 1).astype(np.float32)
    x[7] = [-1, 1] * 4
    first, *others = outliers(catalog_of("ab" * 30), alike(list(range(60)), x, {}))
    assert (first.path, first.distance > 5 * first.usual) == ("7.jpg", True)
    assert len(others) < 4
    assert outliers(catalog_of("ab" * 5), alike(list(range(10)), x[:10], {})) == ()


def test_each_fault_of_a_picture_is_named_with_its_number() -> None:
    n = 40
    columns = {
        "contrast": [0.5, *[50.0] * 39], "brightness": [120.0, 5.0, 250.0, *[120.0] * 37],
        "sharpness": [500.0] * 3 + [8.0] + RANDOM.uniform(200, 900, 36).tolist(),
        "width": [400] * 4 + [40, 2000] + [400] * 34,
    }  # fmt: skip
    found = {odd.path: odd for odd in odd_pictures(catalog_of("ab" * 20), facts_with(n, **columns))}
    assert [found[f"{i}.jpg"].fault for i in range(6)] == ["blank", "dark", "bright", "blurred", "tiny", "odd shape"]
    assert len(found) == 6
    assert found["1.jpg"].why == "mean brightness 5 of 255, usually 120"


def test_what_all_photos_are_is_not_odd() -> None:
    small = facts_with(30, width=[32] * 30, height=[32] * 30, brightness=[15.0] * 30, sharpness=[3.0] * 30)
    assert odd_pictures(catalog_of("ab" * 15), small) == ()
    wide = facts_with(30, width=[2000] * 30)
    assert odd_pictures(catalog_of("ab" * 15), wide) == ()
    assert odd_pictures(catalog_of("a"), facts_with(1)) == ()


@pytest.mark.parametrize(
    ("pair", "tie_copies", "by_folds"), [((0, 2), True, False), ((0, 3), True, True), ((0, 2), False, True)]
)
def test_answers_of_the_run_say_what_a_label_is_only_where_no_copy_was_learned_from(
    pair: tuple[int, int], tie_copies: bool, by_folds: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Photos 0 to 2 are learned from, each judged by other folds; 3 is held out."""
    catalog = catalog_of("aabb", ["train", "train", "train", "valid"], ours=False)
    outputs = SimpleNamespace(train=np.arange(3), held_out=np.array([3]), logits=np.array([[0, 3]], np.float32),
                              apart=np.arange(3), apart_logits=np.zeros((3, 2), np.float32))  # fmt: skip
    run = SimpleNamespace(outputs=outputs, run=SimpleNamespace(recipe=Recipe(tie_copies=tie_copies)))
    features = np.eye(4, dtype=np.float32)
    found = replace(alike(range(4), features, {}), pairs=((*pair, 3),))
    solved = np.ones((4, 2), np.float32)
    monkeypatch.setattr(examine, "logits_apart", lambda *_: solved)
    apart = examine._apart(Job(catalog, tmp_path, Silent()), run, range(4), features, found)
    assert (apart is solved) == by_folds
    assert by_folds or apart.tolist() == [[0, 0], [0, 0], [0, 0], [0, 3]]
