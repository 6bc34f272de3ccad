"""The labelled images: path, label, digest of the bytes, side. What is known of them, and as CSV; `scan.py` makes them."""

from __future__ import annotations

import csv
import functools
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle_facts import Task
from rehead.data.rows import Skip
from rehead.data.split import HELD_OUT_SIDES, split_keys
from rehead.data.targets import names_in, strata_of, targets_of


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled image. digest: BLAKE3 of the file's bytes, 32 bytes. side: "train", "valid" or "test"."""

    path: str
    label: str
    side: str
    digest: bytes
    group: str | None = None


@dataclass(frozen=True)
class Catalog:
    """The photos of a job, in the order of the source.

    task: what their labels are. classes: all of them, sorted; none where they are numbers. read: the bytes of a photo.
    skipped: what was left out, with the reason. copies: photos left out because the same bytes stand on the same side
    already. leaks: held-out photos whose bytes stand on the training side too (only where the source gave the sides).
    ours: whether the sides were drawn here. n_unsided: photos of which the source gives no side, while it gives that of
    others. is_gone: whether a photo cannot be read any more, which is no fault where its
    features are kept. bad: those of `skipped` that the source or the reading could not use. n_rows: what the source names,
    those included. strangers: classes or labels that only held-out photos have, which are left out, and how many each.
    same: photos with the same bytes, those that are left out included, a group each. file, uri: where a photo's bytes are, see
    `Source`.
    """

    name: str
    layout: str
    photos: tuple[Photo, ...]
    classes: tuple[str, ...]
    read: Callable[[Photo], bytes]
    skipped: tuple[Skip, ...] = ()
    copies: tuple[Skip, ...] = ()
    leaks: tuple[str, ...] = ()
    ours: bool = True
    n_unsided: int = 0
    task: Task = "classification"
    is_gone: Callable[[Photo], bool] = lambda _: False
    bad: tuple[Skip, ...] = ()
    n_rows: int = 0
    strangers: Mapping[str, int] = field(default_factory=dict)
    same: tuple[tuple[Photo, ...], ...] = ()
    file: Callable[[Photo], str | None] = lambda _: None
    uri: Callable[[Photo], str | None] = lambda _: None

    def on(self, *sides: str) -> list[int]:
        """The positions of the photos on these sides."""
        return [i for i, photo in enumerate(self.photos) if photo.side in sides]

    @functools.cached_property
    def held_out_side(self) -> str:
        """ "test" where there is one, else "valid"."""
        sides = {photo.side for photo in self.photos}
        return next((side for side in HELD_OUT_SIDES if side in sides), "valid")

    @functools.cached_property
    def torn_groups(self) -> tuple[str, ...]:
        """The groups that are learned from and held out too, which only a split that was given can have."""
        learned, held_out = (
            {self.photos[i].group for i in self.on(side)} - {None} for side in ("train", self.held_out_side)
        )
        return tuple(sorted(group for group in learned & held_out if group is not None))

    @property
    def n_all(self) -> int:
        """How many photos there are or should be: those that cannot be read, and those of an earlier job, included."""
        return max(self.n_rows, len(self.photos) + len(self.bad))

    @property
    def n_outputs(self) -> int:
        """How many numbers a head gives for a photo: one a class, or one."""
        return max(1, len(self.classes))

    def labels(self, positions: Sequence[int] | None = None) -> NDArray[Any]:
        """What is learned of each photo, see `targets.targets_of`: for classes their places in `classes`, (n,) int64."""
        chosen = self.photos if positions is None else [self.photos[i] for i in positions]
        return targets_of([photo.label for photo in chosen], self.task, self.classes)

    @functools.cached_property
    def strata(self) -> NDArray[np.int64]:
        """Which photos are alike, (n,) int64, see `targets.strata_of`."""
        return strata_of([photo.label for photo in self.photos], self.task, self.classes)

    def unlearnable(self, positions: Sequence[int]) -> list[str]:
        """What these photos are too few to learn: classes that none of them has, labels that none or all have."""
        n_shown = Counter(name for i in positions for name in self.names(self.photos[i]))
        if self.task == "regression":
            return [] if len({self.photos[i].label for i in positions}) > 1 else ["another number"]
        alone = {name for name, n in n_shown.items() if n == len(positions)} if self.task == "multilabel" else set()
        return [name for name in self.classes if not n_shown[name] or name in alone]

    def names(self, photo: Photo) -> list[str]:
        """The class of a photo, or its labels."""
        return names_in(photo.label) if self.task == "multilabel" else [photo.label]

    def keys(self) -> list[bytes]:
        """One key a photo; photos that must stay together have the same."""
        return split_keys([p.digest for p in self.photos], [p.group for p in self.photos])

    def without(self, positions: set[int], reasons: Sequence[Skip]) -> Catalog:
        """The catalog without these photos, their reasons added to `skipped`."""
        kept = tuple(photo for i, photo in enumerate(self.photos) if i not in positions)
        return replace(self, photos=kept, skipped=(*self.skipped, *reasons))


def as_csv(catalog: Catalog) -> str:
    """path,label,side,digest,group; a manifest that can be tuned from again where its paths are."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "side", "digest", "group"])
    for photo in catalog.photos:
        writer.writerow([photo.path, photo.label, photo.side, photo.digest.hex(), photo.group or ""])
    return text.getvalue()
