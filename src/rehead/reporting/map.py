"""Features laid out in two dimensions, so that photos alike to the network stand near each other.

PCA to 50 numbers, then t-SNE (van der Maaten and Hinton 2008), on a sample where photos are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 800  # photos: t-SNE takes one to two seconds for them
N_COMPONENTS = 50
FEWEST = 4  # with fewer there is nothing to lay out
PERPLEXITY = 30.0
N_ITER = 400  # what a sample of this size takes to settle
ANGLE = 0.7  # of Barnes-Hut: a third faster than 0.5, and the eye sees no difference


@dataclass(frozen=True)
class Layout:
    """rows: (n,) of the features, which photos are shown. xy: (n, 2) float32."""

    rows: NDArray[np.int64]
    xy: NDArray[np.float32]


def layout(features: NDArray[np.floating[Any]], keep: Sequence[int] = (), *, seed: int = 0) -> Layout | None:
    """The map of at most MOST photos; None where they are too few or all alike. The same for the same seed.

    features: (n, width). keep: rows that come first, on at most half of the map.
    """
    rows = _sample(len(features), keep, seed)
    x = np.asarray(features[rows], np.float32)
    if len(rows) < FEWEST or not np.isfinite(x).all() or np.ptp(x, axis=0).max() < 1e-12:
        return None
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # small products: threads that wait for each other lose, fivefold on busy cores
        return Layout(rows, _laid_out(x, seed))


def _laid_out(x: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n_components = min(N_COMPONENTS, len(x) - 1, x.shape[1])
    small = PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(x)
    if small.shape[1] < 2:
        return np.stack([small[:, 0], np.zeros(len(x))], axis=1).astype(np.float32)
    begin = small[:, :2] / max(float(small[:, 0].std()), 1e-12) * 1e-4  # as scikit-learn begins with PCA
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(x) - 1) / 3),
        init=begin,
        random_state=seed,
        max_iter=N_ITER,
        angle=ANGLE,
        n_jobs=1,
    )
    return np.asarray(tsne.fit_transform(small), np.float32)


def _sample(n: int, keep: Sequence[int], seed: int) -> NDArray[np.int64]:
    if n <= MOST:
        return np.arange(n)
    drawn = np.random.default_rng(seed).permutation(n)
    first = drawn[np.isin(drawn, np.asarray(keep, np.int64))][: MOST // 2]
    rest = drawn[~np.isin(drawn, first)][: MOST - len(first)]
    return np.sort(np.concatenate([first, rest]))
