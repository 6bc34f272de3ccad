"""A number while photos come: with all that it costs in the budget, and not sooner than there is something to tell."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rehead.bundle import Head
from rehead.tuning import anytime
from rehead.tuning.anytime import Anytime

LABELS, IS_TRAIN = np.arange(12) % 2, np.arange(12) < 8


def test_features_beyond_half_precision_are_taken_as_the_store_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anytime, "FIRST_AFTER_S", 0.0)
    seen: list[np.ndarray] = []

    def fit(x: np.ndarray, y: np.ndarray) -> Head:
        seen.append(x)
        return Head("linear", ((np.zeros((2, 3)), np.zeros(2)),))

    found = Anytime(LABELS, IS_TRAIN, fit, lambda logits, labels: "told")
    found.add(list(range(12)), np.full((12, 3), 1e6, np.float32))
    assert found.check() == "told"
    assert np.isfinite(seen[0]).all()


def test_what_telling_takes_counts_as_time_of_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anytime, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(anytime, "EVERY_S", 0.0)

    def tell(logits: np.ndarray, labels: np.ndarray) -> str:
        time.sleep(0.05)
        return f"{len(logits)} of {len(labels)}"

    found = Anytime(LABELS, IS_TRAIN, lambda x, y: Head("linear", ((np.zeros((2, 3)), np.zeros(2)),)), tell)
    assert found.check() == ""
    found.add(list(range(12)), np.ones((12, 3), np.float32))
    assert found.check() == "4 of 4"
    assert found.check() == ""
