"""What a photo is like that a model knows: how near its features lie to those of the photos it learned from.

The distance is the cosine distance to the K-th nearest of them, Sun et al. 2022 (deep nearest neighbours). It knows nothing
of classes, so it serves whatever was learned. Measured on cats and dogs, ants and bees, and flowers, each shown to a model
of another (`benchmarks/unfamiliar.py`), it told them apart better than Mahalanobis distances (Lee et al. 2018) or what
principal axes leave over.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Familiar
from rehead.data.split import seed_for

K = 5  # the nearest alone may be a copy of the photo; further ones are of other groups where there are few photos
MAX_BANK = 2_000  # photos: 5 MB of a bundle at 1,280 features; Sun et al. lose little with a hundredth of ImageNet
MIN_BANK = 30  # photos, below which a share of them says nothing of others
KEPT = 0.98  # of familiar photos are taken for familiar
MIN_APART = (
    49  # photos that were not learned from, from which on they set the threshold by themselves: see `_above_most`
)


def fit_familiar(
    features: NDArray[np.floating], apart: NDArray[np.floating] | None = None, *, seed: int = 0
) -> Familiar | None:
    """What is familiar, from features (n, width) of photos learned from; None where they are too few.

    apart: (m, width) of photos that layers below did not learn from: what a network was tuned on lies nearer together than
    new photos do. With fewer than MIN_APART of them each photo of the bank is measured against the others too, and the larger
    threshold is taken.
    """
    if len(features) < MIN_BANK:
        return None
    rows = bank_rows(len(features), seed=seed)
    bank = unit(np.asarray(features[rows], np.float32)).astype(np.float16)
    k = min(K, len(bank) - 1)
    thresholds = [] if apart is None or not len(apart) else [_above_most(far(apart, bank, k))]
    if apart is None or len(apart) < MIN_APART:
        thresholds.append(_above_most(far(bank, bank, k + 1)))  # the first is the photo itself
    return Familiar(bank, k, max(thresholds), KEPT)


def _above_most(distances: NDArray[np.float32]) -> float:
    """Which of n distances the next one lies within with probability KEPT: number (n + 1) KEPT of them, the largest of few
    (conformal prediction, Vovk et al. 2005). Their own quantile lies lower, and of 40 photos twice as many are beyond it.
    """
    place = min(len(distances), math.ceil(round((len(distances) + 1) * KEPT, 6)))
    return float(np.partition(distances, place - 1)[place - 1])


def bank_rows(n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Which of n photos the bank holds, ascending: its row i is of photo bank_rows(n)[i]."""
    return np.sort(np.random.default_rng(seed_for(seed, "bank")).permutation(n)[:MAX_BANK])


def far(features: NDArray[np.floating], bank: NDArray[np.float16], k: int) -> NDArray[np.float32]:
    """The cosine distance, 0..2, of each of n photos to the k-th nearest of the bank, (n,). features: (n, width)."""
    reference = bank.astype(np.float32).T
    found = np.empty(len(features), np.float32)
    for start in range(0, len(features), 1_000):
        near = unit(np.asarray(features[start : start + 1_000], np.float32)) @ reference
        found[start : start + 1_000] = 1 - np.partition(near, -k, axis=1)[:, -k]
    return found


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; a row of zeros stays as it is."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), np.float32)
