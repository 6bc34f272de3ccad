"""The labelled images: path, label, digest of the bytes, side. What is known of them, and as CSV; `scan.py` makes them."""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle_facts import Task
from rehead.csv_rows import csv_writer
from rehead.data.columns import Chosen, Photos, Positions, Renamed
from rehead.data.rows import Photo, Skip
from rehead.data.split import HELD_OUT_SIDES, split_keys
from rehead.data.targets import names_of, strata_of, targets_of
from rehead.parallel import batched

LINES = 10_000  # of a catalog that are written at once


@dataclass(frozen=True)
class Catalog:
    """The photos of a job, in the order of the source.

    task: what their labels are. classes: all of them, sorted; none where they are numbers. read: the bytes of a photo,
    those of its digest; raises OSError, and PhotoError where it has others now. skipped: what was left out, with the
    reason. copies: photos left out because the same bytes stand on the same side already. ours: whether the sides were drawn
    here. n_unsided: photos of which the source gives no side, while it gives that of others. is_placed: where an earlier job's
    photos are joined, whether a photo's side was given, by the source or by that job. is_gone: whether a photo
    cannot be read any more, which is no fault where its features are kept. bad: those of `skipped` that the source or
    the reading could not use. n_rows: what the source names, those included. strangers: classes or labels that only
    held-out photos have, which are left out, and how many each. same: photos with the same bytes, those that are left
    out included, a group each. near: the one key of photos that show the same picture, by the key that each would have,
    where that was looked for. file, uri: where a photo's bytes are, see `Source`.
    """

    name: str
    layout: str
    photos: Sequence[Photo]
    classes: tuple[str, ...]
    read: Callable[[Photo], bytes]
    skipped: tuple[Skip, ...] = ()
    copies: tuple[Skip, ...] = ()
    ours: bool = True
    n_unsided: int = 0
    task: Task = "classification"
    is_placed: Callable[[Photo], bool] = lambda _: False
    is_gone: Callable[[Photo], bool] = lambda _: False
    bad: tuple[Skip, ...] = ()
    n_rows: int = 0
    strangers: Mapping[str, int] = field(default_factory=dict)
    same: tuple[tuple[Photo, ...], ...] = ()
    near: Mapping[bytes, bytes] = field(default_factory=dict)
    file: Callable[[Photo], str | None] = lambda _: None
    uri: Callable[[Photo], str | None] = lambda _: None

    @functools.cached_property
    def columns(self) -> Photos:
        """The photos by their columns."""
        return self.photos if isinstance(self.photos, Photos) else Photos(self.photos)

    def is_on(self, *sides: str) -> NDArray[np.bool_]:
        """Of each photo whether it is on one of these sides, (n,)."""
        return self.columns.sides.each(lambda side: side in sides, bool)

    def on(self, *sides: str) -> Positions:
        """The positions of the photos on these sides."""
        return Positions(np.flatnonzero(self.is_on(*sides)))

    def among(self, positions: Sequence[int], *sides: str) -> Positions:
        """Those of these positions whose photos are on one of these sides."""
        among = np.asarray(positions, np.int64)
        return Positions(among[self.is_on(*sides)[among]])

    @functools.cached_property
    def held_out_side(self) -> str:
        """ "test" where there is one, else "valid"."""
        return next((side for side in HELD_OUT_SIDES if side in self.columns.sides.different), "valid")

    def leaks(self, train: Sequence[int], held_out: Sequence[int]) -> tuple[str, ...]:
        """The paths of those of these held-out photos whose bytes are learned from too; a split that is ours has none."""
        is_learned, is_judged = np.zeros((2, len(self.photos)), bool)
        is_learned[np.asarray(train, np.int64)] = is_judged[np.asarray(held_out, np.int64)] = True
        groups = (places for places in self.columns.digests.same() if is_learned[places].any())
        return tuple(self.photos[i].path for i in sorted(i for places in groups for i in places if is_judged[i]))

    @functools.cached_property
    def torn_groups(self) -> tuple[str, ...]:
        """The groups that are learned from and held out too, which only a split that was given can have."""
        groups = self.columns.groups
        learned, held_out = (set(groups.numbers()[self.is_on(side)].tolist()) for side in ("train", self.held_out_side))
        return tuple(sorted(name for n in learned & held_out if (name := groups.different[n]) is not None))

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
        labels = self.columns.labels
        numbers = labels.numbers() if positions is None else labels.numbers()[np.asarray(positions, np.int64)]
        used, place = np.unique(numbers, return_inverse=True)
        return targets_of([labels.different[n] for n in used], self.task, self.classes)[place]

    @functools.cached_property
    def strata(self) -> NDArray[np.int64]:
        """Which photos are alike, (n,) int64, see `targets.strata_of`."""
        return (
            self.labels() if self.task == "classification" else strata_of(self.columns.labels, self.task, self.classes)
        )

    def unlearnable(self, positions: Sequence[int]) -> list[str]:
        """What these photos are too few to learn: classes that none of them has, labels that none or all have."""
        labels = self.columns.labels
        n_of_label = Counter(labels.numbers()[np.asarray(positions, np.int64)].tolist())
        if self.task == "regression":
            return [] if len(n_of_label) > 1 else ["another number"]
        n_shown = Counter[str]()
        for number, n in n_of_label.items():
            n_shown.update(dict.fromkeys(names_of(labels.different[number], self.task), n))
        alone = {name for name, n in n_shown.items() if n == len(positions)} if self.task == "multilabel" else set()
        return [name for name in self.classes if not n_shown[name] or name in alone]

    def names(self, photo: Photo) -> list[str]:
        """The class of a photo, or its labels."""
        return names_of(photo.label, self.task)

    def different_labels(self, positions: Sequence[int] | NDArray[np.int64]) -> set[str]:
        """The labels that these photos have, each once."""
        labels = self.columns.labels
        return {labels.different[n] for n in np.unique(labels.numbers()[np.asarray(positions, np.int64)])}

    def digests(self, positions: Sequence[int] | NDArray[np.int64]) -> Sequence[bytes]:
        """The digests of the photos at these positions."""
        return Chosen(self.columns.digests, positions)

    def keys(self) -> Sequence[bytes]:
        """One key a photo; photos that must stay together have the same."""
        keys = split_keys(self.columns.digests, self.columns.groups)
        return Renamed(keys, self.near) if self.near else keys

    def with_side(self, positions: Collection[int], side: str) -> Catalog:
        """The catalog with these photos on this side, and with them what has the same bytes."""
        digests = {self.photos[i].digest for i in positions}
        same = tuple(
            tuple(replace(photo, side=side) if photo.digest in digests else photo for photo in group)
            for group in self.same
        )
        return replace(self, photos=self.columns.on_side(positions, side), same=same)

    def without(self, positions: set[int], reasons: Sequence[Skip]) -> Catalog:
        """The catalog without these photos, their reasons added to `skipped`."""
        return replace(self, photos=self.columns.without(positions), skipped=(*self.skipped, *reasons))


def as_csv(listed: Iterable[Photo]) -> Iterator[str]:
    """path,label,side,digest,group, some lines at a time; a manifest that can be tuned from again where its paths are."""
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(["path", "label", "side", "digest", "group"])
    for photos in batched(listed, LINES):
        writer.writerows([p.path, p.label, p.side, p.digest.hex(), p.group or ""] for p in photos)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
