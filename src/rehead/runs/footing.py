"""What a training of layers began with: where the network is cut, which views it has, of which photos, and which are watched.

It goes on with the same from a checkpoint, whatever the disk has room for by then and whatever could be extracted since; and
so does a second phase behind a first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.rows import Skip
from rehead.errors import RunError
from rehead.runs.contents import FOOTING
from rehead.runs.folder import RunFolder


@dataclass(frozen=True)
class Footing:
    """cut: the layer behind which activations are kept, None to train from the photos. views: those that are kept. absent: by
    their digests the photos of the job that it does without, with the reason, None for those that were not reached. watched,
    tied: digests of those that say which epoch is kept, and of those that near copies took to the training side. alone: what
    a head alone says of each held-out photo, by its digest: the place of a class, or its outputs; None where that was not
    looked at. head: a few words on the head that it began with."""

    cut: str | None
    views: tuple[str, ...]
    absent: Mapping[bytes, str | None]
    watched: frozenset[bytes]
    tied: frozenset[bytes]
    alone: Mapping[bytes, Sequence[float]] | None = None
    head: str = ""

    @classmethod
    def of(
        cls,
        cut: str | None,
        views: Sequence[str],
        catalog: Catalog,
        order: Sequence[int],
        used: Sequence[int],
        bad: Mapping[int, Skip],
        watched: Sequence[int],
        tied: frozenset[bytes],
    ) -> Footing:
        """order: the photos of the job. used, bad, watched: those of them that it has, that cannot be had, that are watched.
        tied: as above."""
        lacking = np.setdiff1d(np.asarray(order, np.int64), np.asarray(used, np.int64)).tolist()
        reasons = [bad[i].reason if i in bad else None for i in lacking]
        return cls(
            cut,
            tuple(views),
            dict(zip(catalog.digests(lacking), reasons, strict=True)),
            frozenset(catalog.digests(watched)),
            tied,
        )

    def photos(self, catalog: Catalog, order: Sequence[int]) -> tuple[Positions, dict[int, Skip]]:
        """The photos of the job that are learned and verified with, and those that cannot be had."""
        digests = [*catalog.digests(order)]
        kept = Positions([i for i, digest in zip(order, digests, strict=True) if digest not in self.absent])
        reasons = ((i, self.absent.get(digest)) for i, digest in zip(order, digests, strict=True))
        return kept, {i: Skip(catalog.photos[i].path, reason) for i, reason in reasons if reason is not None}

    def slices(self, catalog: Catalog, train: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places among the training photos to learn from, and those that are watched."""
        is_watched = np.array([digest in self.watched for digest in catalog.digests(train)], bool)
        return np.flatnonzero(~is_watched), np.flatnonzero(is_watched)


def write_footing(run: RunFolder, footing: Footing) -> None:
    """Writes it into the run, for a job that goes on from there."""
    absent = {digest.hex(): reason for digest, reason in footing.absent.items()}
    run.write_json(
        FOOTING,
        {
            "cut": footing.cut,
            "views": footing.views,
            "absent": absent,
            "watched": sorted(one.hex() for one in footing.watched),
            "tied": sorted(one.hex() for one in footing.tied),
            "head": footing.head,
            "alone": footing.alone and {digest.hex(): said for digest, said in footing.alone.items()},
        },
    )


def read_footing(run: Path) -> Footing:
    """What was written. Raises RunError where it is not there or damaged."""
    try:
        values: dict[str, Any] = json.loads((run / FOOTING).read_text(encoding="utf-8"))
        absent = {bytes.fromhex(digest): reason for digest, reason in values["absent"].items()}
        watched, tied = (frozenset(map(bytes.fromhex, values[name])) for name in ("watched", "tied"))
        alone = values["alone"] and {bytes.fromhex(digest): [*said] for digest, said in values["alone"].items()}
        return Footing(values["cut"], tuple(values["views"]), absent, watched, tied, alone, values["head"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            what=f"What the training of {run} began with cannot be read.",
            why=f"{run / FOOTING}: {error}",
            fix="Start again without --resume; features that are there are used.",
        ) from error
