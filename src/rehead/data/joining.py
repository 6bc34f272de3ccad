"""The photos of an earlier job and new ones as one catalog.

An earlier photo keeps its label and its side, whether its file is there or not; a new one whose bytes or group are known
goes to the side they stand on, if it was given none, so that what was held out stays held out. Reading an earlier run is left
to `earlier.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rehead.bundle_facts import Task
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo, Skip
from rehead.data.split import split_keys
from rehead.data.targets import classes_of, names_of
from rehead.errors import PhotoError, ReheadError


@dataclass(frozen=True)
class Joined:
    """n_earlier, n_new: photos that came from each; n_again: those of n_new that the earlier job had too.

    corrected: of those, the ones with another label now.
    """

    catalog: Catalog
    n_earlier: int
    n_new: int
    n_again: int
    corrected: tuple[Skip, ...]


def joined(
    new: Catalog,
    earlier: Sequence[Photo],
    earlier_ours: bool,
    read: Callable[[Photo], bytes],
    is_gone: Callable[[Photo], bool],
) -> Joined:
    """Earlier photos, then new ones; the same bytes count once, as the new photo with its label, and its group if it has one.

    earlier: with paths that no new photo has, unless it is the same file. earlier_ours: whether their sides were drawn here;
    sides that were given stay, and new ones drawn beside them hold out where those do. read, is_gone: of an earlier photo, its
    bytes, and whether they cannot be had any more. Where new photos are held out by name, a class of the others that is not
    learned from but for these is so from one of them; where nothing has a side, `small.py` sees to it.
    """
    old, added = _with_one_held_out_side(earlier, new.photos)
    groups = {photo.digest: photo.group for photo in old}
    added = [replace(photo, group=photo.group or groups.get(photo.digest)) for photo in added]
    placed = _where_it_belongs(old, added, new.is_placed)
    if earlier_ours and not new.ours and new.task != "regression":
        placed = _with_each_class_learned(old, added, placed, new.task)
    added, met = _each_once(map(placed, added))
    fresh = {photo.digest: photo for photo in added}
    kept = [photo for photo in old if photo.digest not in fresh]
    again = {photo.digest: photo for photo in old if photo.digest in fresh}
    photos = (*kept, *added)
    catalog = replace(
        new,
        photos=photos,
        classes=classes_of((photo.label for photo in photos), new.task),
        read=lambda photo: (new.read if photo.digest in fresh else read)(photo),
        is_gone=lambda photo: photo.digest not in fresh and is_gone(photo),
        file=lambda photo: new.file(photo) if photo.digest in fresh else None,
        uri=lambda photo: new.uri(photo) if photo.digest in fresh else None,
        ours=new.ours and earlier_ours,
        is_placed=lambda photo: photo.digest in groups or new.is_placed(photo),
        copies=(*new.copies, *met),
        same=tuple(tuple(map(placed, group)) for group in new.same),
    )
    corrected = tuple(
        Skip(fresh[digest].path, f"was {photo.label} and is {fresh[digest].label}")
        for digest, photo in again.items()
        if photo.label != fresh[digest].label
    )
    return Joined(catalog, len(kept), len(added), len(again), corrected)


def why_gone(read: Callable[[Photo], bytes], photo: Photo) -> str:
    """Why an earlier photo that is gone cannot be read, as its reading says. Raises what is said of its source where that is
    there and cannot be opened: then the photo may be there too."""
    try:
        read(photo)
    except PhotoError as error:
        if isinstance(error.__cause__, ReheadError):
            raise error.__cause__ from None
        return error.what
    return "was not there"  # and came back meanwhile


def _with_one_held_out_side(*lots: Sequence[Photo]) -> list[list[Photo]]:
    """The verdict is on "test" where there is one: then what a lot without test photos holds out belongs there too."""
    tested = [any(photo.side == "test" for photo in lot) for lot in lots]
    return [
        [replace(photo, side="test") if any(tested) and not has and photo.side == "valid" else photo for photo in lot]
        for lot, has in zip(lots, tested, strict=True)
    ]


def _where_it_belongs(
    old: Sequence[Photo], added: Sequence[Photo], is_placed: Callable[[Photo], bool]
) -> Callable[[Photo], Photo]:
    """A new photo, if it was given no side, on that where the same bytes, or photos of the same group, are already."""
    both = [*old, *added]
    keys = split_keys([photo.digest for photo in both], [photo.group for photo in both])
    side_by_key = {key: photo.side for key, photo in zip(keys, old, strict=False)}
    sides = {photo.digest: side_by_key.get(key) for key, photo in zip(keys, both, strict=True)}

    def placed(photo: Photo) -> Photo:
        side = None if is_placed(photo) else sides.get(photo.digest)
        return photo if side is None else replace(photo, side=side)

    return placed


def _with_each_class_learned(
    old: Sequence[Photo], added: Sequence[Photo], placed: Callable[[Photo], Photo], task: Task
) -> Callable[[Photo], Photo]:
    """`placed`, but for one photo, with those of its key, of each class of which it would leave none to learn from. None stays
    there whose group an earlier photo keeps held out."""
    fresh = {photo.digest for photo in added}
    kept = [photo for photo in old if photo.digest not in fresh]
    sided = [*kept, *map(placed, added)]
    learned = {name for photo in sided if photo.side == "train" for name in names_of(photo.label, task)}
    if all(learned.issuperset(names_of(photo.label, task)) for photo in added):
        return placed
    keys = split_keys([photo.digest for photo in sided], [photo.group for photo in sided])
    bound, own = set(keys[: len(kept)]), dict(zip(added, keys[len(kept) :], strict=True))
    moved = [photo for photo in added if photo.side == "train" != placed(photo).side and own[photo] not in bound]
    stay = set[bytes]()
    for photo in sorted(moved, key=lambda photo: photo.digest):
        if not learned.issuperset(names := names_of(photo.label, task)):
            stay.add(own[photo])
            learned.update(names)
    staying = {photo.digest for photo, key in own.items() if key in stay}
    return lambda photo: photo if photo.digest in staying else placed(photo)


def _each_once(photos: Iterable[Photo]) -> tuple[list[Photo], list[Skip]]:
    """The photos without copies on one side, and those: a photo that went there may have met its own."""
    first: dict[tuple[bytes, str], Photo] = {}
    copies = list[Skip]()
    for photo in photos:
        if (there := first.setdefault((photo.digest, photo.side), photo)) is not photo:
            copies.append(Skip(photo.path, f"is a copy of {there.path}", "copy"))
    return [*first.values()], copies
