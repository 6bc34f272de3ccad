"""Pictures whose perceptual hashes are all but the same, among all pairs, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.parallel import n_cores, ordered_map

# Of 300 copies of cats and dogs at JPEG quality 30 to 95 and 0.35 to 1.6 of the size half differ in 4 bits and none in more
# than 24; photos that are no copies in 84 and more. Among the flowers all pairs under 26 bits are one photo, edited.
MAX_BITS = 24  # of 256
# Drawings are more alike: digits differ in 26 bits and more. So a copy is also four times nearer than the nearest hundredth of
# all pairs, which is at 108 bits for three sets of photos and at 78 for digits.
NEARER, HUNDREDTH = 4, 0.01
MIN_PHOTOS = 100  # of fewer a pair of copies may be a hundredth of all pairs
N_PAIRS = 20_000  # drawn to see how alike they are: 200 of them lie below the hundredth
BLOCK_BYTES = 32 << 20  # of distances, for each thread


def near_pairs(
    hashes: Mapping[int, int], *, told: Callable[[int], None] = lambda _: None
) -> tuple[tuple[int, int, int], ...]:
    """Pairs of keys, the smaller first, whose hashes are near, with the bits by which they differ, of 256; in order.

    Of keys with one hash, each is paired with the first of them alone, so that a thousand copies are no million pairs.
    told: how many more keys are done.
    """
    first: dict[int, int] = {}
    pairs = [(first[value], key, 0) for key, value in sorted(hashes.items()) if first.setdefault(value, key) != key]
    told(len(pairs))
    keys = np.array(list(first.values()), np.int64)
    signs = signs_of(list(first))
    limit = _limit(signs)
    step = max(1, BLOCK_BYTES // (4 * max(1, len(keys))))

    def near(start: int) -> list[tuple[int, int, int]]:
        bits = (256 - signs[start : start + step] @ signs[start:].T) / 2
        rows, columns = np.nonzero(bits <= limit)
        later = columns > rows
        found = zip(
            keys[start + rows[later]], keys[start + columns[later]], bits[rows[later], columns[later]], strict=True
        )
        return [(min(a, b), max(a, b), int(n)) for a, b, n in ((int(a), int(b), n) for a, b, n in found)]

    with threadpool_limits(1):
        starts = range(0, len(keys), step)
        for start, found in zip(starts, ordered_map(near, starts, workers=n_cores(), ahead=n_cores()), strict=True):
            pairs += found
            told(min(step, len(keys) - start))
    return tuple(sorted(pairs))


def signs_of(hashes: list[int]) -> NDArray[np.float32]:
    """The bits of each hash as -1 and 1, (n, 256): their products count those that agree."""
    data = b"".join(value.to_bytes(32, "big") for value in hashes)
    return np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, 256).astype(np.float32) * 2 - 1


def _limit(signs: NDArray[np.float32]) -> float:
    """The most bits by which copies differ."""
    n = len(signs)
    if n < MIN_PHOTOS:
        return MAX_BITS
    a, b = np.random.default_rng(0).integers(0, n, (2, N_PAIRS))
    bits = (256 - np.einsum("nd,nd->n", signs[a], signs[b])) / 2
    return min(MAX_BITS, float(np.quantile(bits[a != b], HUNDREDTH)) / NEARER)
