"""Whether an honest verdict can be had of a catalog's two sides: every class on both, and something to tell apart.

Called by `scan.py`, which makes catalogs; sides are drawn by `split.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from rehead.data.rows import Skip, first_few, quoted
from rehead.data.targets import CLASS_LAYOUTS, MANY_NUMBERS, classes_of, number_in, task_of
from rehead.errors import SplitError, counted

if TYPE_CHECKING:
    from rehead.data.catalog import Catalog


MIN_VERIFIED = 2  # classes with held-out photos: fewer cannot be confused with each other
MOSTLY = 0.8  # of the classes: numbers with few that are none


def checked_split(catalog: Catalog, *, is_told: bool) -> Catalog:
    """The catalog without classes that only held-out photos have. Raises SplitError when no verdict could be had.

    is_told: whether it was said what the labels are; else the labels told it, and a mistake in one can make names of numbers.
    """
    if not is_told and catalog.task == "classification":
        _check_numbers(catalog)
    try:
        return _with_two_sides(catalog)
    except SplitError as error:
        if not catalog.bad:
            raise
        first = catalog.bad[0]
        raise SplitError(
            what=error.what,
            why=f"{error.why} {counted(len(catalog.bad), 'photo')} cannot be read, such as {quoted(first.path)}, "
            f"which {first.reason}.".lstrip(),
            fix=f"If those are what is missing, mend them. {error.fix}",
        ) from error


def _with_two_sides(catalog: Catalog) -> Catalog:
    _check_learned(catalog)
    catalog = _without_strangers(catalog)
    _check_differ(catalog)
    if not catalog.on(catalog.held_out_side):
        if catalog.strangers:
            raise _all_are_strangers(catalog)
        raise SplitError(
            what="No photo is held out, so nothing could be verified.",
            why=_why_none_is_held_out(catalog),
            fix="Name held-out photos with --valid DIR or --test DIR"
            + (", or add photos." if catalog.ours else ", or leave the split to rehead."),
        )
    if catalog.ours and catalog.task == "classification":
        _check_held_out(catalog)
    return catalog


def _all_are_strangers(catalog: Catalog) -> SplitError:
    kind = "class" if catalog.task == "classification" else "label"
    theirs, ours = (first_few([*map(quoted, sorted(names))]) for names in (catalog.strangers, catalog.classes))
    return SplitError(
        what=f"No held-out photo has a {kind} that is learned, so nothing could be verified.",
        why=f"Held out are {theirs}; learned are {ours}.",
        fix="Give both sides the same names, letter by letter: the folder's, or those in the table.",
    )


def _check_learned(catalog: Catalog) -> None:
    """Raises SplitError where the source gives sides, and none of them is the training side."""
    if catalog.ours or not catalog.photos or catalog.on("train"):
        return
    sides, n = " and ".join(sorted({photo.side for photo in catalog.photos})), len(catalog.photos)
    raise SplitError(
        what="No photo is left to learn from.",
        why=f"The source gives sides, and {f'all {n} photos are' if n > 1 else 'the one photo is'} of {sides}.",
        fix="Give some the side train, or leave the split out: some photos are then held out by rehead.",
    )


def _why_none_is_held_out(catalog: Catalog) -> str:
    groups, n = {photo.group for photo in catalog.photos}, len(catalog.photos)
    if not catalog.ours:
        unsided = (
            f": {catalog.n_unsided} of {n} photos have no split, which counts as train" if catalog.n_unsided else ""
        )
        n_torn = sum("the same bytes have several labels" in skip.reason for skip in catalog.skipped)
        torn = f" {counted(n_torn, 'photo')} were left out, whose bytes have several labels." if n_torn else ""
        return f"The source gives sides, and all of them are the training side{unsided}.{torn}"
    if len(groups) == 1 and None not in groups:
        return f"Photos of one group stay on one side, and all {n} are of the group {quoted(str(groups.pop()))}."
    if catalog.task == "classification" and n == len(catalog.classes):
        return f"Each of the {n} classes has one photo, from which it is learned."
    if catalog.task == "regression":
        return "Two different numbers are needed to learn from, and no photo or group can be spared."
    kind = "class" if catalog.task == "classification" else "label"
    return f"No photo or group can be spared: a {kind} could not be learned without it."


def _without_strangers(catalog: Catalog) -> Catalog:
    """Where the source gave the sides: without held-out photos of a class that none has on the training side."""
    if catalog.ours or catalog.task == "regression":
        return catalog
    learned = classes_of((photo.label for photo in catalog.photos if photo.side == "train"), catalog.task)
    known = set(learned)
    strangers = {i for i, photo in enumerate(catalog.photos) if not known.issuperset(catalog.names(photo))}
    if not strangers:
        return catalog
    why = f"its {'class' if catalog.task == 'classification' else 'label'} has no photo on the training side"
    skips = [Skip(catalog.photos[i].path, why, "aside") for i in sorted(strangers)]
    counts = Counter(name for i in sorted(strangers) for name in catalog.names(catalog.photos[i]) if name not in known)
    return replace(catalog.without(strangers, skips), classes=learned, strangers=counts)


def _check_differ(catalog: Catalog) -> None:
    """Raises SplitError when all photos to learn from have the same label."""
    train = catalog.on("train")
    if catalog.task == "classification" and len(catalog.classes) < 2:
        raise SplitError(
            what="There is only one class." if catalog.classes else "No class has a photo to learn from.",
            why=f"All photos of {catalog.name} are labelled {quoted(catalog.classes[0])}." if catalog.classes else "",
            fix="Put the photos of each class into a folder of its own: photos/cat/..., photos/dog/..."
            if catalog.layout in CLASS_LAYOUTS
            else "Bring photos of another class too.",
        )
    if catalog.task != "classification" and len(catalog.different_labels(train)) < 2:
        n_photos = len(catalog.photos)
        if len(train) < 2 and (n_photos < 3 or len(catalog.different_labels(range(n_photos))) > 1):
            kind = "numbers" if catalog.task == "regression" else "labels"
            raise SplitError(
                what=f"{counted(len(train), 'photo')} {'is' if len(train) == 1 else 'are'} too few to learn from.",
                why=f"Two with different {kind} are needed, and another to hold out.",
                fix="Add photos to learn from.",
            )
        raise SplitError(
            what="The photos to learn from do not differ in their labels.",
            why=f"All have the label {quoted(catalog.photos[train[0]].label)}: {counted(len(train), 'photo')}."
            if train
            else "",
            fix="Check the label column, or name what it is with --task.",
        )
    if catalog.task == "multilabel" and (same := [x for x in catalog.unlearnable(train) if not _is_absent(catalog, x)]):
        raise SplitError(
            what=f"All photos to learn from have the label {quoted(same[0])}.",
            why="Nothing can be learned of what is never missing.",
            fix="Leave it out of the label column.",
        )


def _is_absent(catalog: Catalog, name: str) -> bool:
    return not any(name in catalog.names(photo) for photo in catalog.photos if photo.side == "train")


def _check_held_out(catalog: Catalog) -> None:
    """Raises SplitError where fewer than two classes are held out: `small.py` leaves each one photo to learn from."""
    held_out = catalog.different_labels(catalog.on(catalog.held_out_side))
    unseen = [label for label in catalog.classes if label not in held_out]
    if unseen and len(catalog.classes) - len(unseen) < MIN_VERIFIED:
        n = sum(photo.label == unseen[0] for photo in catalog.photos)
        raise SplitError(
            what=f"The class {quoted(unseen[0])} is too small to be split: {counted(n, 'photo')}, none held out.",
            why=_why_none_is_spared(catalog, unseen[0]),
            fix="Add photos of it, or name held-out photos with --valid DIR.",
        )


def _check_numbers(catalog: Catalog) -> None:
    """Raises SplitError where nearly all classes are numbers, and would be learned as such: then those that are none are
    mistakes."""
    others = [name for name in catalog.classes if number_in(name) is None]
    are_thousands = any("," in name and "." in name for name in catalog.classes)  # 3,069.42
    pointed = {name: name.replace(",", "" if are_thousands else ".") for name in catalog.classes}
    numbers = [name for name in pointed.values() if number_in(name) is not None]
    is_most = len(numbers) > max(MANY_NUMBERS, MOSTLY * len(catalog.classes))
    if others and is_most and task_of(numbers, catalog.layout) == "regression":
        if all("," in name and number_in(pointed[name]) is not None for name in others):
            how = "has no comma between its thousands" if are_thousands else "has a point"
            raise SplitError(
                what=f"{first_few([*map(quoted, others)])} are numbers with a comma.",
                why=f"A number {how} here: {pointed[others[0]]}.",
                fix="Write them so; if they are names, say so with --task classification.",
            )
        raise SplitError(
            what=f"Of {counted(len(catalog.classes), 'class')} nearly all are numbers.",
            why=f"No numbers are {first_few([*map(quoted, others)])}; so all were taken for names.",
            fix="Mend these (a number has a point), or leave their photos out with --task regression; "
            "if all are names, say so with --task classification.",
        )


def _why_none_is_spared(catalog: Catalog, label: str) -> str:
    if alike := [name for name in catalog.classes if name != label and name.casefold() == label.casefold()]:
        return f"There is {quoted(alike[0])} too: names count letter by letter."
    own = [(key, photo) for key, photo in zip(catalog.keys(), catalog.photos, strict=True) if photo.label == label]
    if len(own) == 1:
        why = "it is learned from its one photo"
    elif len({key for key, _ in own}) == 1:
        why = f"its {len(own)} photos are of one group, which stays on one side"
    elif all(catalog.is_placed(photo) for _, photo in own):
        why = "an earlier job learned from its photos"
    else:
        why = "without a group that it has photos in another could not be learned"
    return f"Two classes with held-out photos are needed, and {why}."
