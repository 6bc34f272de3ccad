"""The steps of a range test (see `lr_range.py`), taken by a copy of the model: the training knows nothing of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Generator

import torch

from rehead.tuning.feed import Pair
from rehead.tuning.lr_range import RangeTest, range_test
from rehead.tuning.modes import set_modes
from rehead.tuning.step import Stepper
from rehead.tuning.train import Job, class_weights, dice, layout_for, learning_names, order_of


def find_rate(job: Job, advance: Callable[[int], None]) -> RangeTest:
    """The loss at rising learning rates and the rate to train with. The job's model, norms and all dice stay as they were.

    advance: told how many batches are done. It ends early where the loss diverges.
    """
    course, device = job.course, torch.device(job.device)
    names = learning_names(job)
    model = copy.deepcopy(job.model).to(device, memory_format=layout_for(device))
    own, twins = dict(job.model.named_parameters()), dict(model.named_parameters())
    twin_of = {id(own[name]): twins[name] for name in names}
    groups = [[twin_of[id(p)] for p in group] for group in job.groups]
    set_modes(model, names, course.norm)
    stepper = Stepper(model, groups, course, class_weights(job, device), device, job.note, job.task)
    batches = _endless(job)

    def try_rate(number: int, rate: float) -> float:
        x, y = next(batches)
        with dice(course.seed, device, "range", number):
            loss = stepper.backward(x.to(device), y.to(device), len(x) / course.batch_size)
        stepper.step(rate)
        return loss

    try:
        return range_test(try_rate, advance)
    finally:
        batches.close()


def _endless(job: Job) -> Generator[Pair, None, None]:
    """Batches of the job's epochs, one after the other, without those that are not full where any is."""
    least = min(job.course.batch_size, len(job.learn))
    for epoch in itertools.count():
        for x, y in job.feed.batches(order_of(job, epoch), epoch, job.course.batch_size, 0):
            if len(x) >= least:
                yield x, y
