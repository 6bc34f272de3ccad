"""Near copies kept on one side where the split is ours: a held-out photo whose copy is learned from goes there too.

Only photos whose features lie near one of the other side are looked at, so that this costs little beside extraction.
"""

from __future__ import annotations

from dataclasses import replace

from rehead.audit.copies import N_NEAREST, confirmed, tied_sides
from rehead.audit.kept import facts_of_photos
from rehead.errors import counted
from rehead.extraction import chosen_prefix, extract_missing, in_store, job_order, open_store
from rehead.features.engines import Prefix
from rehead.features.store import Store
from rehead.job import Job
from rehead.tuning.recipe import Recipe
from rehead.verdict.neighbours import neighbours

NEAR = 0.7  # cosine; copies at JPEG quality 30 and a third of the size are nearer


def tied(job: Job, order: list[int], store: Store) -> Job:
    """The job with near copies on the training side, of those photos of `order` whose features are there."""
    catalog = job.catalog
    if not catalog.ours:
        return job
    there = in_store(catalog, order, store)
    train, held_out = ([i for i in there if (catalog.photos[i].side == "train") == learns] for learns in (True, False))
    if not train or not held_out:
        return job
    features, asked = (
        store.read([catalog.photos[i].digest for i in side]).reshape(len(side), -1) for side in (train, held_out)
    )
    found = neighbours(features, asked, N_NEAREST)
    near = [
        (i, train[place])
        for i, places, similar in zip(held_out, found.places, found.similarity, strict=True)
        for place, value in zip(places, similar, strict=True)
        if value >= NEAR
    ]
    facts, _ = facts_of_photos(catalog, sorted({i for pair in near for i in pair}), job.cache)
    moved, n = tied_sides(catalog, confirmed(near, facts))
    if n:
        job.progress.note(f"{counted(n, 'held-out photo')} went to the training side, where near copies are.")
    return replace(job, catalog=moved)


def tied_by_frozen(job: Job, recipe: Recipe) -> Job:
    """The same for a job that trains layers, by the frozen network's features: its sides are those of a head alone."""
    if not job.catalog.ours:
        return job
    frozen = replace(recipe, train="head", first=None, cut=None)
    prefix: Prefix = chosen_prefix(job, frozen)
    order = job_order(job.catalog, recipe)
    with open_store(job.cache, prefix, frozen) as store:
        extract_missing(job, order, prefix, frozen, store)
        return tied(job, order, store)
