"""From a catalog and a recipe to features in the store: on which prefix and engine, and which of them are missing.

In which order photos are taken is `divided.py`'s; how a batch is decoded and run is left to `features/extract.py`.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle
from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.joining import why_gone
from rehead.data.memory import encoded
from rehead.data.reading import checked
from rehead.data.rows import Photo, Skip
from rehead.divided import folds_of, in_store, job_order
from rehead.errors import PhotoError, RecipeError, RunError, SourceError, TooManyBad, WeightsUnavailable, counted
from rehead.exporting.prefixes import int8_prefix, ready_prefix
from rehead.features.decoders import beside
from rehead.features.engines import Prefix, open_engine, precision_of, resolve
from rehead.features.extract import Compute, Extracted, by_engine, extract
from rehead.features.samples import N_COMPARED, N_COMPARED_INT8, sample_pixels
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.job import Job
from rehead.nets.card import with_fit
from rehead.nets.places import places_of
from rehead.pixels import FITS, Preprocess
from rehead.sharing import Sharing
from rehead.tuning.anytime import Anytime
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import cv_loss, quick_head
from rehead.verdict.judging import first_number

NOTHING_KEPT = "no features of it are kept"
N_FIT_SAMPLE = 400  # photos on which --fit auto is decided; four a class where that is more


def chosen_prefix(job: Job, recipe: Recipe) -> Prefix:
    """The backbone's frozen part, ready for any engine, with the way pictures become its square."""
    weights = recipe.weights_file
    prefix = ready_prefix(
        recipe.backbone,
        weights=weights,
        arguments=dict(recipe.backbone_args),
        cut=recipe.cut if recipe.cut and recipe.cut != "none" else "pool",
        cache=job.cache,
        progress=job.progress,
    )
    if recipe.quantize != "none":
        prefix = int8_prefix(prefix, job.cache, job.progress)
    if recipe.fit == "default":
        return prefix
    if recipe.fit != "auto":
        return replace(prefix, card=with_fit(prefix.card, recipe.fit))
    return _best_fit(job, prefix, recipe)


def prefix_of_run(job: Job, recipe: Recipe, bundle: Bundle) -> Prefix:
    """The prefix that a finished run has its features of. bundle: the run's.

    Raises RunError where the weights are gone, or others now: what they give is of another network than the run's numbers and
    head. WeightsUnavailable where they cannot be read.
    """
    try:
        prefix = chosen_prefix(job, recipe)
    except WeightsUnavailable as error:
        if recipe.weights is None or isinstance(error.__cause__, OSError):  # a file that is there, and cannot be read
            raise
        raise RunError(
            what=f"The weights of the run {bundle.folder.parent} are not at their place any more.",
            why=error.what,
            fix="Bring them back there.",
        ) from error
    if prefix.card.weights == bundle.facts["backbone"]["weights"]:
        return prefix
    in_8_bits = prefix.original is not None  # another ONNX Runtime rounds the same weights otherwise
    if in_8_bits and recipe.weights is None:
        return prefix
    where = f"at {recipe.weights}" if recipe.weights is not None else f"of {recipe.backbone} that are here"
    raise RunError(
        what=f"The weights {where} are not those that {bundle.folder.parent} was made with"
        + (", or make another network in 8 bits here." if in_8_bits else "."),
        why=("They were replaced, or made into 8 bits by another ONNX Runtime" if in_8_bits else "They were replaced")
        + ", and its numbers are of another network.",
        fix="Bring its own back to their place, or tune again.",
    )


def with_decided_fit(job: Job, recipe: Recipe) -> Recipe:
    """The recipe with the fit that --fit auto decides on, by the frozen network also where layers will learn."""
    if recipe.fit != "auto":
        return recipe
    return replace(recipe, fit=chosen_prefix(job, replace(recipe, cut=None)).card.preprocess.fit)


def fit_sample(catalog: Catalog, recipe: Recipe) -> Sequence[int]:
    """The photos of the training side on which --fit auto decides."""
    n_sample = max(N_FIT_SAMPLE, 4 * len(catalog.classes))
    return catalog.among(job_order(catalog, recipe), "train")[:n_sample]


def _best_fit(job: Job, prefix: Prefix, recipe: Recipe) -> Prefix:
    """The prefix with the fit of least loss by k-fold on a sample of the training side.

    Log-loss tells more than accuracy does on a few hundred photos, where one photo decides between accuracies.
    """
    catalog, sample = job.catalog, fit_sample(job.catalog, recipe)
    candidates = [replace(prefix, card=with_fit(prefix.card, fit)) for fit in FITS]
    losses = []
    for candidate in candidates:
        fit = candidate.card.preprocess.fit
        with open_store(job.cache, candidate, recipe) as store:
            extract_missing(replace(job, stop=lambda: False), sample, candidate, replace(recipe, budget_s=None), store)
            there = in_store(catalog, sample, store)
            x, y = store.read(catalog.digests(there)), catalog.labels(there)
        loss, words = cv_loss(catalog.task, x, y, catalog.n_outputs, folds_of(catalog, there, recipe))
        losses.append(loss)
        job.progress.note(
            f"--fit {fit}: {words or 'no number'} by {recipe.folds}-fold on {counted(len(there), 'photo')}"
        )
    best = candidates[int(np.argmin(losses))]
    job.progress.note(f"--fit auto takes {best.card.preprocess.fit}, of the least loss")
    return best


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


def features_of(images: Sequence[Any], recipe: Recipe, *, cache: Path) -> tuple[list[bytes], NDArray[Any]]:
    """The digests and features (n, width) of images without labels, in their order, through the store.

    images: paths, encoded bytes, Pillow images or uint8 arrays. Raises SourceError for one that cannot be read, which names
    it: by its path, or by its place from 0 on; so for a file that changes meanwhile.
    """
    photos: list[Photo] = []
    by_digest: dict[bytes, Any] = {}  # files are read again, not held
    for i, image in enumerate(images):
        is_file = isinstance(image, str | os.PathLike)
        name = str(image) if is_file else f"image {i}"
        data = _encoded(image, name)
        photos.append(Photo(name, "", "train", blake3.blake3(data).digest()))
        by_digest[photos[-1].digest] = image if is_file else data
    digests = [photo.digest for photo in photos]

    def read(photo: Photo) -> bytes:
        return checked(encoded(by_digest[photo.digest]), photo, "when it was read first")

    catalog = Catalog("images", "dataset", tuple(photos), ("", " "), read)
    job = Job(catalog, cache)
    if recipe.fit == "auto":
        raise RecipeError(
            what="Here nothing decides which fit is best for these photos.",
            fix="Name one in place of auto: crop, pad or squash.",
        )
    prefix = chosen_prefix(job, recipe)
    with open_store(cache, prefix, recipe) as store:
        strict = replace(recipe, max_bad=0.0)
        try:
            extract_missing(job, list(range(len(photos))), prefix, strict, store)
        except TooManyBad as error:
            skip = error.skips[0]
            raise _unusable(f"{skip.path} {skip.reason}") from error
        return digests, store.read(digests)


def _encoded(image: Any, name: str) -> bytes:
    try:
        return encoded(image)
    except PhotoError as error:
        raise _unusable(f"{name}: {error.what}") from error
    except OSError as error:
        reason = (
            "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        )
        raise _unusable(f"{name} {reason}") from error


def _unusable(what: str) -> SourceError:
    return SourceError(
        what=f"{what.rstrip('.')}.",
        why="Every photo must be one that can be read here, as scikit-learn wants an answer for each.",
        fix="Leave it out, and its label; rehead.tune skips such photos and lists them.",
    )
