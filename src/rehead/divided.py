"""How the photos of a job are divided: the order in which they are taken, those to learn from and those held out, folds, and
photos of the training side that are watched.

Every beginning of the order is a small copy of the whole, so that a job may stop at any moment and still be verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.rows import first_few, quoted
from rehead.data.split import fold_numbers, stratified_order
from rehead.data.targets import names_of
from rehead.errors import RunError, counted
from rehead.features.store import Store
from rehead.tuning.recipe import Recipe

MEND = "Mend those that cannot be read"
FLOOR = 2  # photos of each class and side that come first, so that a small part of the photos misses none


def job_order(catalog: Catalog, recipe: Recipe) -> Positions:
    """The photos of the job, in a random order of which every beginning holds each class and side in proportion; before all
    others those without which not all could be learned and verified."""
    is_train, is_held_out = catalog.is_on("train"), catalog.is_on(catalog.held_out_side)
    wanted = np.flatnonzero(is_train | is_held_out)
    strata = 2 * catalog.strata[wanted] + is_train[wanted]
    order = wanted[stratified_order(strata, catalog.digests(wanted), seed=recipe.seed, floor=FLOOR)]
    least = _least(catalog, order)
    return Positions(np.concatenate([least, order[~np.isin(order, least)]])[: recipe.limit])


def in_store(catalog: Catalog, positions: Sequence[int], store: Store) -> Positions:
    """Those of the photos whose features are there, in the order of the catalog."""
    return Positions(np.sort(np.asarray(positions, np.int64)[store.has(catalog.digests(positions))]))


def photos_there(
    catalog: Catalog, order: Sequence[int], store: Store, recipe: Recipe, *, n_bad: int = 0, is_ended: bool = False
) -> tuple[Positions, Positions]:
    """The training and the held-out photos whose features are there. Raises what `sides_of` raises."""
    return sides_of(catalog, in_store(catalog, order, store), recipe, n_bad=n_bad, is_ended=is_ended)


def sides_of(
    catalog: Catalog, there: Sequence[int], recipe: Recipe, *, n_bad: int = 0, is_ended: bool = False
) -> tuple[Positions, Positions]:
    """The training and the held-out ones of these photos. n_bad: how many of the job cannot be had. is_ended: whether it was to
    end with what was there.

    Raises RunError when they are too few.
    """
    train, held_out = catalog.among(there, "train"), catalog.among(there, catalog.held_out_side)
    if catalog.unlearnable(train) or not held_out:
        n_seen, n_all = len(there) + n_bad, len(catalog.on("train", catalog.held_out_side))
        n_wanted = n_all if recipe.limit is None else min(recipe.limit, n_all)
        limits = {"--limit": n_wanted < n_all, "--budget": recipe.budget_s is not None and n_seen < n_wanted}
        raised = " or ".join(option for option, keeps_out in limits.items() if keeps_out)
        ways = [f"raise {raised}"] * bool(raised) + ["let it run longer"] * (is_ended and n_seen < n_wanted)
        if not ways:
            raise too_few(catalog, there, train)
        n_enough, way = _n_enough(catalog, recipe), ", or ".join(ways)
        fix = f"Use at least {n_enough}: {way}." if n_seen < n_enough else f"{MEND}; or {way}."
        raise too_few(catalog, there, train, fix)
    return train, held_out


def too_few(
    catalog: Catalog, there: Sequence[int], train: Sequence[int], fix: str = f"{MEND}, or add others like them."
) -> RunError:
    """What is said of photos with which not all can be learned and verified. train: those of them to learn from."""
    return RunError(
        what=f"{counted(len(there), 'photo')} {'is' if len(there) == 1 else 'are'} too few "
        f"to learn and verify {_what_is_learned(catalog)}.",
        why=_why_too_few(catalog, train),
        fix=fix,
    )


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


def _least(catalog: Catalog, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of these photos, in their order, that teach something new, and the first that is held out, (m,).

    New is a class or label that none before shows, a label's absence where all before have it, a second number.
    """
    is_train = catalog.is_on("train")[order]
    learned, held_out, labels = order[is_train], order[~is_train][:1], catalog.columns.labels
    numbers = labels.numbers()[learned]
    firsts = np.sort(np.unique(numbers, return_index=True)[1])
    if catalog.task == "regression":
        return np.concatenate([learned[firsts[:2]], held_out])
    rows, shown, by_all = list[int](), set[str](), set(catalog.classes)
    for row in firsts.tolist():
        names = set(names_of(labels.different[numbers[row]], catalog.task))
        if not names <= shown or not by_all <= names:
            rows.append(row)
            shown |= names
            by_all &= names
    return np.concatenate([learned[rows], held_out])


def _n_enough(catalog: Catalog, recipe: Recipe) -> int:
    """How many photos of the job's order can be learned from and verified, if all can be read; more where there are more, so
    that there are some of each kind."""
    order = np.asarray(job_order(catalog, replace(recipe, limit=None)))
    n_some = 2 * FLOOR * len(np.unique(catalog.strata))
    return max(len(_least(catalog, order)), min(n_some, len(order)))


def _why_too_few(catalog: Catalog, train: Sequence[int]) -> str:
    lacking = catalog.unlearnable(train)
    if lacking and catalog.task == "regression":
        return "Those to learn from have no two different numbers."
    shown = {name for label in catalog.different_labels(train) for name in names_of(label, catalog.task)}
    by_none, by_all = ([quoted(name) for name in lacking if (name in shown) == is_shown] for is_shown in (False, True))
    words = [f"There is none to learn from of {first_few(by_none)}."] if by_none else []
    words += [f"All to learn from have {first_few(by_all)}."] if by_all else []
    return " ".join(words) or "None of them is held out."


def _folds(catalog: Catalog, positions: Sequence[int], n_folds: int, seed: int) -> NDArray[np.int64]:
    keys = catalog.keys()
    strata = catalog.strata[np.asarray(positions, np.int64)]
    return fold_numbers((keys[i] for i in positions), strata, n_folds=n_folds, seed=seed)


def _what_is_learned(catalog: Catalog) -> str:
    kind = {"classification": "classes", "multilabel": "labels"}.get(catalog.task)
    return f"{len(catalog.classes)} {kind}" if kind else "a number"
