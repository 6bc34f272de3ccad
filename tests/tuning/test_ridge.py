"""Ridge regression: scikit-learn is the oracle, and a plain loop over the folds."""

from __future__ import annotations

import numpy as np
import pytest
from standardised import standardised

from rehead.tuning.ridge import PENALTIES, solve_quick_ridge, solve_ridge


def photos(n: int = 120, width: int = 40, seed: int = 0):
    random = np.random.default_rng(seed)
    features = random.normal(size=(n, 6)) @ random.normal(size=(6, width)) + random.normal(size=(n, width))
    features = (features * np.exp(random.normal(size=width)) + 3).astype(np.float32)
    values = 50 + features[:, :4] @ random.normal(size=4) + random.normal(size=n)
    return features, values.astype(np.float32), np.arange(n) % 5


@pytest.mark.parametrize(("n", "width"), [(120, 40), (60, 200), (1500, 30)])
def test_numbers_are_those_of_scikit_learn(n: int, width: int) -> None:
    from sklearn.linear_model import Ridge

    features, values, folds = photos(n, width)
    solved = solve_ridge(features, values, folds=folds)
    oracle = Ridge(alpha=solved.penalty * n).fit(standardised(features), values)
    found = solved.head.logits(features)
    assert found.shape == (n, 1)
    np.testing.assert_allclose(found[:, 0], oracle.predict(standardised(features)), atol=2e-3)


@pytest.mark.parametrize(("n", "width"), [(120, 40), (60, 200)])
def test_the_penalty_chosen_is_the_best_of_a_plain_loop_over_folds(n: int, width: int) -> None:
    from sklearn.linear_model import Ridge

    features, values, folds = photos(n, width)
    x, losses = standardised(features), {}
    for penalty in PENALTIES:
        squares = [
            (
                Ridge(alpha=penalty * n).fit(x[folds != f], values[folds != f]).predict(x[folds == f])
                - values[folds == f]
            )
            ** 2
            for f in range(5)
        ]
        losses[penalty] = np.concatenate(squares).mean()
    solved = solve_ridge(features, values, folds=folds)
    assert solved.cv_mse == pytest.approx(min(losses.values()), rel=1e-3)
    assert losses[solved.penalty] == pytest.approx(min(losses.values()), rel=1e-3)


def test_photos_of_fold_minus_one_are_never_held_out() -> None:
    features, values, folds = photos()
    some = np.where(np.arange(len(folds)) < 60, folds, -1)
    assert solve_ridge(features, values, folds=some).cv_mse is not None
    none = solve_ridge(features, values, folds=np.full_like(folds, -1))
    assert none.cv_mse is None
    assert none.note == "no photo could be held out: usual penalty"


def test_scale_and_origin_of_numbers_do_not_matter() -> None:
    features, values, folds = photos()
    plain, moved = (solve_ridge(features, y, folds=folds) for y in (values, 1000 * values - 7))
    np.testing.assert_allclose(
        moved.head.logits(features), 1000 * plain.head.logits(features) - 7, rtol=1e-4, atol=0.05
    )


def test_features_that_never_change_have_no_weight() -> None:
    features, values, folds = photos()
    features[:, 0] = 0.1
    assert solve_ridge(features, values, folds=folds).head.layers[0][0][0, 0] == 0


def test_a_quick_fit_ranks_labels_and_follows_numbers() -> None:
    features, values, _ = photos(300)
    quick = solve_quick_ridge(features, values).logits(features)[:, 0]
    assert np.corrcoef(quick, values)[0, 1] > 0.9
    both = solve_quick_ridge(features, np.stack([values > 50, values < 50], axis=1).astype(np.float32))
    assert both.logits(features).shape == (300, 2)
