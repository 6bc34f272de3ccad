"""Layers below the head learn too: what is frozen is computed once and kept, what learns is trained from the store.

In this order: which layers learn and where the network is cut; the activations there, for each view of a photo; a head
solved on the frozen features, so that the layers below are not wrecked by a random one; the training, which goes on from
its last checkpoint; the tuned network as a graph. Where a recipe has a first phase, the last layers learn in the same way
before all of them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rehead.activations import Extracted, at_the_cut, slices
from rehead.auditing.ties import tied, tied_for_fit
from rehead.bundle import Head
from rehead.cutting import photo_card, planned_network
from rehead.data.rows import Skip
from rehead.divided import job_order
from rehead.errors import Diverged, counted
from rehead.fitting import chosen_prefix, with_decided_fit
from rehead.ground import (
    Ground,
    adapt,
    first_head_on,
    frozen_features,
    ground_of,
    network_of,
    outputs_alone,
    with_adapters,
    with_head_on,
)
from rehead.heap import hand_back
from rehead.job import Job
from rehead.outcome import solution_of
from rehead.phase import record_of, trained
from rehead.runs.contents import CHECKPOINT
from rehead.runs.folder import RunFolder
from rehead.runs.footing import Footing, read_footing, write_footing
from rehead.runs.record import CURVES, METRICS
from rehead.runs.resume import held_out_too
from rehead.solution import Solution
from rehead.tuning.familiar import bank_rows
from rehead.tuning.layers import POOL, adapters_in
from rehead.tuning.plan import Plan
from rehead.tuning.recipe import Recipe
from rehead.verdict.judging import first_number

FIRST = "first"  # a first phase's folder in the run while that is written

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone
    from rehead.tuning.state import State


def tune_layers(job: Job, recipe: Recipe, run: RunFolder, track: Sequence[str] = ()) -> Solution:
    """The recipe's layers and the head, trained; Ctrl-C during extraction goes on with the photos that are there.

    track: names of trackers that follow the training.
    """
    moved, order = frozenset[bytes](), job_order(job.catalog, recipe)
    recipe = with_decided_fit(tied_for_fit(job, recipe), recipe)
    if recipe.tie_copies:
        drawn, job = job.catalog.is_on("train"), tied(job, order)
        moved = frozenset(job.catalog.digests(np.flatnonzero(job.catalog.is_on("train") & ~drawn).tolist()))
        job.clock.lap("scan")
    first_phase, has_begun = recipe.first_phase, (run.path / CHECKPOINT).is_file()
    if not has_begun:
        chosen_prefix(job, replace(recipe, cut=None))  # one that cannot be exported is told before anything is learned
    job.progress.phase(f"Loading {recipe.backbone}")
    backbone = network_of(recipe)
    job.clock.lap("prepare")
    footing = None
    if first_phase is not None and not has_begun:
        first, note, job, footing = _first_phase(job, first_phase, backbone, run, order, moved)
        job.progress.note("Second phase: all layers learn from the photos")
    ground, extracted = _ground(job, recipe, backbone, run, order, moved, footing)
    if first_phase is None:
        ground = replace(ground, job=job.served())
        first, note = _begun_with(ground, recipe, run)
    elif has_begun:  # all that was learned before is in the checkpoint
        first, _ = first_head_on(ground, recipe, None)
        note = read_footing(run.path).head
    model = with_head_on(ground.body, first)
    adapters = with_adapters(ground, recipe)
    job.clock.lap("solve")

    hand_back()
    with record_of(ground, run, track) as record:
        state = trained(model, ground, adapters, recipe, run, record)
        if adapters:
            adapters.merge()
        job.clock.lap("train")
        hand_back()
        note = _told(note, ground.plan, state, recipe, len(ground.watch))
        known = ground.learn[bank_rows(len(ground.learn), seed=recipe.seed)]
        return solution_of(model, ground, extracted, first, note, run, known, lr=state.history[-1]["lr"])


def _ground(
    job: Job,
    recipe: Recipe,
    backbone: Backbone,
    run: RunFolder,
    order: Sequence[int],
    moved: frozenset[bytes],
    footing: Footing | None = None,
) -> tuple[Ground, Extracted]:
    """What a training stands on, and the photos behind it. order: those of the job, of which near copies were looked for.
    moved: digests of those that near copies took to the training side. footing: that of a first phase; of a training that has
    begun, its own stands in the run."""
    catalog, has_begun = job.catalog, (run.path / CHECKPOINT).is_file()
    if has_begun:
        footing = read_footing(run.path)
        if n := len(footing.tied.intersection(catalog.digests(catalog.on(catalog.held_out_side)))):
            raise held_out_too(run.path, n)
        if moved - footing.tied:
            write_footing(run, replace(footing, tied=footing.tied | moved))
    wanted, bad = (order, dict[int, Skip]()) if footing is None else footing.photos(catalog, order)
    plan = planned_network(job, recipe, backbone, wanted, footing)
    extracted = at_the_cut(job, recipe, plan, wanted, bad, footing)
    job.clock.lap("extract")
    train, held_out = extracted.train, extracted.held_out
    learn, watch = slices(catalog, train, recipe) if footing is None else footing.slices(catalog, train)
    if footing is not None and footing.watched and not len(watch):
        job.progress.note(
            "No photo that was watched is there any more: nothing says which epoch is best; the last is kept"
        )
    if not has_begun:
        watched = [train[place] for place in watch.tolist()]
        learned = moved if footing is None else moved | footing.tied
        begun = Footing.of(
            plan.cut, extracted.names, catalog, order, [*train, *held_out], extracted.bad, watched, learned
        )
        write_footing(run, begun if footing is None else replace(begun, alone=footing.alone, head=footing.head))
    card = extracted.card or photo_card(backbone.cut_at(POOL)[1], recipe)
    return ground_of(job, recipe, backbone, plan, extracted, card, learn, watch), extracted


def _first_phase(
    job: Job, recipe: Recipe, backbone: Backbone, run: RunFolder, order: Sequence[int], moved: frozenset[bytes]
) -> tuple[Head, str, Job, Footing]:
    """The last layers of the network learn, in place. The head that came of it, a few words on how, what is left of the job,
    as a wish to stop that came while they learned is of the second phase too, and the photos that are so too."""
    from rehead.nets.heads import head_from_module

    job.progress.note("First phase: what is learned from kept activations, before all layers learn")
    part = run.within(FIRST)
    ground, _ = _ground(job, recipe, backbone, part, order, moved)
    ground = replace(ground, job=job.served())
    first, note = _begun_with(ground, recipe, part)
    model = with_head_on(ground.body, first)
    job.clock.lap("solve")
    try:
        with record_of(ground, part) as record:
            state = trained(model, ground, None, recipe, part, record)
    except Diverged as error:
        fix = (
            "The first phase takes the rate of `balanced`: train all layers without it, by --train all and no --first."
        )
        raise Diverged(error.what, error.lr, fix) from None
    job.clock.lap("train")
    for name in (METRICS, CURVES):
        run.write(f"{FIRST}-{name}", (part.path / name).read_text(encoding="utf-8"))
    note = _told(note, ground.plan, state, recipe, len(ground.watch))
    footing = replace(read_footing(part.path), cut=None, views=(), head=note)
    return head_from_module(model[1], first.kind, first.activation), note, ground.job, footing


def _begun_with(ground: Ground, recipe: Recipe, run: RunFolder) -> tuple[Head, str]:
    """The head to begin with, and a few words on it. Before layers learn, a head alone is verified too: that is told, and what
    it says is kept beside what the training stands on, for the verdict."""
    progress = ground.job.progress
    progress.phase("Solving the head")
    if not recipe.warm_head:
        return first_head_on(ground, recipe, None)
    if (run.path / CHECKPOINT).is_file():  # which has the head that was solved then
        if recipe.norm == "adapt":
            adapt(ground, recipe)
        return first_head_on(ground, recipe, None)[0], read_footing(run.path).head
    seen, catalog, held_out = frozen_features(ground, recipe), ground.job.catalog, ground.held_out
    outputs = outputs_alone(ground, recipe, seen)
    if line := first_number(catalog.task, outputs, catalog.labels(held_out)):
        progress.note(f"A linear head alone: {line}")
    said = outputs.argmax(axis=1)[:, None] if catalog.task == "classification" else outputs
    alone = dict(zip(catalog.digests(held_out), said.tolist(), strict=True))
    head, note = first_head_on(ground, recipe, seen)
    write_footing(run, replace(read_footing(run.path), alone=alone, head=note))
    return head, note


def _told(first: str, plan: Plan, state: State, recipe: Recipe, n_watched: int) -> str:
    """A few words on how the head came to be."""
    which = f"epoch {state.best_epoch} of {state.epoch}" if state.best_epoch else "what was there before"
    kept = f", {which} kept by {n_watched} photos of the training side" if n_watched > 1 else ""
    asked, n_epochs = adapters_in(recipe.train), recipe.course.epochs
    adapters = f"adapters of rank {asked[0]} in " if asked else ""
    layers = adapters + ("all layers" if recipe.train == "all" else ", ".join(plan.learning))
    time = counted(n_epochs, "epoch") if state.epoch == n_epochs else f"{state.epoch} of {counted(n_epochs, 'epoch')}"
    if part := state.history[-1].get("part"):
        time += f", {part:.0%} of the last"
    return f"{first}; then trained with {layers} for {time} by {recipe.optimizer}{kept}"
