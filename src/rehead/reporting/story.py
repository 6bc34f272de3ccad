"""All that a report tells, as plain values and two functions; where they come from is left to whoever fills it in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.findings import Audit, CopyGroup
from rehead.data.rows import Photo
from rehead.reporting.wording import plain
from rehead.verdict.judging import AnyVerdict


@dataclass(frozen=True, kw_only=True)
class Story:
    """name: of the run. classes: in the order of the probabilities' columns; none of numbers.

    photos: those that were used, learned from and held out. held_out: places in `photos`, in the order of the verdict's
    logits. probabilities: (n_held_out, n_classes) float32, calibrated; (n_held_out, 1) numbers of a regression.
    features: (n_photos, width) float32, of the network as it was before layers learned. is_tuned: whether some did.
    unfamiliar: (n_held_out,) bool, the photos that are far from all learned from.
    read: the bytes of a photo; raises OSError or PhotoError where it is gone or another one now.
    heat: (bytes of a picture, place of a class) -> (h, w) float32 in 0..1, the class activation map over the whole upright
    picture, NaN where the network does not look (see `heatmaps.over_picture`); None where it has none. read and heat are
    called by several threads at once.
    made: how it was made, sections of (name, value), such as recipe, photos, versions, digests, command.
    """

    name: str
    verdict: AnyVerdict
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    held_out: tuple[int, ...]
    probabilities: NDArray[np.float32]
    read: Callable[[Photo], bytes]
    features: NDArray[np.float32] | None = None
    is_tuned: bool = False
    unfamiliar: NDArray[np.bool_] | None = None
    heat: Callable[[bytes, int], NDArray[np.float32] | None] | None = None
    audit: Audit | None = None
    made: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    @functools.cached_property
    def train(self) -> tuple[int, ...]:
        """The places of the photos that are not held out."""
        held_out = set(self.held_out)
        return tuple(i for i in range(len(self.photos)) if i not in held_out)

    @functools.cached_property
    def copies(self) -> tuple[CopyGroup, ...]:
        """Leaks first, and those last of which no photo was used, so that there is nothing to show."""
        groups = self.audit.copies if self.audit else ()
        return tuple(sorted(groups, key=lambda g: (not g.is_leak, all(self.place(path) is None for path in g.paths))))

    @functools.cached_property
    def row_by_place(self) -> dict[int, int]:
        """The row of `probabilities` of each held-out photo."""
        return {place: row for row, place in enumerate(self.held_out)}

    def place(self, path: str) -> int | None:
        """Where a path stands in `photos`, as it is or as it is written in a verdict; None where it does not."""
        return self._place_by_path.get(path, self._place_by_path.get(plain(path)))

    @functools.cached_property
    def _place_by_path(self) -> dict[str, int]:
        written = {plain(photo.path): i for i, photo in enumerate(self.photos)}
        return written | {photo.path: i for i, photo in enumerate(self.photos)}

    def answer(self, place: int) -> tuple[int, float] | None:
        """The class a held-out photo is named, by its place, and the probability; None of others and of other tasks."""
        row = self.row_by_place.get(place)
        if row is None or self.verdict.task != "classification" or not len(self.classes):
            return None
        named = int(self.probabilities[row].argmax())
        return named, float(self.probabilities[row, named])
