"""Classes that chance left on one side, and sides it left empty, where they are drawn here: one photo goes to the other.

Of ten photos, of which a fifth is to be held out, none is once in nine times; of fifty such classes some are nearly always
without one. The photo is taken whose dice came nearest to the other side. So it depends on the photos of its class alone, and a
photo that comes later moves nothing but this one, back to where its own dice put it. Photos that an earlier job has placed stay
there, and count for their class; only a class that none else is left to learn from takes one of these.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from rehead.data.catalog import Catalog
from rehead.data.split import fate
from rehead.data.targets import names_of


def with_both_sides(catalog: Catalog, *, seed: int, are_all: bool = True) -> Catalog:
    """A catalog whose new photos have drawn their sides, where each class has a photo to learn from, and one that is held out
    if it has two or more.

    Of several labels a photo each has one to learn from, of numbers there are two; of both tasks some photos are held out where
    there are enough. Photos of one key move together, and none moves that leaves another class without photos to learn from.
    Sides that an earlier job was given stay as they are.
    are_all: whether these are all photos of a job. Of a part of them none comes to the held-out side: its class may have had
    another there, and this one was learned from. The other way they go all the same: one may have been all it was learned from.
    """
    if catalog.task == "regression":
        catalog = _with_two_numbers(catalog, seed)
    else:
        catalog = _with_each_class(catalog, seed, are_all)
    return _with_some_held_out(catalog, seed) if are_all and catalog.task != "classification" else catalog


def _with_each_class(catalog: Catalog, seed: int, are_all: bool) -> Catalog:
    learned, held_out = (_counts(catalog, side) for side in ("train", catalog.held_out_side))
    lonely = [name for name in catalog.classes if not learned[name]]
    keys = _by_key(catalog, {*lonely}) if lonely else {}
    photos, moved = catalog.columns, dict[int, str]()

    def move(places: Sequence[int], side: str) -> None:
        to, away = (learned, held_out) if side == "train" else (held_out, learned)
        for i in places:
            if moved.get(i, photos[i].side) != side:
                moved[i] = side
                to.update(catalog.names(photos[i]))
                away.subtract(catalog.names(photos[i]))

    for name in lonely:
        free = _new(catalog, keys[name]) or (list(keys[name]) if catalog.ours else [])
        if free and not learned[name]:
            move(keys[name][max(free, key=lambda key: fate(key, seed))], "train")
    is_shown = are_all and catalog.task == "classification"
    unseen = [
        name for name in catalog.classes if is_shown and not held_out[name]
    ]  # some since others came to be learned
    keys = _by_key(catalog, {*unseen}) if unseen else {}
    for name in unseen:
        for key in sorted(_new(catalog, keys[name]), key=lambda key: fate(key, seed)):
            leaving = Counter(n for i in keys[name][key] for n in catalog.names(photos[i]))
            if all(learned[n] > leaving[n] for n in leaving):
                move(keys[name][key], catalog.held_out_side)
                break
    for side in ("train", catalog.held_out_side):
        if places := {i for i, to in moved.items() if to == side}:
            catalog = catalog.with_side(places, side)
    return catalog


def _with_two_numbers(catalog: Catalog, seed: int) -> Catalog:
    """With two different numbers to learn from, if need be of photos that came nearest to it; some stay held out."""
    learned, moved = catalog.different_labels(catalog.on("train")), list[int]()
    if len(learned) > 1:
        return catalog
    held_out = catalog.on(catalog.held_out_side)
    free = held_out if catalog.ours else [i for i in held_out if not catalog.is_placed(catalog.photos[i])]
    for places in reversed(_by_dice(catalog, free, seed)[1:]):
        if len(learned) < 2 and not (numbers := catalog.different_labels(places)) <= learned:
            learned |= numbers
            moved += places
    return catalog.with_side(moved, "train") if moved else catalog


def _with_some_held_out(catalog: Catalog, seed: int) -> Catalog:
    """With a key's photos held out where none is, if all can be learned from the others."""
    train = catalog.on("train")
    if catalog.on(catalog.held_out_side) or catalog.unlearnable(train):
        return catalog
    for places in _by_dice(catalog, train, seed):
        if not catalog.unlearnable(sorted({*train}.difference(places))):
            return catalog.with_side(places, catalog.held_out_side)
    return catalog


def _by_dice(catalog: Catalog, positions: Sequence[int], seed: int) -> list[list[int]]:
    """These photos, a key's together, in the order of their dice."""
    keys, places = catalog.keys(), defaultdict[bytes, list[int]](list)
    for i in positions:
        places[keys[i]].append(i)
    return [places[key] for key in sorted(places, key=lambda key: fate(key, seed))]


def _new(catalog: Catalog, places: Mapping[bytes, Sequence[int]]) -> list[bytes]:
    """Those of these keys of which no earlier job has placed a photo."""
    return [key for key, own in places.items() if not any(catalog.is_placed(catalog.photos[i]) for i in own)]


def _counts(catalog: Catalog, side: str) -> Counter[str]:
    """How many photos of a side show each class."""
    labels = catalog.columns.labels
    found = Counter[str]()
    for label, n in zip(
        labels.different,
        np.bincount(labels.numbers()[catalog.is_on(side)], minlength=len(labels.different)).tolist(),
        strict=True,
    ):
        found.update(dict.fromkeys(names_of(label, catalog.task), n))
    return found


def _by_key(catalog: Catalog, names: set[str]) -> dict[str, dict[bytes, list[int]]]:
    """Of each of these classes the keys of its photos, and the places of all photos that a key is of."""
    wanted = catalog.columns.labels.each(lambda label: not names.isdisjoint(names_of(label, catalog.task)), bool)
    keys = catalog.keys()
    places: dict[bytes, list[int]] = {keys[i]: [i] for i in np.flatnonzero(wanted).tolist()}
    if catalog.columns.groups.different != [None]:
        found = defaultdict[bytes, list[int]](list)
        for i, key in enumerate(keys):
            if key in places:
                found[key].append(i)
        places = dict(found)
    by_class: dict[str, dict[bytes, list[int]]] = {name: {} for name in names}
    for key, own in places.items():
        for name in names.intersection(n for i in own for n in catalog.names(catalog.photos[i])):
            by_class[name][key] = own
    return by_class
