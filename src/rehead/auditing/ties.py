"""Near copies kept in one fold, and on one side where the split is ours.

A held-out photo whose copy is learned from is learned from too. Perceptual hashes tell copies, whatever network is tuned and
wherever it is cut: the sides are the same for all of them. Sides that were given stay, but folds and watched photos are
ours: by those the penalty, the temperature and the epoch are chosen, and a copy on their other side makes all of them sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rehead.auditing.copies import tied_sides, with_near
from rehead.auditing.hashes import WORDS, near_pairs, taken, words
from rehead.auditing.kept import hashes_of_photos
from rehead.data.spill import empty
from rehead.errors import counted
from rehead.fitting import fit_sample
from rehead.heap import hand_back
from rehead.job import Job
from rehead.tuning.recipe import AUTO, Recipe


def tied(job: Job, positions: Sequence[int]) -> Job:
    """The job in which near copies among the photos at these positions have one key, and stand on the training side where the
    split is ours. Where it was given, only photos of the training side are looked at, and none that lies at an address is read
    for this alone."""
    catalog = job.catalog
    pairs = _near(job, positions) if catalog.ours else _near(job, catalog.among(positions, "train"), reads_far=False)
    moved, n = tied_sides(job.catalog, pairs, positions)
    if n:
        job.progress.note(f"{counted(n, 'held-out photo')} went to the training side, where near copies are.")
    return replace(job, catalog=with_near(moved, pairs))


def tied_for_fit(job: Job, recipe: Recipe) -> Job:
    """The same among the photos on which --fit auto decides; the job as it is where nothing is decided."""
    decides = recipe.fit == AUTO and recipe.tie_copies
    return tied(job, fit_sample(job.catalog, recipe)) if decides else job


def with_one_key(job: Job, positions: Sequence[int]) -> Job:
    """The job in which near copies among these photos have one key, whoever gave the sides, which stay as they are."""
    return replace(job, catalog=with_near(job.catalog, _near(job, positions)))


def _near(job: Job, positions: Sequence[int], *, reads_far: bool = True) -> Sequence[tuple[int, int, int]]:
    """Pairs of near copies among these photos, as in `copies.Alike`."""
    catalog = job.catalog
    keys = np.sort(np.array(positions, np.int64))  # what is known comes first, and must not decide what is found
    hashes, has = empty((len(keys), WORDS), np.uint64), np.zeros(len(keys), bool)
    hashed_photos = hashes_of_photos(
        catalog, positions, job.cache, job.progress, job.machines, whole=job.looks, reads_far=reads_far
    )
    for i, hashed in hashed_photos:
        place = np.searchsorted(keys, i)
        hashes[place], has[place] = words(hashed), True
    if not has.all():
        keys, hashes = keys[has], taken(hashes, np.flatnonzero(has))
    job.progress.phase("Comparing", len(keys))
    pairs = near_pairs(keys, hashes, told=job.progress.advance)
    del hashes
    hand_back()
    return pairs
