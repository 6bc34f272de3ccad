"""The same job as a scikit-learn estimator: features from the store, a head on top."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from rehead.ambient import own_settings
from rehead.bundle import softmax
from rehead.data.rows import is_nothing
from rehead.data.split import fold_numbers
from rehead.errors import RunError
from rehead.features.cache import cache_folder
from rehead.tuning.head import fit_head
from rehead.tuning.recipe import Recipe
from rehead.unlabelled import features_of


class Classifier(ClassifierMixin, BaseEstimator):
    """`fit(images, labels)`, `predict`, `predict_proba`, `score`; for `cross_val_score` and `GridSearchCV`.

    images: a sequence of paths, encoded bytes, Pillow images or uint8 arrays (h, w, 3). A photo that cannot be read is
    an error here, since scikit-learn wants an answer for each. backbone, head, class_weight, seed: see `Recipe`. fit_: its
    `fit`, but not "auto".
    cache: the store's folder, by default REHEAD_CACHE or the user's cache folder.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        head: str = "linear",
        class_weight: str | None = None,
        fit_: str = "default",
        seed: int = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.class_weight = class_weight
        self.fit_ = fit_
        self.seed = seed
        self.cache = cache

    @own_settings()
    def fit(self, images: Sequence[Any], labels: Sequence[Any]) -> Classifier:
        """The head fitted on these photos; `classes_` are the labels, sorted.

        Raises ValueError where there are not as many labels as photos, or they are not one class for each, RunError where all
        labels are the same.
        """
        check_consistent_length(images, labels)
        classes, y = np.unique(_checked(labels), return_inverse=True)
        if len(classes) < 2:
            raise RunError(
                what=f"A classifier needs photos of at least two classes; all {len(y)} are {str(classes[0])!r}.",
                fix="Pass photos of another class too.",
            )
        recipe = self._recipe()
        digests, features = features_of(images, recipe, cache=self._cache())
        folds = fold_numbers(digests, y.astype(np.int64), n_folds=recipe.folds, seed=recipe.seed)
        fitted = fit_head(features, y.astype(np.int64), len(classes), folds, recipe)
        self.classes_, self.head_, self.head_note_ = classes, fitted.head, fitted.note
        self.n_features_in_ = features.shape[1]
        return self

    @own_settings()
    def predict_proba(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """(n, n_classes), in the order of `classes_`."""
        check_is_fitted(self)
        return softmax(self.head_.logits(features_of(images, self._recipe(), cache=self._cache())[1]))

    def predict(self, images: Sequence[Any]) -> NDArray[Any]:
        """A label for each photo."""
        named = self.predict_proba(images).argmax(axis=1)
        return np.asarray(self.classes_[named])

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")  # scikit-learn would take `fit_`, which is a setting, for what fitting gave

    def _recipe(self) -> Recipe:
        return Recipe(
            backbone=self.backbone, head=self.head, class_weight=self.class_weight, fit=self.fit_, seed=self.seed
        )

    def _cache(self) -> Path:
        return cache_folder(self.cache)


def _checked(labels: Sequence[Any]) -> NDArray[Any]:
    """Labels as (n,), one class each. Raises ValueError in scikit-learn's words where they are anything else."""
    y = column_or_1d(labels, warn=True)
    missing = next((i for i, label in enumerate(np.asarray(labels, object).ravel()) if is_nothing(label)), None)
    if missing is not None:
        raise ValueError(f"Label {missing} is missing: leave it out, and its photo.")
    check_classification_targets(y)
    return np.asarray(y)
