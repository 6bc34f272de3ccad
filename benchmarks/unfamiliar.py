"""Claim: photos of other things than a model's classes are told from its own by their features.

Ants and bees shown to a model of cats and dogs, flowers to both, and every other way round: the AUROC of several distances,
and the share of the strangers that each recognises where 95 % of the model's own held-out photos are kept. `rehead.tune`
takes the cosine distance to the 5th nearest photo; the others are computed here for comparison. One run: nothing is drawn.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measured import DATA, report
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

import rehead
from rehead.features.cache import default_cache_folder
from rehead.features.store import Store
from rehead.tuning.familiar import K, far, fit_familiar

NAMES = ("dogscats", "hymenoptera", "flowers")
KEPT = 0.95
Score = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {name: _features(name, Path(folder)) for name in NAMES}
        facts: dict[str, Any] = {}
        for own in NAMES:
            x, y, is_train = found[own]
            scores = _scores(x[is_train], y[is_train])
            model = rehead.load(Path(folder) / own / "bundle")
            for other in NAMES:
                if other == own:
                    continue
                strange, held_out = found[other][0], x[~is_train]
                for method, score in scores.items():
                    facts[f"{own} shown {other}: {method}"] = _told(score(held_out), score(strange))
                above = model.bundle.unfamiliar_above
                shares = [(scores["cosine, 5th nearest"](z) > above).mean() for z in (held_out, strange)]
                facts[f"{own} shown {other}: at the bundle's threshold"] = (
                    f"{shares[1]:.1%} of the strangers, {shares[0]:.1%} of its own held-out photos are unfamiliar"
                )
        report("unfamiliar", facts)


def _features(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 1280), labels (n,) and whether each photo is learned from, of a run on a data set."""
    import os

    cache = default_cache_folder(os.environ)
    run = rehead.tune(DATA / name, out=folder / name, report=False).run
    rows = list(csv.DictReader((run / "catalog.csv").open(encoding="utf-8")))
    (identity,) = {path.name for path in (cache / "features").iterdir() if _is_default(path)}
    with Store.open(cache, identity, shape=(1280,), about={}) as store:
        absent = set(store.missing([bytes.fromhex(row["digest"]) for row in rows]))
        rows = [row for row in rows if bytes.fromhex(row["digest"]) not in absent]
        x = store.read([bytes.fromhex(row["digest"]) for row in rows])
    return x, np.array([row["label"] for row in rows]), np.array([row["side"] == "train" for row in rows])


def _is_default(store: Path) -> bool:
    import json

    about = json.loads((store / "about.json").read_text())
    known = (about.get("backbone"), about.get("cut"), about.get("view"), (about.get("preprocess") or {}).get("fit"))
    return known == ("efficientnet_lite0", "pool", "plain", "crop")


def _told(own: np.ndarray, strange: np.ndarray) -> str:
    is_strange = np.r_[np.zeros(len(own)), np.ones(len(strange))]
    share = (strange > np.quantile(own, KEPT)).mean()
    return f"AUROC {roc_auc_score(is_strange, np.r_[own, strange]):.3f}, {share:.1%} recognised at {KEPT:.0%} kept"


def _scores(x: np.ndarray, y: np.ndarray) -> dict[str, Score]:
    familiar = fit_familiar(x)
    assert familiar is not None
    classes = np.unique(y)
    means = np.stack([x[y == label].mean(axis=0) for label in classes])
    inverse = np.linalg.inv(ledoit_wolf(x - means[np.searchsorted(classes, y)], assume_centered=True)[0])
    axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:256]

    def within(z: np.ndarray) -> np.ndarray:
        return np.stack([np.einsum("ij,jk,ik->i", z - m, inverse, z - m) for m in means]).min(axis=0)

    def left_over(z: np.ndarray) -> np.ndarray:
        moved = z - x.mean(axis=0)
        return np.square(moved).sum(axis=1) - np.square(moved @ axes.T).sum(axis=1)

    return {
        "cosine, 5th nearest": lambda z: far(z, familiar.bank, K),
        "cosine, nearest": lambda z: far(z, familiar.bank, 1),
        "Mahalanobis": within,
        "left over by 256 principal axes": left_over,
    }


if __name__ == "__main__":
    main()
