"""A training of layers under way: at which rates, from which checkpoint on, and what its run keeps of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rehead.errors import Diverged, command, counted
from rehead.features.store import MEMORY_LIMIT_BYTES
from rehead.ground import Ground, parameters_that_learn
from rehead.progress import Progress
from rehead.runs.folder import RunFolder
from rehead.runs.record import Record
from rehead.tuning.course import Course
from rehead.tuning.lr_range import N_BATCHES, range_lines
from rehead.tuning.recipe import AUTO, LR, Recipe

if TYPE_CHECKING:
    from rehead.tuning.feed import Feed
    from rehead.tuning.lora import Adapters
    from rehead.tuning.state import State
    from rehead.tuning.train import Training

MANY_STEPS = 50  # of all layers, from which on they may take the highest rate
MOST_SENT_BYTES = MEMORY_LIMIT_BYTES // 2  # of activations, to each node: as of features, in half precision


@contextmanager
def record_of(ground: Ground, run: RunFolder, track: Sequence[str] = ()) -> Iterator[Record]:
    """What a training leaves in its run; ended however it ends."""
    from rehead.tuning.losses import UNITS

    job = ground.job
    record = Record(run, job.progress, len(ground.learn), track, UNITS[job.catalog.task], job.clock)
    try:
        yield record
    finally:
        record.end()


def trained(
    model: Any, ground: Ground, adapters: Adapters | None, recipe: Recipe, run: RunFolder, record: Record
) -> State:
    """Trains the model in place, from the run's checkpoint on where there is one."""
    from rehead.tuning.train import Training, train_layers

    state, progress = record.checkpoint(), ground.job.progress
    layers = adapters.groups if adapters else parameters_that_learn(ground, recipe)
    training = Training(
        model=model,
        groups=[*layers, list(model[1].parameters())],
        feed=ground.feed,
        course=recipe.course,
        learn=ground.learn,
        watch=ground.watch,
        n_classes=ground.job.catalog.n_outputs,
        task=ground.job.catalog.task,
        device=ground.device,
        report=record.report,
        save=record.save,
        due=record.due,
        progress=record.advance,
        note=progress.note,
        stop=ground.job.ends,
        norms=ground.backbone.chain.normed(),
    )
    if recipe.lr == AUTO:
        training = replace(training, course=replace(training.course, lr=_found_rate(training, record, progress)))
    if recipe.first is not None or (recipe.train == "all" and recipe.lr is None and recipe.warm_head):
        highest = LR if recipe.first is None else training.course.lr
        training = replace(training, course=_gentle(training.course, highest, len(training.learn), progress))
    course, machines = training.course, ground.job.machines

    def begin(state: State | None) -> None:
        n_done = state.epoch * len(ground.learn) + state.step * course.batch_size if state else 0
        progress.phase("Training", course.epochs * len(ground.learn) - n_done)
        record.begin(course, state.history if state else [])

    try:
        if machines is not None and course.norm == "frozen" and _goes_there(ground.feed, progress):
            progress.phase("Waiting for the cluster to begin")
            return machines.train(training, state, ground.feeds, begin, recipe.device)
        begin(state)
        return train_layers(training, state)
    except Diverged as error:
        again = command("tune", "--resume", run.path, "--lr", f"{course.lr / 10:g}", "--force")
        fix = f"Go on from the last good checkpoint at a lower rate: {again}"
        raise Diverged(error.what, error.lr, fix) from None


def _goes_there(feed: Feed, progress: Progress) -> bool:
    """Whether what is learned from fits into the memory of each machine that is to learn."""
    from rehead.tuning.feed import StoredFeed

    if isinstance(feed, StoredFeed) and feed.n_bytes > MOST_SENT_BYTES:
        progress.note(
            f"Layers learn here: activations of {feed.n_bytes / 2**30:.1f} GB are too many for the memory of each node."
        )
        return False
    return True


def _gentle(course: Course, highest: float, n_learn: int, progress: Progress) -> Course:
    """The course of all layers behind a head that knows its classes. In a few steps Adam moves every weight by about the rate,
    whatever its gradient, which of all layers together wrecked what was there: 24 photos, three steps, from 94 to 50 % right
    behind a first phase; 218 photos, 21 steps at LR, from 95 to 88 % behind a solved head.
    highest: the rate that MANY_STEPS may have."""
    n_steps = course.epochs * math.ceil(n_learn / course.batch_size / course.accumulate)
    lr = min(course.lr, highest * n_steps / MANY_STEPS)
    if lr == course.lr:
        return course
    few = "is" if n_steps == 1 else "are"
    progress.note(
        f"{counted(n_steps, 'step')} {few} few for all layers: the highest rate is {lr:.1e}, not {course.lr:.1e}."
    )
    return replace(course, lr=lr)


def _found_rate(training: Training, record: Record, progress: Progress) -> float:
    """The rate that a range test finds, or that it found when the run began."""
    from rehead.tuning.range_test import find_rate

    test = record.range_test()
    if test is None:
        progress.phase("Range test", N_BATCHES, unit="batches")
        test = find_rate(training, progress.advance)
        record.keep_range(test)
    for line in range_lines(test):
        progress.note(line)
    return test.lr
