"""The photos nearest to some others by their features, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # rows of the pool at a time: some tens of MB of features in float32


def nearest(
    queries: NDArray[np.floating[Any]], pool: NDArray[np.floating[Any]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of `pool` and their cosine similarity in -1..1, (n, min(k, m)) each, the nearest first; equal ones by place.

    queries: (n, width). pool: (m, width). A row of nothing but zeros is as near to all.
    """
    asked = _of_length_one(queries)
    likeness = np.concatenate(
        [asked @ _of_length_one(pool[i : i + BLOCK]).T for i in range(0, len(pool), BLOCK)]
        or [np.zeros((len(asked), 0), np.float32)],
        axis=1,
    )
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    return order.astype(np.int64), np.take_along_axis(likeness, order, axis=1)


def _of_length_one(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    rows = np.asarray(rows, np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
