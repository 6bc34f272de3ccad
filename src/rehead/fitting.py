"""The frozen part of the backbone that a recipe asks for, and how pictures fit its square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rehead.bundle import Bundle
from rehead.data.catalog import Catalog
from rehead.divided import folds_of, in_store, job_order
from rehead.errors import RunError, WeightsUnavailable, counted
from rehead.exporting.prefixes import int8_prefix, ready_prefix
from rehead.extraction import extract_missing, open_store
from rehead.features.engines import Prefix
from rehead.job import Job
from rehead.nets.card import with_fit
from rehead.pixels import FITS
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import cv_loss

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
    if prefix.card.weights == bundle.facts["backbone"].get("weights"):
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
    if not np.isfinite(losses).any():
        own = prefix.card.preprocess.fit
        job.progress.note(
            f"--fit auto cannot tell them apart, as no class has photos in two folds: {own}, the network's own"
        )
        return prefix
    best = candidates[int(np.argmin(losses))]
    job.progress.note(f"--fit auto takes {best.card.preprocess.fit}, of the least loss")
    return best
