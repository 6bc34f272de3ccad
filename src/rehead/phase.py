"""A training of layers under way: at which rates, from which checkpoint on, and what its run keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rehead.errors import Diverged, counted
from rehead.ground import Ground
from rehead.progress import Progress
from rehead.record import Record
from rehead.run_folder import RunFolder
from rehead.tuning.course import Course
from rehead.tuning.lr_range import N_BATCHES, range_lines
from rehead.tuning.recipe import AUTO, Recipe

if TYPE_CHECKING:
    from rehead.tuning.lora import Adapters
    from rehead.tuning.state import State
    from rehead.tuning.train import Job

MANY_STEPS = 50  # of all layers, from which on they take the rate that was asked for


def record_of(ground: Ground, run: RunFolder, progress: Progress, track: Sequence[str]) -> Record:
    from rehead.tuning.losses import UNITS

    return Record(run, progress, len(ground.learn), track, UNITS[ground.catalog.task])


def trained(
    model: Any,
    ground: Ground,
    adapters: Adapters | None,
    recipe: Recipe,
    progress: Progress,
    stop: Callable[[], bool],
    run: RunFolder,
    record: Record,
) -> State:
    """Trains the model in place, from the run's checkpoint on where there is one."""
    from rehead.tuning.train import Job, train_layers

    state = record.checkpoint()
    learning = ground.plan.learning
    layers = adapters.groups if adapters else [list(ground.backbone[name].parameters()) for name in learning]
    job = Job(
        model=model,
        groups=[*layers, list(model[1].parameters())],
        feed=ground.feed,
        course=recipe.course,
        learn=ground.learn,
        watch=ground.watch,
        n_classes=ground.catalog.n_outputs,
        task=ground.catalog.task,
        device=ground.device,
        report=record.report,
        save=record.save,
        due=record.due,
        progress=record.advance,
        note=progress.note,
        stop=stop,
    )
    if recipe.first is not None:
        job = replace(job, course=_gentle(job.course, len(job.learn), progress))
    if recipe.lr == AUTO:
        job = replace(job, course=replace(job.course, lr=_found_rate(job, record, progress)))
    n_done = state.epoch * len(ground.learn) + state.step * job.course.batch_size if state else 0
    progress.phase("Training", job.course.epochs * len(ground.learn) - n_done)
    record.begin(job.course, state.history if state else [])
    try:
        return train_layers(job, state)
    except Diverged as error:
        again = f"rehead tune --resume {run.path} --lr {job.course.lr / 10:g} --force"
        fix = f"Go on from the last good checkpoint at a lower rate: {again}"
        raise Diverged(error.what, error.lr, fix) from None
    finally:
        record.end()


def _gentle(course: Course, n_learn: int, progress: Progress) -> Course:
    """The course of a second phase. In a few steps Adam moves every weight by about the rate, whatever its gradient, which of
    all layers together wrecked what the first phase had learned: 24 photos, three steps, from 94 to 50 % right."""
    n_steps = course.epochs * math.ceil(n_learn / course.batch_size / course.accumulate)
    if n_steps >= MANY_STEPS:
        return course
    lr = course.lr * n_steps / MANY_STEPS
    progress.note(
        f"{counted(n_steps, 'step')} are few for all layers: the highest rate is {lr:.1e}, not {course.lr:.1e}."
    )
    return replace(course, lr=lr)


def _found_rate(job: Job, record: Record, progress: Progress) -> float:
    """The rate that a range test finds, or that it found when the run began."""
    from rehead.tuning.range_test import find_rate

    test = record.range_test()
    if test is None:
        progress.phase("Range test", N_BATCHES, unit="batches")
        test = find_rate(job, progress.advance)
        record.keep_range(test)
    for line in range_lines(test):
        progress.note(line)
    return test.lr
