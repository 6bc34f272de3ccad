"""How many photos a second an engine takes, measured for a moment with all cores at work. No torch.

For comparing backbones and for planning: the same photos are decoded and run whether their features are stored or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rehead.features.engines import Engine
from rehead.parallel import n_cores, ordered_map

MEASURED_S = 2.0  # about; a network that needs longer for one call on each worker is measured on that
N_DECODED = 32
MAX_ROUNDS = 64  # calls a worker: more tell nothing new of a fast network


def seconds_to_decode(pixels_of: Callable[[int], NDArray[np.uint8]], n_photos: int) -> float:
    """Seconds that decoding a photo takes with all cores at it. pixels_of: as in photos_per_second."""
    n = min(N_DECODED, n_photos)
    begun = time.monotonic()
    list(ordered_map(pixels_of, range(n), workers=n_cores(), ahead=n))
    return (time.monotonic() - begun) / n


def photos_per_second(engine: Engine, pixels_of: Callable[[int], NDArray[np.uint8]], n_photos: int) -> float:
    """Photos decoded and run a second. pixels_of: a number below n_photos -> (h, w, 3), what the engine is given."""

    def work(number: int) -> int:
        places = range(number * engine.batch, (number + 1) * engine.batch)
        return len(engine(np.stack([pixels_of(place % n_photos) for place in places])))

    work(0)  # the first call makes room for what lies between layers
    begun = time.monotonic()
    work(0)
    n_rounds = min(MAX_ROUNDS, max(1, round(MEASURED_S / max(time.monotonic() - begun, 1e-4))))
    begun = time.monotonic()
    numbers = range(n_rounds * engine.workers)
    n_done = sum(ordered_map(work, numbers, workers=engine.workers, ahead=2 * engine.workers))
    return n_done / (time.monotonic() - begun)
