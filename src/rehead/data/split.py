"""A photo's side from its own bytes; k folds; the order in which photos are taken.

No dice are rolled here that depend on how many photos there are or in which order they were found: a photo stays where
it is when others come or go, on every machine. Reading photos is left to `catalog.py`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

HELD_OUT_SIDES = ("test", "valid")


def seed_for(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) that depends on its arguments alone: seed_for(7, "shuffle", epoch)."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def side_of(key: bytes, *, seed: int, valid_fraction: float) -> str:
    """ "valid" for `valid_fraction` of all keys in expectation, else "train". key: a digest, or a group's name."""
    return "valid" if _dice(key, seed, "side") < valid_fraction else "train"


def split_keys(digests: Sequence[bytes], groups: Sequence[str | None]) -> list[bytes]:
    """One key a photo: photos that must share a side have the same.

    A photo without a group is its own key. Groups that hold the same bytes are tied together and take the name of the
    first of them in the alphabet.
    """
    tied = _tied_groups(digests, groups)
    keys: dict[bytes, bytes] = {}
    for digest, group in zip(digests, groups, strict=True):
        if group is not None:
            keys[digest] = b"group:" + tied[group].encode("utf-8", "surrogateescape")
    return [keys.get(digest, digest) for digest in digests]


def fold_numbers(keys: Sequence[bytes], labels: NDArray[np.int64], *, n_folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (0..n_folds-1) of each photo, (n,) int64: equal keys share one, and each class is dealt out evenly.

    A class whose photos all share one key is given -1: it is never held out, or no fold could learn it.
    """
    classes_of: dict[bytes, int] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        classes_of.setdefault(key, label)
    keys_by_class: dict[int, list[bytes]] = defaultdict(list)
    for key, label in classes_of.items():
        keys_by_class[label].append(key)
    fold_by_key: dict[bytes, int] = {}
    for label, members in sorted(keys_by_class.items()):
        members.sort(key=lambda key: (_dice(key, seed, "fold"), key))
        for rank, key in enumerate(members):
            fold_by_key[key] = (rank + label) % n_folds if len(members) > 1 else -1
    return np.array([fold_by_key[key] for key in keys], np.int64)


def stratified_order(
    strata: Sequence[Hashable], keys: Sequence[bytes], *, seed: int, floor: int = 2
) -> NDArray[np.int64]:
    """Positions 0..n-1 in a random order of which every beginning holds each stratum in proportion.

    The first `floor` of each stratum come before all others, so that a small beginning misses none.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, stratum in enumerate(strata):
        members[stratum].append(i)
    place = np.empty(len(keys))
    for indices in members.values():
        indices.sort(key=lambda i: (_dice(keys[i], seed, "order"), keys[i]))
        jitter = _dice(keys[indices[0]], seed, "jitter")
        for rank, i in enumerate(indices):
            place[i] = rank - floor if rank < floor else (rank + jitter) / len(indices)
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


def _dice(key: bytes, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    salt = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return int.from_bytes(hashlib.blake2b(key, key=salt, digest_size=8).digest(), "big") / 2**64
