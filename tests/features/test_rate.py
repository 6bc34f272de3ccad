"""How fast an engine is said to be: within reach of what it is, with an engine whose speed is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rehead.features.rate import photos_per_second


class Sleeper:
    """An engine that needs 0.1 s for 4 photos, two of which go at once: 80 photos a second."""

    name, version, precision, workers, batch = "sleeper", "1", "fp32", 2, 4

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.1)
        return np.zeros((len(pixels), 2), np.float32)


def test_it_counts_all_workers_and_whole_batches() -> None:
    asked: list[int] = []

    def pixels_of(place: int) -> np.ndarray:
        asked.append(place)
        return np.zeros((2, 2, 3), np.uint8)

    assert photos_per_second(Sleeper(), pixels_of, 3) == pytest.approx(80, rel=0.3)
    assert set(asked) == {0, 1, 2}
