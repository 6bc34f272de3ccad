"""How the photos of a job are divided: the order in which they are taken, those to learn from and those held out, folds, and
photos of the training side that are watched.

Every beginning of the order is a small copy of the whole, so that a job may stop at any moment and still be verified.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.split import fold_numbers, stratified_order
from rehead.data.targets import names_of
from rehead.errors import RunError, counted
from rehead.features.store import Store
from rehead.tuning.recipe import Recipe

FLOOR = 2  # photos of each class and side that come first, so that a small part of the photos misses none


def job_order(catalog: Catalog, recipe: Recipe) -> Positions:
    """The photos of the job, in a random order of which every beginning holds each class and side in proportion."""
    is_train, is_held_out = catalog.is_on("train"), catalog.is_on(catalog.held_out_side)
    wanted = np.flatnonzero(is_train | is_held_out)
    strata = 2 * catalog.strata[wanted] + is_train[wanted]
    order = stratified_order(strata, catalog.digests(wanted), seed=recipe.seed, floor=FLOOR)
    return Positions(wanted[order[: recipe.limit]])


def in_store(catalog: Catalog, positions: Sequence[int], store: Store) -> Positions:
    """Those of the photos whose features are there, in the order of the catalog."""
    return Positions(np.sort(np.asarray(positions, np.int64)[store.has(catalog.digests(positions))]))


def photos_there(catalog: Catalog, order: Sequence[int], store: Store) -> tuple[Positions, Positions]:
    """The training and the held-out photos whose features are there. Raises RunError when they are too few."""
    return sides_of(catalog, in_store(catalog, order, store))


def sides_of(catalog: Catalog, there: Sequence[int]) -> tuple[Positions, Positions]:
    """The training and the held-out ones of these photos. Raises RunError when they are too few."""
    train, held_out = catalog.among(there, "train"), catalog.among(there, catalog.held_out_side)
    lacking = catalog.unlearnable(train)
    if lacking or not held_out:
        raise RunError(
            what=f"{counted(len(there), 'photo')} {'is' if len(there) == 1 else 'are'} too few "
            f"to learn and verify {_what_is_learned(catalog)}.",
            why=f"There is none to learn from of {', '.join(lacking[:5])}." if lacking else "None of them is held out.",
            fix=f"Use at least {2 * FLOOR * len(set(catalog.strata.tolist()))}: "
            "raise --limit or --budget, or let it run longer.",
        )
    return train, held_out


def folds_of(catalog: Catalog, positions: Sequence[int], recipe: Recipe) -> NDArray[np.int64]:
    """The fold of each of these photos, (n,)."""
    return _folds(catalog, positions, recipe.folds, recipe.seed)


def watched(catalog: Catalog, positions: Sequence[int], share: float, seed: int) -> NDArray[np.bool_]:
    """Of each of these photos whether it is one of those, about a share of each class, that say how well is learned from the
    others, (n,). Photos with one key stand together, and of each class and label some are learned from."""
    n_folds = round(1 / share) if share else 0
    if n_folds < 2:
        return np.zeros(len(positions), bool)
    taken = np.asarray(positions, np.int64)
    found = _folds(catalog, positions, n_folds, seed) == 0
    if lost := set(catalog.unlearnable(taken[~found])):
        labels = catalog.columns.labels
        rare = labels.each(lambda label: not lost.isdisjoint(names_of(label, catalog.task)), bool)[taken]
        found &= ~rare
    return found if not catalog.unlearnable(taken[~found]) else np.zeros(len(positions), bool)


def _folds(catalog: Catalog, positions: Sequence[int], n_folds: int, seed: int) -> NDArray[np.int64]:
    keys = catalog.keys()
    strata = catalog.strata[np.asarray(positions, np.int64)]
    return fold_numbers((keys[i] for i in positions), strata, n_folds=n_folds, seed=seed)


def _what_is_learned(catalog: Catalog) -> str:
    kind = {"classification": "classes", "multilabel": "labels"}.get(catalog.task)
    return f"{len(catalog.classes)} {kind}" if kind else "a number"
