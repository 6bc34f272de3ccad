"""What a job takes from features that machines share, and what it adds to them: a file as soon as one is full, the rest at
its end. A machine that is lost on the way costs others at most a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.rows import first_few
from rehead.errors import SourceError, StoreError, counted
from rehead.features.shared import a_file
from rehead.features.store import Store
from rehead.job import Job


def share_catalog(job: Job, catalog: Catalog) -> None:
    """Adds the photos of a job that is done to what machines share, where there is any; what hinders it is told."""
    if job.shared is None:
        return
    try:
        if address := job.shared.add_catalog(catalog):
            job.progress.note(f"The photos' addresses, labels and sides are in {address}")
    except (StoreError, SourceError) as error:
        job.progress.note(f"{error.what} {error.why} {error.fix}")


class Sharing:
    """Between the job's store and those that share, where there are any. Where nothing may be added, which is told once, the
    job goes on with what it has."""

    def __init__(self, job: Job, order: Sequence[int], store: Store) -> None:
        self._job, self._store, self._order = job, store, order
        self._came: list[bytes] = []
        self._n_added, self._may_add = 0, job.shared is not None

    def absent(self) -> Positions:
        """The photos whose features the store has not, when it has those that are shared; in the order of the job."""
        absent, progress = self._absent(self._order), self._job.progress
        if self._job.shared is None or not absent:
            return absent
        progress.phase("Fetching features", None)
        if n := self._job.shared.fetch(self._store, self._job.catalog.digests(absent)):
            progress.note(f"Features of {counted(n, 'photo')} were in {self._job.shared.address}")
        self._tell_unreadable()
        return self._absent(absent)

    def _absent(self, positions: Sequence[int]) -> Positions:
        has = self._store.has(self._job.catalog.digests(positions))
        return Positions(np.asarray(positions, np.int64)[~has])

    def came(self, positions: Sequence[int]) -> None:
        """Features of these photos were computed; those that are written into the store by now may be added."""
        if not self._may_add:
            return
        self._came += self._job.catalog.digests(positions)
        if len(self._came) >= a_file(self._store.shape):
            self._add(self._came, lists=False)
            self._came = []

    def end(self) -> None:
        """Adds all that those who share have not."""
        if self._may_add:
            self._add(self._job.catalog.digests(self._order))
            self._tell_unreadable()
        if self._n_added and self._job.shared is not None:
            self._job.progress.note(
                f"Features of {counted(self._n_added, 'photo')} are new in {self._job.shared.address}"
            )

    def _tell_unreadable(self) -> None:
        if self._job.shared is not None and (names := self._job.shared.unreadable()):
            self._job.progress.note(
                f"Passed over in {self._job.shared.address}, as they cannot be read or are damaged: {first_few(names)}"
            )

    def _add(self, digests: Sequence[bytes], *, lists: bool = True) -> None:
        if not self._may_add or self._job.shared is None:
            return
        try:
            self._n_added += self._job.shared.add(self._store, digests, lists=lists)
        except (StoreError, SourceError) as error:
            self._may_add = False
            self._job.progress.note(f"{error.what} {error.why} {error.fix}")
