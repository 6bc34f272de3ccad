"""From a catalog and a prefix to features in the store: by which engine, and which of them are missing.

In which order photos are taken is `divided.py`'s; how a batch is decoded and run is left to `features/extract.py`.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.joining import why_gone
from rehead.data.rows import Skip
from rehead.errors import RunError, counted
from rehead.features.compared import open_engine
from rehead.features.decoders import beside
from rehead.features.engines import Prefix, precision_of, resolve
from rehead.features.extract import Compute, Extracted, by_engine, extract
from rehead.features.samples import N_COMPARED, N_COMPARED_INT8, sample_pixels
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.job import Job
from rehead.nets.places import places_of
from rehead.pixels import Preprocess
from rehead.sharing import Sharing
from rehead.tuning.anytime import Anytime
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import quick_head
from rehead.verdict.judging import first_number

NOTHING_KEPT = "no features of it are kept"


def open_store(cache: Path, prefix: Prefix, recipe: Recipe, view: str = PLAIN) -> Store:
    """The store of all that decides a feature's value. view: how photos are seen, see `features/views.py`."""
    card = prefix.card
    precision = card.quantized or precision_of(*resolve(*recipe.extracts_by))
    decides = {
        "backbone": card.name,
        "prefix": card.identity,
        "weights": card.weights,
        "cut": card.cut,
        "preprocess": card.preprocess.to_dict(),
        "view": view,
        "precision": precision,
    }
    return Store.open(cache, f"{card.identity[:32]}-{view}-{precision}", shape=card.shape, about=decides)


def extract_missing(
    job: Job, order: Sequence[int], prefix: Prefix, recipe: Recipe, store: Store, view: str = PLAIN
) -> Extracted:
    """Features of the photos of `order` that the store does not have, with a first number shown on the way.

    view: how photos are seen; other views than "plain" are for learning only, and no number is shown of them.
    """
    catalog, progress = job.catalog, job.progress
    sharing = Sharing(job, order, store)
    missing = sharing.absent()
    gone = left_out(job, order, missing)
    missing = Positions([i for i in missing if i not in gone]) if gone else missing
    progress.phase("Extracting" if view == PLAIN else f"Extracting {view}", len(order))
    progress.advance(len(order) - len(missing))
    if not missing:
        sharing.end()
        return Extracted(gone)
    fit = functools.partial(quick_head, catalog.task, n_outputs=catalog.n_outputs)
    tell = functools.partial(first_number, catalog.task)
    anytime = Anytime(catalog.labels(), catalog.is_on("train"), lambda x, y: fit(features=x, targets=y), tell)
    ends = time.monotonic() + recipe.budget_s if recipe.budget_s is not None else None

    def on_features(positions: list[int], features: NDArray[np.floating[Any]]) -> None:
        sharing.came(positions)
        if view != PLAIN:
            return
        anytime.add(positions, _pooled(features, prefix.card.preprocess))
        if line := anytime.check():
            progress.status(line)

    extracted = extract(
        catalog,
        missing,
        _compute(job, order, missing, prefix, recipe, view),
        store=store,
        progress=progress,
        max_bad=recipe.max_bad,
        stop=lambda: job.ends() or (ends is not None and time.monotonic() > ends),
        on_features=on_features,
        n_known=len(order) - len(missing) - len(gone),
        bad_before=catalog.bad,
        n_all=catalog.n_all,
    )
    extracted.bad.update(gone)
    sharing.end()
    return extracted


def _compute(
    job: Job, order: Sequence[int], missing: Sequence[int], prefix: Prefix, recipe: Recipe, view: str
) -> Compute:
    """Who computes the features: the engine of the recipe, once it was seen to agree with the reference, here or elsewhere; on
    photos that are missing, or on others where these cannot be read."""
    catalog, (name, device) = job.catalog, resolve(*recipe.extracts_by)
    n_compared = N_COMPARED if prefix.original is None else N_COMPARED_INT8
    there = job.machines.engine if job.machines is not None and name == "torch" else None  # who has the device
    engine = open_engine(
        prefix,
        name,
        device,
        lambda: sample_pixels(catalog, itertools.chain(missing, order), prefix.card, n_compared),
        there,
    )
    if job.machines is not None:
        return job.machines.compute(catalog, missing, prefix, name, device, view)
    decode = beside(device, len(missing), functools.partial(stored_views, view, prefix.card.preprocess))
    return by_engine(catalog, missing, engine, decode)


def left_out(job: Job, order: Sequence[int], missing: Sequence[int]) -> dict[int, Skip]:
    """Photos of an earlier run of which nothing is left: no features, and no file to compute them from.

    Raises RunError when a class or label could not be learned without them, and what is said of an archive or a store that is
    there and cannot be read.
    """
    catalog = job.catalog
    gone = {
        i: Skip(photo.path, f"{why_gone(catalog.read, photo)}, and {NOTHING_KEPT}")
        for i in missing
        if catalog.is_gone(photo := catalog.photos[i])
    }
    if not gone:
        return gone
    if lost := lost_with(catalog, order, gone):
        raise _lost(lost, list(gone.values()))
    told = f"{counted(len(gone), 'earlier photo')} {'is' if len(gone) == 1 else 'are'} left out"
    first = next(iter(gone.values()))
    job.progress.note(f"{told}, such as {first.path}: it {first.reason}; skipped.csv lists them")
    return gone


def lost_with(catalog: Catalog, order: Sequence[int], gone: Collection[int]) -> list[str]:
    """The classes or labels that could be learned of these photos, and cannot be without those that are gone."""
    learned = catalog.among(order, "train")
    lacking = set(catalog.unlearnable(sorted(set(learned).difference(gone))))
    return sorted(lacking.intersection(catalog.classes).difference(catalog.unlearnable(learned)))


def _lost(labels: list[str], gone: list[Skip]) -> RunError:
    return RunError(
        what=f"Nothing is left to learn {', '.join(map(repr, labels[:5]))} from.",
        why=f"{counted(len(gone), 'earlier photo')} cannot be had, such as {gone[0].path}: it {gone[0].reason}.",
        fix="Bring them back to their place, name the cache that has their features with --cache DIR, "
        f"or put photos of {'this class' if len(labels) == 1 else 'these'} among the new ones.",
    )


def _pooled(features: NDArray[np.floating[Any]], preprocess: Preprocess) -> NDArray[np.float32]:
    """Features as one row a photo, for a number that is only shown: maps and tokens are averaged."""
    places = places_of(features.shape[1:], (preprocess.height, preprocess.width))
    axes = tuple(1 + axis for axis in places)
    return np.asarray(features.mean(axis=axes, dtype=np.float32) if axes else features, np.float32)
