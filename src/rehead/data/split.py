"""A photo's side from its own bytes; k folds; the order in which photos are taken.

No dice are rolled here that depend on how many photos there are or in which order they were found: a photo stays where
it is when others come or go, on every machine; of small classes see `small.py`. Reading photos is left to `scan.py`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

HELD_OUT_SIDES = ("test", "valid")


def seed_for(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) that depends on its arguments alone: seed_for(7, "shuffle", epoch)."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def side_of(key: bytes, *, seed: int, valid_fraction: float) -> str:
    """ "valid" for `valid_fraction` of all keys in expectation, else "train". key: a digest, or a group's name."""
    return "valid" if fate(key, seed) < valid_fraction else "train"


def fate(key: bytes, seed: int) -> float:
    """Where a key's dice fell, in [0, 1]: it is held out below the share that is."""
    return _dice(key, seed, "side") / 2**64


def split_keys(digests: Sequence[bytes], groups: Sequence[str | None]) -> Sequence[bytes]:
    """One key a photo: photos that must share a side have the same.

    A photo without a group is its own key. Groups that hold the same bytes are tied together and take the name of the
    first of them in the alphabet.
    """
    if all(group is None for group in groups):
        return digests
    tied = _tied_groups(digests, groups)
    keys: dict[bytes, bytes] = {}
    for digest, group in zip(digests, groups, strict=True):
        if group is not None:
            keys[digest] = b"group:" + tied[group].encode("utf-8", "surrogateescape")
    return [keys.get(digest, digest) for digest in digests]


def fold_numbers(keys: Iterable[bytes], labels: NDArray[np.int64], *, n_folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (0..n_folds-1) of each photo, (n,) int64: equal keys share one, each class is dealt out evenly, and each goes on
    where the one before it ended, so that all folds are of one size also where classes are smaller than there are folds.

    Keys are given -1, and never held out, where the photos of a class would all be of one fold: no other could learn it.
    """
    _, first, key_of = np.unique(_thrown(keys, len(labels), seed, "fold"), return_index=True, return_inverse=True)
    classes = labels[first]  # a class is that of its key's first photo; keys stand in the order of their dice
    folds = np.empty(len(first), np.int64)
    folds[np.argsort(classes, kind="stable")] = np.arange(len(first)) % n_folds
    _, places = np.unique(labels, return_inverse=True)
    least, most = np.full(len(labels), n_folds), np.full(len(labels), -1)  # of each class; no more of them than photos
    np.minimum.at(least, places, folds[key_of])
    np.maximum.at(most, places, folds[key_of])
    folds[key_of[(least == most)[places]]] = -1
    return folds[key_of]


def stratified_order(
    strata: NDArray[np.int64], keys: Sequence[bytes], *, seed: int, floor: int = 2
) -> NDArray[np.int64]:
    """Positions 0..n-1 in a random order of which every beginning holds each stratum in proportion.

    strata: (n,). The first `floor` of each stratum come before all others, so that a small beginning misses none.
    """
    order = np.lexsort((_thrown(keys, len(strata), seed, "order"), strata))
    _, begins, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    place = np.empty(len(strata))
    for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
        members, rank = order[begin : begin + size], np.arange(size)
        jitter = _dice(keys[members[0]], seed, "jitter") / 2**64
        place[members] = np.where(rank < floor, rank - floor, (rank + jitter) / size)
    return np.argsort(place, kind="stable")


def _tied_groups(digests: Iterable[bytes], groups: Iterable[str | None]) -> dict[str, str]:
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first_of: dict[bytes, str] = {}
    for digest, group in zip(digests, groups, strict=True):
        if group is None:
            continue
        parent.setdefault(group, group)
        a, b = sorted((root(group), root(first_of.setdefault(digest, group))))
        parent[b] = a
    return {group: root(group) for group in parent}


def _thrown(keys: Iterable[bytes], n: int, seed: int, purpose: str) -> NDArray[np.uint64]:
    """The dice of `n` keys, (n,). Some two of a thousand million have the same with a probability of 3 %."""
    return np.fromiter((_dice(key, seed, purpose) for key in keys), np.uint64, n)


def _dice(key: bytes, seed: int, purpose: str) -> int:
    """A number of 64 bits that depends on its arguments alone."""
    return int.from_bytes(hashlib.blake2b(key, key=_salt(seed, purpose), digest_size=8).digest(), "big")


@functools.cache
def _salt(seed: int, purpose: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
