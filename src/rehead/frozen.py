"""Only the head learns: features of the frozen backbone from the store, and a head solved on them."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.ties import tied, tied_for_fit
from rehead.divided import folds_of, in_store, job_order, photos_there, watched
from rehead.exporting.agreement import in_batches
from rehead.extraction import extract_missing, open_store
from rehead.features.compared import direction_kept
from rehead.features.engines import OnnxEngine, Prefix
from rehead.features.store import MEMORY_LIMIT_BYTES
from rehead.fitting import chosen_prefix
from rehead.job import Job, trained_dense
from rehead.solution import Solution
from rehead.tuning.familiar import bank_rows, far, fit_familiar
from rehead.tuning.kept_axes import NAME as AXES
from rehead.tuning.ranges import hidden_widths
from rehead.tuning.recipe import AUTO, STOP_SHARE, Recipe
from rehead.tuning.tasks import fit_task

IN_MEMORY_BYTES = MEMORY_LIMIT_BYTES // 2  # of features in half precision: dense layers learn from them in float32


def tune_head(job: Job, recipe: Recipe) -> Solution:
    """The head of least loss on the features of the photos that are there when extraction ends or is stopped."""
    catalog, progress = job.catalog, job.progress
    prefix = chosen_prefix(tied_for_fit(job, recipe), recipe)
    job.clock.lap("prepare")

    with open_store(job.cache, prefix, recipe) as store:
        order = job_order(catalog, recipe)
        n_stored = int(store.has(catalog.digests(order)).sum())
        extracted = extract_missing(job, order, prefix, recipe, store)
        if (kept := direction_kept(prefix)) is not None:
            progress.note(
                f"In 8 bits: features have a cosine of {kept:.3f} with those in float32, by photos of the first job with this "
                "network; the head learns on these"
            )
        if recipe.tie_copies:
            catalog = tied(job, in_store(catalog, order, store)).catalog
        n_bad = len(extracted.bad)
        train, held_out = photos_there(catalog, order, store, recipe, n_bad=n_bad, is_ended=job.ends())
        job.clock.lap("extract")

        # as they are kept, and then the store is closed: solving needs the memory
        features, shown = (
            store.read(catalog.digests(side), dtype=np.float16, memory_limit_bytes=IN_MEMORY_BYTES)
            for side in (train, held_out)
        )
    progress.phase("Solving the head")
    labels, folds = catalog.labels(train), folds_of(catalog, train, recipe)
    device = job.device(recipe.device)
    fitted = fit_task(
        catalog.task, features, labels, catalog.n_outputs, folds, recipe, device, progress, store.folder / AXES,
        by=partial(trained_dense, job, recipe.device),
        watch=watched(catalog, train, STOP_SHARE, recipe.seed) if recipe.head == AUTO or hidden_widths(recipe.head) else None,
    )  # fmt: skip
    familiar = fit_familiar(features, seed=recipe.seed)
    job.clock.lap("solve")
    return Solution(
        catalog=catalog,
        head=fitted.head,
        note=fitted.note,
        thresholds=fitted.thresholds,
        train=train,
        held_out=held_out,
        logits=fitted.head.logits(shown),
        body=prefix.onnx,
        features=lambda pixels: _by_engine(prefix, pixels),
        card=prefix.card,
        bad=extracted.bad,
        n_stored=n_stored,
        apart=None if fitted.apart is None else ([train[row] for row in fitted.apart.rows], fitted.apart.logits),
        penalty=fitted.penalty,
        n_watched=fitted.n_watched,
        familiar=familiar,
        bank=() if familiar is None else tuple(train[int(row)] for row in bank_rows(len(train), seed=recipe.seed)),
        distances=None if familiar is None else far(shown, familiar.bank, familiar.k),
        int8_cosine=kept,
    )


def _by_engine(prefix: Prefix, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    engine = OnnxEngine(prefix, "cpu")
    return in_batches(engine, pixels, engine.batch, engine.workers)
