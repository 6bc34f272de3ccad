"""Photos that show the same picture: byte for byte, or saved again at another quality or size.

A near copy is told by its perceptual hash (`hashes.py`), among all pairs. The neighbours of its features would be fewer to
look at, and miss thumbnails, whose features are far from those of the photo: of 300 copies at 0.15 to 0.4 of the size they
hold 122, hashes find 296. What is found is put into groups; a group that is learned from and held out too is a leak, unless
the split is ours: then it is tied to one side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.facts import Facts
from rehead.auditing.findings import CopyGroup
from rehead.auditing.hashes import as_words, near_pairs
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.data.targets import names_of
from rehead.verdict.neighbours import Neighbours, other_neighbours

N_NEAREST = 5
MAX_PHOTOS = 100_000  # among which neighbours are looked for: all pairs of more would take hours
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Alike:
    """Which photos are like which. positions: in the catalog, of the rows of the features. nearest: the N_NEAREST others of
    each row. pairs: near copies, as positions in the catalog, with the bits by which their hashes differ, of 256."""

    positions: tuple[int, ...]
    nearest: Neighbours
    pairs: tuple[tuple[int, int, int], ...]


def alike(
    positions: Sequence[int],
    features: NDArray[Any],
    facts: Mapping[int, Facts],
    *,
    told: Callable[[int], None] = lambda _: None,
) -> Alike:
    """The neighbours of each photo, and which photos are near copies; of the first MAX_PHOTOS where there are more.

    positions: in the catalog, of the rows of `features` (n, d). facts: by position; a photo without any is no near copy.
    told: how many more photos are done.
    """
    positions = tuple(positions[:MAX_PHOTOS])
    nearest = other_neighbours(features[: len(positions)], N_NEAREST, told=told)
    return Alike(positions, nearest, near_copies(positions, facts))


def near_copies(positions: Sequence[int], facts: Mapping[int, Facts]) -> tuple[tuple[int, int, int], ...]:
    """The pairs of these photos that show the same picture, as in `Alike`; those without facts are none."""
    hashes = {i: facts[i].hash for i in sorted(positions) if i in facts and not facts[i].is_flat}
    return near_pairs(np.array([*hashes], np.int64), as_words(hashes.values()))


def tied_sides(
    catalog: Catalog, pairs: Iterable[tuple[int, int, int]], positions: Sequence[int]
) -> tuple[Catalog, int]:
    """The catalog whose near copies all stand on the training side where some do, and how many photos moved there.

    pairs: see `Alike`. positions: of the photos that are used, among which they were found. A split that was given stays as it
    is. So does a class that would have no held-out photo left among these. Photos of one group move together.
    """
    if not catalog.ours:
        return catalog, 0
    photos, is_train = catalog.photos, catalog.is_on("train")
    groups = joined([*_with_one_key(catalog), *((i, j) for i, j, _ in pairs)])
    torn = [group for group in groups if len({bool(is_train[i]) for i in group}) > 1]
    moved = {i for group in torn for i in group if not is_train[i]}
    held_out = np.zeros(len(photos), bool)
    held_out[np.asarray(positions, np.int64)] = True
    held_out &= ~is_train
    left = held_out.copy()
    left[[*moved]] = False
    if catalog.task != "regression":
        shown = catalog.different_labels(np.flatnonzero(left))
        names = {name for label in shown for name in names_of(label, catalog.task)}
        kept = [
            group
            for group in torn
            if names.issuperset(n for i in group if i in moved for n in catalog.names(photos[i]))
        ]
        moved &= {i for group in kept for i in group}
    if not moved or moved.issuperset(np.flatnonzero(held_out).tolist()):
        return catalog, 0
    return catalog.with_side(moved, "train"), len(moved)


def _with_one_key(catalog: Catalog) -> list[tuple[int, int]]:
    """Each photo that has a key as another before it, with the first of them."""
    if catalog.columns.groups.different == [None]:
        return [(places[0], i) for places in catalog.columns.digests.same() for i in places[1:]]
    first: dict[bytes, int] = {}
    links = ((first.setdefault(key, i), i) for i, key in enumerate(catalog.keys()))
    return [(i, j) for i, j in links if i != j]


def copy_groups(
    catalog: Catalog, pairs: Sequence[tuple[int, int, int]], positions: Sequence[int]
) -> tuple[CopyGroup, ...]:
    """The copies, exact and near: leaks first, then groups with several labels, then the largest. positions: of the photos
    that are learned from or judged; only among these is a leak."""
    photo_by_path = {photo.path: photo for photo in (*catalog.photos, *(p for group in catalog.same for p in group))}
    used = {catalog.photos[i].path for i in positions}
    path = [photo.path for photo in catalog.photos]
    links = [(path[i], path[j]) for i, j, _ in pairs]
    links += [(group[0].path, photo.path) for group in catalog.same for photo in group[1:]]
    bits: dict[str, int] = {}
    for i, j, n in pairs:
        bits[path[i]] = max(n, bits.get(path[i], 0))
        bits[path[j]] = max(n, bits.get(path[j], 0))
    groups = [
        _group([photo_by_path[p] for p in sorted(group)], used, max(bits.get(p, 0) for p in group))
        for group in joined(links)
    ]
    return tuple(sorted(groups, key=lambda g: (not g.is_leak, len(set(g.labels)) < 2, -len(g.paths), g.paths)))


def _group(photos: Sequence[Photo], used: set[str], bits: int) -> CopyGroup:
    sides = {photo.side for photo in photos if photo.path in used}
    digests = [photo.digest for photo in photos]
    return CopyGroup(
        paths=tuple(photo.path for photo in photos),
        sides=tuple(photo.side for photo in photos),
        labels=tuple(photo.label for photo in photos),
        is_exact=len(set(digests)) == 1,
        bits=-(-bits // 4),  # of 64, as pHash usually has
        is_leak="train" in sides and len(sides) > 1,
        same_bytes=tuple(map(digests.index, digests)),
    )


def with_near(catalog: Catalog, pairs: Iterable[tuple[int, int, int]]) -> Catalog:
    """The catalog whose `keys` are the same for near copies. pairs: see `Alike`."""
    keys = replace(catalog, near={}).keys()
    near: dict[bytes, bytes] = {}
    for group in joined((keys[i], keys[j]) for i, j, _ in pairs):
        near |= dict.fromkeys(group, min(group))
    return replace(catalog, near=near)


def joined(links: Iterable[tuple[T, T]]) -> list[list[T]]:
    """What hangs together by these links, each group and all groups in the order of their first link."""
    parent: dict[T, T] = {}

    def root(item: T) -> T:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in links:
        parent.setdefault(a, a)
        parent.setdefault(b, b)
        parent[root(b)] = root(a)
    groups: dict[T, list[T]] = defaultdict(list)
    for item in parent:
        groups[root(item)].append(item)
    return [group for group in groups.values() if len(group) > 1]
