"""How fast an engine is said to be: what its calls took, of all workers and whole batches."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rehead.features.rate import photos_per_second


class Sleeper:
    """An engine that needs 0.1 s for 4 photos, two of which go at once. calls: when each began and ended."""

    name, version, precision, workers, batch = "sleeper", "1", "fp32", 2, 4

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        begun = time.monotonic()
        time.sleep(0.1)
        self.calls.append((begun, time.monotonic()))
        return np.zeros((len(pixels), 2), np.float32)


@pytest.mark.long
def test_it_counts_all_workers_and_whole_batches() -> None:
    asked: list[int] = []

    def pixels_of(place: int) -> np.ndarray:
        asked.append(place)
        return np.zeros((2, 2, 3), np.uint8)

    engine = Sleeper()
    found = photos_per_second(engine, pixels_of, 3)
    measured = engine.calls[2:]  # the first makes room, the second says how many to measure
    took = max(ended for _, ended in measured) - min(
        begun for begun, _ in measured
    )  # a machine that halts is no failure
    assert found == pytest.approx(4 * len(measured) / took, rel=0.2)
    assert sum(ended - begun for begun, ended in measured) > 1.5 * took
    assert set(asked) == {0, 1, 2}
