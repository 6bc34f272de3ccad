"""The audit of a folder, manifest or archive as a job: scan, extract what is missing, look at each photo, judge."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.ambient import own_settings
from rehead.auditing.apart import logits_apart, logits_held_out
from rehead.auditing.audit import audit_folds, audit_photos, leaked
from rehead.auditing.copies import Alike, alike, copy_groups, tied_sides
from rehead.auditing.facts import Facts
from rehead.auditing.findings import Audit
from rehead.auditing.kept import facts_of_photos
from rehead.data.catalog import Catalog
from rehead.data.room import check_writable
from rehead.data.rows import Skip
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.data.split import stratified_order
from rehead.divided import FLOOR, in_store
from rehead.errors import counted
from rehead.extraction import extract_missing, open_store
from rehead.features.cache import cache_folder
from rehead.fitting import chosen_prefix
from rehead.job import Job
from rehead.progress import Progress, Silent
from rehead.tuning.recipe import Recipe


@own_settings()
def audit(
    source: object,
    labels: object = None,
    *,
    layout: str = "auto",
    valid: object | None = None,
    test: object | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Audit:
    """What is wrong with labelled photos: copies, leaks, wrong labels, odd and broken pictures, shortcuts.

    source, labels, layout, valid, test, cache, stop: as for `rehead.tune`. settings: the fields of `Recipe` that decide
    features, sides and folds, such as backbone="efficientnet_lite0", limit=1000, seed=0.
    Photos are read and never changed. Raises the errors of `rehead.errors` where nothing can be read.
    """
    recipe = Recipe.from_dict({"max_bad": 1.0, **settings})
    place, progress = cache_folder(cache), progress or Silent()
    check_writable(place)
    given = source if labels is None else (source, labels)
    opened = open_source(given, layout=layout, valid=valid, test=test, cache=place, task=recipe.task,
                         max_bad=recipe.max_bad, progress=progress)  # fmt: skip
    catalog = scan(
        opened,
        seed=recipe.seed,
        valid_fraction=recipe.valid_fraction,
        task=recipe.task,
        progress=progress,
        cache=place,
        is_learned=False,
    )
    looked = look_at(Job(catalog, place, progress, stop=stop), recipe)
    catalog, n_tied = tied_sides(catalog, looked.found.pairs, looked.positions)
    if n_tied:
        progress.note(f"{counted(n_tied, 'held-out photo')} went to the training side, where near copies are.")
    apart, held_out = _logits(catalog, looked, recipe.seed, progress)
    return audit_photos(
        catalog,
        looked.positions,
        looked.features,
        backbone=recipe.backbone,
        facts=looked.facts,
        found=looked.found,
        apart=apart,
        held_out=held_out,
        bad=looked.bad,
        seed=recipe.seed,
        progress=progress,
    )


@dataclass(frozen=True)
class Looked:
    """What is known of the photos at these positions of a catalog. features: (n, d), a row for each. facts: by position.
    bad: photos that could not be read."""

    positions: Sequence[int]
    features: NDArray[Any]
    facts: dict[int, Facts]
    found: Alike
    bad: list[Skip]


def look_at(job: Job, recipe: Recipe) -> Looked:
    """Features and facts of the job's photos, computed where they are not kept, and which photos are alike."""
    catalog, progress = job.catalog, job.progress
    digests = catalog.columns.digests
    order = stratified_order(catalog.strata, digests, seed=recipe.seed, floor=FLOOR).tolist()[: recipe.limit]
    prefix = chosen_prefix(job, recipe)
    with open_store(job.cache, prefix, recipe) as store:
        extracted = extract_missing(job, order, prefix, recipe, store)
        positions = in_store(catalog, order, store)
        features = store.read([digests[i] for i in positions])
    features = features.reshape(len(positions), math.prod(features.shape[1:]))
    facts, unseen = facts_of_photos(catalog, positions, job.cache, progress, job.machines)
    progress.phase("Comparing", len(positions))
    found = alike(positions, features, facts, told=progress.advance)
    return Looked(positions, features, facts, found, [*extracted.bad.values(), *unseen.values()])


def _logits(
    catalog: Catalog, looked: Looked, seed: int, progress: Progress
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Logits by folds of all photos, and of the held-out ones by a head of the training side; that only where photos leak."""
    positions, features = looked.positions, looked.features
    if catalog.task != "classification" or len(catalog.different_labels(positions)) < 2:
        return None, None
    progress.phase("Learning by folds")
    labels, n_classes = catalog.labels(positions), len(catalog.classes)
    apart = logits_apart(features, labels, n_classes, audit_folds(catalog, positions, looked.found, seed))
    if not leaked(copy_groups(catalog, looked.found.pairs, positions), catalog, positions):
        return apart, None
    is_train = catalog.is_on("train")[positions]
    return apart, logits_held_out(features, labels, n_classes, is_train)
