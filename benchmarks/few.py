"""Claims: of 5, 10 and 20 photos a class, the linear head is right on more of the held-out photos, and far less often sure of a
wrong answer, than scikit-learn's logistic regression behind its scaler, with its own penalty, on the same features.

Twelve draws of each size from the training side; all are judged on the same held-out photos. Also the same head with each
feature at deviation 1, which is what `convex.LEAST` differs in, and the prototype head. Means over the draws.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from measured import DATA, dogscats_manifest, report
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rehead.auditing.job import look_at
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.features.cache import cache_folder
from rehead.job import Job
from rehead.tuning import convex
from rehead.tuning.recipe import Recipe
from rehead.tuning.solve import solve_linear, solve_prototype
from rehead.verdict.calibrate import log_softmax

SIZES, DRAWS, FOLDS = (5, 10, 20), 12, 5
Logits = NDArray[np.floating[Any]]


def main() -> None:
    facts: dict[str, Any] = {}
    cache = cache_folder(None)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("hymenoptera", "dogscats", "flowers"):
            source = dogscats_manifest(Path(folder)) if name == "dogscats" else DATA / name
            catalog = scan(open_source(source, cache=cache), seed=0, valid_fraction=0.2)
            looked = look_at(Job(catalog, cache), Recipe(max_bad=1.0))
            labels = catalog.labels(looked.positions)
            held_out = np.array([catalog.photos[i].side != "train" for i in looked.positions])
            for size in SIZES:
                facts |= compared(f"{name}, {size} a class", looked.features, labels, held_out, size)
    report("few", facts)


def compared(
    name: str, x: NDArray[Any], y: NDArray[np.int64], held_out: NDArray[np.bool_], size: int
) -> dict[str, Any]:
    random, n_classes, learn = np.random.default_rng(0), int(y.max()) + 1, np.flatnonzero(~held_out)
    drawn = [
        np.concatenate([random.permutation(learn[y[learn] == c])[:size] for c in range(n_classes)])
        for _ in range(DRAWS)
    ]
    return {
        f"{name}, {way}": " ".join(
            f"{mean:.3f}"
            for mean in np.mean([judged(fit(x[rows], y[rows], x[held_out]), y[held_out]) for rows in drawn], 0)
        )
        for way, fit in ways(n_classes).items()
    }


def judged(logits: Logits, labels: NDArray[np.int64]) -> tuple[float, float]:
    """The share right, and the log-loss."""
    of_right = log_softmax(logits)[np.arange(len(labels)), labels]
    return float((logits.argmax(axis=1) == labels).mean()), float(-of_right.mean())


def ways(n_classes: int) -> dict[str, Callable[[NDArray[Any], NDArray[np.int64], NDArray[Any]], Logits]]:
    """From photos learned from, (m, d) and (m,), and photos shown, to the logits of these."""

    def linear(x: NDArray[Any], y: NDArray[np.int64], shown: NDArray[Any]) -> Logits:
        return solve_linear(x, y, n_classes, folds=np.arange(len(y)) % FOLDS).head.logits(shown)

    def evenly(x: NDArray[Any], y: NDArray[np.int64], shown: NDArray[Any]) -> Logits:
        with mock.patch.object(convex, "LEAST", 0.0):
            return linear(x, y, shown)

    def scikit_learn(x: NDArray[Any], y: NDArray[np.int64], shown: NDArray[Any]) -> Logits:
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
        decided = fitted.decision_function(shown)  # of two classes, one number
        return np.asarray(decided if decided.ndim == 2 else np.stack([-decided / 2, decided / 2], axis=1))

    def prototype(x: NDArray[Any], y: NDArray[np.int64], shown: NDArray[Any]) -> Logits:
        return solve_prototype(x, y, n_classes).logits(shown)

    return {
        "linear": linear,
        "each feature at deviation 1": evenly,
        "scikit-learn": scikit_learn,
        "prototype": prototype,
    }


if __name__ == "__main__":
    main()
