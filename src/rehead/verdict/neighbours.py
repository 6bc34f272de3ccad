"""The photos most like a photo: exact nearest neighbours of features by cosine, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.parallel import n_cores, ordered_map

BLOCK_BYTES = 32 << 20  # of similarities, for each thread


@dataclass(frozen=True)
class Neighbours:
    """For each query its nearest photos, the nearest first. places: (m, k) int64, rows of the features that were searched.
    similarity: (m, k) float32, cosine, -1..1."""

    places: NDArray[np.int64]
    similarity: NDArray[np.float32]


def neighbours(
    features: NDArray[Any], queries: NDArray[Any], k: int, *, told: Callable[[int], None] = lambda _: None
) -> Neighbours:
    """The k nearest rows of `features` (n, d) to each of `queries` (m, d), all n of them where k is larger; equals in order.

    A row of zeros is like nothing: its similarity is 0. told: how many more queries are done, after each block.
    """
    searched, asked = directions(features), directions(queries)
    k = min(k, len(searched))
    places = np.empty((len(asked), k), np.int64)
    similarity = np.empty((len(asked), k), np.float32)
    step = max(1, BLOCK_BYTES // (4 * max(1, len(searched))))
    blocks = [slice(start, start + step) for start in range(0, len(asked) if k else 0, step)]
    workers = n_cores()
    with threadpool_limits(1):  # a block a thread: choosing the nearest takes as long as the products
        found = ordered_map(lambda block: _nearest(asked[block], searched, k), blocks, workers=workers, ahead=workers)
        for block, (nearest, values) in zip(blocks, found, strict=True):
            places[block], similarity[block] = nearest, values
            told(len(nearest))
    return Neighbours(places, similarity)


def other_neighbours(features: NDArray[Any], k: int, *, told: Callable[[int], None] = lambda _: None) -> Neighbours:
    """The k nearest other rows of `features` (n, d) to each of them: as `neighbours`, but no row is its own neighbour."""
    found = neighbours(features, features, k + 1, told=told)
    if not len(features):
        return found
    is_own = found.places == np.arange(len(found.places))[:, None]
    is_own[~is_own.any(axis=1), -1] = True  # of more than k equal rows it may be none: then the last one goes
    others = np.argsort(is_own, axis=1, kind="stable")[:, : max(0, found.places.shape[1] - 1)]
    return Neighbours(
        np.take_along_axis(found.places, others, axis=1), np.take_along_axis(found.similarity, others, axis=1)
    )


def directions(features: NDArray[Any]) -> NDArray[np.float32]:
    """The rows (n, d) at length 1, float32; zeros stay zeros."""
    rows = np.asarray(features, np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _nearest(
    asked: NDArray[np.float32], searched: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    n = len(searched)
    cosines = asked @ searched.T
    nearest = np.argpartition(cosines, n - k, axis=1)[:, n - k :] if k < n else np.tile(np.arange(n), (len(asked), 1))
    values = np.take_along_axis(cosines, nearest, axis=1)
    order = np.lexsort((nearest, -values), axis=1)
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(values, order, axis=1)
