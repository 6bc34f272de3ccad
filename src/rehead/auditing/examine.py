"""A finished run looked at again: what is wrong with its photos, and what more of them would bring. From kept features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.apart import logits_apart
from rehead.auditing.audit import audit_folds, audit_photos
from rehead.auditing.copies import Alike, alike
from rehead.auditing.findings import Audit
from rehead.auditing.kept import facts_of_photos
from rehead.bundle_head import read_head
from rehead.data.catalog import Catalog
from rehead.divided import in_store
from rehead.durable import write_text
from rehead.errors import StoreError
from rehead.extraction import extract_missing, open_store
from rehead.fitting import prefix_of_run
from rehead.job import Job
from rehead.runs.finished import Finished
from rehead.tuning.learning_curve import FRACTIONS, grown, multiplied
from rehead.verdict.growth import growth
from rehead.verdict.judging import AnyVerdict
from rehead.verdict.metrics import Verdict

AUDIT = "audit.json"
MOST_CELLS = 4_000_000  # photos times classes, beyond which no heads are solved for the report alone: it takes minutes
MOST_MULTIPLIED = 2.5e12  # of heads of dense layers, on a CPU: a minute of two cores, see `job.WORTH_BEGINNING`


def features_of_run(job: Job, run: Finished) -> tuple[Sequence[int], NDArray[np.float32]]:
    """The photos that the run used and whose features are there, and these, (n, width): those of the frozen network.

    What the store lacks is extracted from photos that are still there. Raises StoreError where nothing is left,
    RunError where the network is another now.
    """
    recipe = replace(
        run.run.recipe, train="head", first=None, fit=run.bundle.preprocess.fit, limit=None, budget_s=None, max_bad=1.0
    )
    if run.run.recipe.train != "head":
        recipe = replace(recipe, cut=None)
    used = run.outputs.used.tolist()
    prefix = prefix_of_run(job, recipe, run.bundle)
    with open_store(job.cache, prefix, recipe) as store:
        catalog = job.catalog
        missing = store.missing(catalog.digests(used))
        if missing:
            lost = set(missing)
            order = [i for i in used if catalog.photos[i].digest not in lost or not catalog.is_gone(catalog.photos[i])]
            extract_missing(job, order, prefix, recipe, store)
        there = in_store(catalog, used, store)
        if not there:
            raise StoreError(
                what="Neither features nor files of its photos are there any more.",
                fix="Name the cache that has the features with --cache DIR, or bring the photos back.",
            )
        features = store.read(catalog.digests(there))
    return there, features.reshape(len(there), -1)


def examine(
    job: Job, run: Finished, positions: Sequence[int], features: NDArray[np.float32]
) -> tuple[Audit, AnyVerdict]:
    """The audit, and the verdict with what more photos would bring; both are written into the run, the audit where all photos
    could be looked at.

    positions: in the catalog, of the rows of features (n, width); see `features_of_run`.
    """
    catalog, verdict = job.catalog, run.run.verdict
    assert verdict is not None
    facts, unseen = facts_of_photos(catalog, positions, job.cache, job.progress, job.machines)
    job.progress.phase("Comparing", len(positions))
    found = alike(positions, features, facts, told=job.progress.advance)
    held_out = _spread(positions, run.outputs.held_out, run.outputs.logits)
    audit = audit_photos(
        catalog,
        positions,
        features,
        backbone=run.run.recipe.backbone,
        facts=facts,
        found=found,
        apart=_apart(job, run, positions, features, found),
        held_out=held_out,
        seed=run.run.recipe.seed,
        progress=job.progress,
    )
    if isinstance(verdict, Verdict) and verdict.growth is None and run.run.recipe.train == "head" and len(positions):
        verdict = _with_growth(job, run, verdict, positions, features)
        write_text(run.run.path / "verdict.json", json.dumps(verdict.to_dict(), indent=1) + "\n")
    if not unseen:  # else they are looked at again when they are back
        # last, as a report that finds it does none of this again
        write_text(run.run.path / AUDIT, json.dumps(audit.to_dict(), indent=1) + "\n")
    return audit, verdict


def read_audit(run: Finished) -> Audit | None:
    """What an earlier look found, None where there was none or it cannot be read."""
    try:
        return Audit.from_dict(json.loads((run.run.path / AUDIT).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _spread(positions: Sequence[int], rows: NDArray[np.int64], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (len(positions), k) of the photos at these rows of the catalog, NaN for the others."""
    spread = np.full((len(positions), logits.shape[1]), np.nan, np.float32)
    place = {position: i for i, position in enumerate(positions)}
    for row, own in zip(rows.tolist(), logits, strict=True):
        if row in place:
            spread[place[row]] = own
    return spread


def _apart(
    job: Job, run: Finished, positions: Sequence[int], features: NDArray[np.float32], found: Alike
) -> NDArray[np.float32] | None:
    """Logits by models that did not learn from the photo, nor from a copy of it: the run's own where it has them for all, else
    heads by folds."""
    catalog, outputs = job.catalog, run.outputs
    if catalog.task != "classification":
        return None
    is_train = catalog.is_on("train")
    is_torn = any(is_train[i] != is_train[j] for i, j, _ in found.pairs)
    if len(outputs.apart) == len(outputs.train) and run.run.recipe.tie_copies and not is_torn:
        rows = np.concatenate([outputs.apart, outputs.held_out])
        return _spread(positions, rows, np.concatenate([outputs.apart_logits, outputs.logits]))
    if not _is_quick(len(positions), catalog):
        return None
    job.progress.phase("Learning by folds")
    labels, folds = catalog.labels(positions), audit_folds(catalog, positions, found, run.run.recipe.seed)
    return logits_apart(features, labels, len(catalog.classes), folds)


def _is_quick(n: int, catalog: Catalog) -> bool:
    """Whether heads on so many photos are solved within a minute or so, several of them."""
    return n * catalog.n_outputs <= MOST_CELLS


def _with_growth(
    job: Job, run: Finished, verdict: Verdict, positions: Sequence[int], features: NDArray[np.float32]
) -> Verdict:
    catalog: Catalog = job.catalog
    place = {position: i for i, position in enumerate(positions)}
    train, held_out = (
        np.array([place[row] for row in rows.tolist() if row in place], np.int64)
        for rows in (run.outputs.train, run.outputs.held_out)
    )
    labels = catalog.labels(positions)
    if not len(held_out) or len(np.unique(labels[train])) < len(catalog.classes):
        return verdict
    head, device = read_head(run.bundle.folder), job.own_device(run.run.recipe.device)
    is_long = device == "cpu" and multiplied(len(train), head, run.run.recipe) > MOST_MULTIPLIED
    if is_long or not _is_quick(len(train), catalog):
        job.progress.note("What more photos would bring is not told: heads for that would learn for minutes.")
        return verdict
    job.progress.phase("Learning from fewer photos", len(FRACTIONS), "parts")
    found: tuple[Any, Any] = grown(
        features[train],
        labels[train],
        features[held_out],
        labels[held_out],
        len(catalog.classes),
        run.run.recipe,
        head,
        run.run.penalty,
        job.progress,
        device,
    )
    return replace(verdict, growth=growth(*found))
