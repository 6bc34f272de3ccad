"""Pictures whose perceptual hashes are all but the same.

Among few all pairs are compared. Among many that would take hours, and only those are that stand near each other in an order of
the hashes: in each of 32 orders, each of which begins with another byte of them and goes on with others at random. Two
hashes that differ in few bits agree in the first bytes of many of the orders, and so stand side by side there (Charikar 2002,
Similarity estimation techniques from rounding algorithms, section 3; Ravichandran et al. 2005).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.data.columns import equal_rows
from rehead.data.spill import empty
from rehead.parallel import n_cores, ordered_map

# Of 300 copies of cats and dogs at JPEG quality 30 to 95 and 0.35 to 1.6 of the size half differ in 4 bits and none in more
# than 24; photos that are no copies in 84 and more. Among the flowers all pairs under 26 bits are one photo, edited.
MAX_BITS = 24  # of 256
# Drawings are more alike: digits differ in 26 bits and more. So a copy is also four times nearer than the nearest hundredth of
# all pairs, which is at 108 bits for three sets of photos and at 78 for digits.
NEARER, HUNDREDTH = 4, 0.01
MIN_PHOTOS = 100  # of fewer a pair of copies may be a hundredth of all pairs
N_PAIRS = 20_000  # drawn to see how alike they are: 200 of them lie below the hundredth
ALL_PAIRS = 10_000  # pictures up to which all pairs are compared, which takes half a second
WORDS, BYTES = 4, 32  # of a hash
LEADING = 8  # bytes by which an order is made
NEXT = 8  # in an order, each is compared with so many that follow
BLOCK_BYTES = 32 << 20  # of distances, for each thread
ORDER_BYTES, ORDERED_BYTES = 2 << 30, 32  # of orders that are made at once, and a picture in one

Hashes = NDArray[np.uint64]  # (n, 4), the first bits of a hash first
Pairs = NDArray[np.int64]  # (m, 3): two places, and the bits by which they differ


def words(data: bytes) -> Hashes:
    """Hashes as words, from 32 bytes of each."""
    return np.frombuffer(data, ">u8").reshape(-1, WORDS).astype(np.uint64)


def as_words(hashes: Iterable[int]) -> Hashes:
    """The same, from numbers."""
    return words(b"".join(value.to_bytes(BYTES, "big") for value in hashes))


def taken(hashes: Hashes, places: NDArray[np.int64]) -> Hashes:
    """Those of the hashes, in a file where they are many."""
    into = empty((len(places), WORDS), np.uint64)
    return np.take(hashes, places, axis=0, out=into, mode="clip")  # another mode makes a copy of all first


def near_pairs(
    keys: NDArray[np.int64], hashes: Hashes, *, told: Callable[[int], None] = lambda _: None
) -> tuple[tuple[int, int, int], ...]:
    """Pairs of keys, the smaller first, whose hashes are near, with the bits by which they differ, of 256; in order.

    keys: (n,), each once, ascending. Of keys with one hash, each is paired with the first of them alone, so that a thousand
    copies are no million pairs; among many, of those that hang together only as many pairs as join them. told: how many more
    keys are done.
    """
    pairs = [(places[0], place, 0) for places in equal_rows(hashes) for place in places[1:]]
    told(len(pairs))
    alone = np.delete(np.arange(len(keys)), [place for _, place, _ in pairs])
    different = taken(hashes, alone) if pairs else hashes
    limit = _limit(different)
    compared = _all_pairs if len(alone) <= ALL_PAIRS else _side_by_side
    found = [np.array(pairs, np.int64).reshape(-1, 3)]
    with threadpool_limits(1):
        for some in compared(different, limit, told):
            found.append(np.column_stack([alone[some[:, 0]], alone[some[:, 1]], some[:, 2]]))
    every = np.concatenate(found)
    every[:, :2] = np.sort(keys[every[:, :2]], axis=1)
    return tuple((a, b, bits) for a, b, bits in np.unique(every, axis=0).tolist())


def _all_pairs(hashes: Hashes, limit: float, told: Callable[[int], None]) -> Iterable[Pairs]:
    """Products of the bits as -1 and 1 count those that agree."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    step = max(1, BLOCK_BYTES // (4 * max(1, len(signs))))

    def near(start: int) -> Pairs:
        apart = (8 * BYTES - signs[start : start + step] @ signs[start:].T) / 2
        rows, columns = np.nonzero(apart <= limit)
        later = columns > rows
        rows, columns = rows[later], columns[later]
        return np.stack([start + rows, start + columns, apart[rows, columns].astype(np.int64)], 1)

    starts = range(0, len(signs), step)
    for start, found in zip(starts, ordered_map(near, starts, workers=n_cores(), ahead=n_cores()), strict=True):
        yield found
        told(min(step, len(signs) - start))


def _side_by_side(hashes: Hashes, limit: float, told: Callable[[int], None]) -> Iterable[Pairs]:
    n, as_bytes = len(hashes), hashes.view(np.uint8)
    random = np.random.default_rng(0)
    orders = [
        [byte, *random.permutation([b for b in range(BYTES) if b != byte])[: LEADING - 1]] for byte in range(BYTES)
    ]
    step = max(1, BLOCK_BYTES // (4 * 8 * WORDS))

    def near(leading: list[int]) -> Pairs:
        order = np.argsort(np.ascontiguousarray(as_bytes[:, leading]).view(">u8").ravel().astype(np.uint64))
        found = []
        for start in range(0, n, step):
            stand = hashes[order[start : start + step + NEXT]]
            for further in range(1, NEXT + 1):
                one = stand[: max(0, min(step, len(stand) - further))]
                apart = np.bitwise_count(one ^ stand[further : further + len(one)]).sum(1, dtype=np.int64)
                places = np.flatnonzero(apart <= limit)
                found.append(np.stack([order[start + places], order[start + further + places], apart[places]], 1))
        return np.concatenate(found)

    workers = max(1, min(n_cores(), ORDER_BYTES // (ORDERED_BYTES * n)))
    links = np.empty((0, 3), np.int64)
    for done, found in enumerate(ordered_map(near, orders, workers=workers, ahead=workers)):
        links = _joining(np.concatenate([links, found]))
        told(n * (done + 1) // len(orders) - n * done // len(orders))
    yield links


def _joining(pairs: Pairs) -> Pairs:
    """Those of the pairs that join all that hang together by them, the nearest ones: no more than there are pictures."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    pairs[:, :2].sort(axis=1)
    pairs = np.unique(pairs, axis=0)
    places, ends = np.unique(pairs[:, :2], return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_array(
        (pairs[:, 2] + 1, (ends[:, 0], ends[:, 1])), shape=(len(places), len(places))
    )  # 0 would be no edge
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    return np.column_stack([places[tree.row], places[tree.col], tree.data.astype(np.int64) - 1])


def _limit(hashes: Hashes) -> float:
    """The most bits by which copies differ."""
    n = len(hashes)
    if n < MIN_PHOTOS:
        return MAX_BITS
    a, b = np.random.default_rng(0).integers(0, n, (2, N_PAIRS))
    bits = np.bitwise_count(hashes[a] ^ hashes[b]).sum(1)
    return min(MAX_BITS, float(np.quantile(bits[a != b], HUNDREDTH)) / NEARER)
