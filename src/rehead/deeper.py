"""Layers below the head learn too: what is frozen is computed once and kept, what learns is trained from the store.

In this order: which layers learn and where the network is cut; the activations there, for each view of a photo; a head
solved on the frozen features, so that the layers below are not wrecked by a random one; the training, which goes on from
its last checkpoint; the tuned network as a graph. Where a recipe has a first phase, the last layers learn in the same way
before all of them do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rehead.activations import Extracted, at_the_cut, slices
from rehead.auditing.ties import tied
from rehead.bundle import Familiar, Head
from rehead.cutting import photo_card, planned_network
from rehead.data.rows import Skip
from rehead.divided import job_order
from rehead.errors import Diverged, counted
from rehead.exporting.graph import export_prefix
from rehead.features.engines import CPU_BATCH
from rehead.fitting import chosen_prefix, with_decided_fit
from rehead.ground import (
    Ground,
    first_head_on,
    ground_of,
    network_of,
    with_adapters,
    with_head_on,
)
from rehead.heap import hand_back
from rehead.job import Job
from rehead.nets.card import Card
from rehead.parallel import batched, n_cores, ordered_map
from rehead.phase import record_of, trained
from rehead.runners import open_session
from rehead.runs.contents import BODY, CHECKPOINT
from rehead.runs.folder import RunFolder
from rehead.runs.footing import Footing, read_footing, write_footing
from rehead.runs.record import CURVES, METRICS
from rehead.runs.resume import held_out_too
from rehead.solution import Solution
from rehead.tuning.familiar import bank_rows, far, fit_familiar
from rehead.tuning.labels import chosen_thresholds
from rehead.tuning.layers import POOL, adapters_in
from rehead.tuning.plan import Plan
from rehead.tuning.recipe import Recipe

# A first phase's folder in the run while that is written, and in it how its head came to be.
FIRST, NOTE = "first", "note.txt"

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone
    from rehead.tuning.state import State


def tune_layers(job: Job, recipe: Recipe, run: RunFolder, track: Sequence[str] = ()) -> Solution:
    """The recipe's layers and the head, trained; Ctrl-C during extraction goes on with the photos that are there.

    track: names of trackers that follow the training.
    """
    moved = frozenset[bytes]()
    if recipe.tie_copies:
        drawn, job = job.catalog.is_on("train"), tied(job, job_order(job.catalog, recipe))
        moved = frozenset(job.catalog.digests(np.flatnonzero(job.catalog.is_on("train") & ~drawn).tolist()))
        job.clock.lap("scan")
    recipe = with_decided_fit(job, recipe)
    first_phase, has_begun = recipe.first_phase, (run.path / CHECKPOINT).is_file()
    if not has_begun:
        chosen_prefix(job, replace(recipe, cut=None))  # one that cannot be exported is told before anything is learned
    job.progress.phase(f"Loading {recipe.backbone}")
    backbone = network_of(recipe)
    job.clock.lap("prepare")
    footing = None
    if first_phase is not None and not has_begun:
        first, note, job, footing = _first_phase(job, first_phase, backbone, run, moved)
        job.progress.note("Second phase: all layers learn from the photos")
    ground, extracted = _ground(job, recipe, backbone, run, moved, footing)
    if first_phase is None:
        ground = replace(ground, job=job.served())
        job.progress.phase("Solving the head")
        first, note = first_head_on(ground, recipe)
    elif has_begun:  # all that was learned before is in the checkpoint
        first, _ = first_head_on(ground, replace(recipe, warm_head=False))
        note = (run.within(FIRST).path / NOTE).read_text(encoding="utf-8")
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
        return _solution(model, ground, extracted, first, note, run, known, lr=state.history[-1]["lr"])


def _ground(
    job: Job,
    recipe: Recipe,
    backbone: Backbone,
    run: RunFolder,
    moved: frozenset[bytes],
    footing: Footing | None = None,
) -> tuple[Ground, Extracted]:
    """What a training stands on, and the photos behind it. moved: digests of those that near copies took to the training side.
    footing: that of a first phase; of a training that has begun, its own stands in the run."""
    catalog, has_begun = job.catalog, (run.path / CHECKPOINT).is_file()
    if has_begun:
        footing = read_footing(run.path)
        if n := len(footing.tied.intersection(catalog.digests(catalog.on(catalog.held_out_side)))):
            raise held_out_too(run.path, n)
        if moved - footing.tied:
            write_footing(run, replace(footing, tied=footing.tied | moved))
    order = job_order(catalog, recipe)
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
        write_footing(run, begun)
    card = extracted.card or photo_card(backbone.cut_at(POOL)[1], recipe)
    return ground_of(job, recipe, backbone, plan, extracted, card, learn, watch), extracted


def _first_phase(
    job: Job, recipe: Recipe, backbone: Backbone, run: RunFolder, moved: frozenset[bytes]
) -> tuple[Head, str, Job, Footing]:
    """The last layers of the network learn, in place. The head that came of it, a few words on how, what is left of the job,
    as a wish to stop that came while they learned is of the second phase too, and the photos that are so too."""
    from rehead.nets.heads import head_from_module

    job.progress.note("First phase: what is learned from kept activations, before all layers learn")
    part = run.within(FIRST)
    ground, _ = _ground(job, recipe, backbone, part, moved)
    ground = replace(ground, job=job.served())
    job.progress.phase("Solving the head")
    first, note = first_head_on(ground, recipe)
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
    part.write(NOTE, note)
    footing = replace(read_footing(part.path), cut=None, views=())
    return head_from_module(model[1], first.kind, first.activation), note, ground.job, footing


def _solution(
    model: Any,
    ground: Ground,
    extracted: Extracted,
    first: Head,
    note: str,
    run: RunFolder,
    known: NDArray[np.int64],
    *,
    lr: float,
) -> Solution:
    """What came out, its graph written to the run. known: places of photos that tell what is familiar. lr: the last rate.
    Raises Diverged when it is no numbers."""
    from rehead.nets.cut import Pooled
    from rehead.nets.heads import head_from_module

    n_train, network, card = len(extracted.train), ground.backbone.network, ground.card
    export_prefix(Pooled(network).eval(), card.preprocess, run.path / BODY)
    hand_back()
    features_of = partial(_features, model[0], ground.feed, run.path / BODY)
    shown = features_of(np.arange(n_train, n_train + len(extracted.held_out)))
    head = head_from_module(model[1], first.kind, first.activation)
    apart, familiar = _apart(features_of, ground, known, head)
    if ground.scale:
        head = ground.scale.on(head)
    logits = head.logits(shown)
    if not np.isfinite(logits).all():
        raise Diverged("What the network gives for held-out photos is no numbers.", lr)
    return Solution(
        catalog=ground.job.catalog,
        head=head,
        thresholds=_thresholds(ground, model),
        note=note,
        train=extracted.train,
        held_out=extracted.held_out,
        logits=logits,
        body=run.path / BODY,
        features=lambda pixels: _by_network(network, card, pixels),
        card=card,
        bad=extracted.bad,
        n_stored=extracted.n_stored,
        learned=ground.plan.learning,
        n_watched=len(ground.watch),
        apart=apart,
        familiar=familiar,
        bank=() if familiar is None else tuple(ground.train[int(place)] for place in known),
        distances=None if familiar is None else far(shown, familiar.bank, familiar.k),
    )


def _features(body: Any, feed: Any, graph: Path, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, width) of photos of the feed as they are: by the tuned layers from what is stored of them, or, where the photos
    themselves are what goes in, by the whole network's graph: ONNX Runtime takes a fifth of PyTorch's time."""
    from rehead.tuning.feed import PhotoFeed
    from rehead.tuning.watching import logits_of

    if not isinstance(feed, PhotoFeed):
        return logits_of(body, feed, positions, "cpu")
    session = open_session(graph)

    def run(batch: list[int]) -> NDArray[np.float32]:
        return np.asarray(session.run(["features"], {"pixels": feed.shown(batch)})[0])

    workers = n_cores()
    batches = batched(positions.tolist(), CPU_BATCH)
    return np.concatenate(list(ordered_map(run, batches, workers=workers, ahead=2 * workers)))


def _apart(
    features_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    ground: Ground,
    known: NDArray[np.int64],
    head: Head,
) -> tuple[tuple[list[int], NDArray[np.float32]] | None, Familiar | None]:
    """What the watched photos of the training side are given, from which nothing was learned, and what is familiar."""
    features = features_of(known)
    if not len(ground.watch):
        return None, fit_familiar(features)
    watched = features_of(ground.watch)
    apart = None
    if ground.job.catalog.task == "classification":
        apart = [ground.train[place] for place in ground.watch], head.logits(watched)
    return apart, fit_familiar(features, watched)


def _thresholds(ground: Ground, model: Any) -> tuple[float, ...]:
    """Of several labels a photo: chosen on the watched photos of the training side, from which the layers did not learn."""
    from rehead.tuning.watching import logits_of

    catalog = ground.job.catalog
    if catalog.task != "multilabel":
        return ()
    none = np.empty((0, catalog.n_outputs), np.float32)
    outputs = logits_of(model, ground.feed, ground.watch, "cpu") if len(ground.watch) else none
    return chosen_thresholds(outputs, ground.feed.labels[ground.watch])


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


def _by_network(network: Any, card: Card, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch

    from rehead.nets.cut import Pooled

    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) * 255 for v in (card.preprocess.mean, card.preprocess.std))
    with torch.inference_mode():
        rows = [
            Pooled(network).eval()((torch.from_numpy(part).permute(0, 3, 1, 2).float() - mean) / std).numpy()
            for part in np.array_split(pixels, len(pixels))  # one by one: they are few, and many would take 40 MB
        ]
    return np.concatenate(rows)
