"""The steps of a range test (see `lr_range.py`), taken by a copy of the model: the training knows nothing of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Generator

import torch

from rehead.ambient import dice
from rehead.data.split import seed_for
from rehead.heap import kept
from rehead.tuning.feed import Pair
from rehead.tuning.lr_range import RangeTest, range_test
from rehead.tuning.modes import set_modes
from rehead.tuning.step import Stepper
from rehead.tuning.train import Training, at_once, layout_for, learning_names, order_of
from rehead.tuning.watching import class_weights


def find_rate(training: Training, advance: Callable[[int], None]) -> RangeTest:
    """The loss at rising learning rates and the rate to train with. The training's model, norms and all dice stay as they were.

    Where the test says nothing, the rate is the course's own. advance: told how many batches are done. It ends early where the
    loss diverges.
    """
    course, device = training.course, torch.device(training.device)
    names = learning_names(training)
    model = copy.deepcopy(training.model).to(device, memory_format=layout_for(device, training.model))
    own, twins = dict(training.model.named_parameters()), dict(model.named_parameters())
    twin_of = {id(own[name]): twins[name] for name in names}
    groups = [[twin_of[id(p)] for p in group] for group in training.groups]
    set_modes(model, names, course.norm)
    weights, most = class_weights(training, device), at_once(training)
    stepper = Stepper(
        model, groups, course, weights, device, training.note, training.task, most, dtype=training.dtype,
    )  # fmt: skip
    batches = _endless(training)

    def try_rate(number: int, rate: float) -> float:
        x, y = next(batches)
        with dice(seed_for(course.seed, "range", number), device):
            loss = float(stepper.backward(x.to(device), y.to(device), len(x) / course.batch_size))
        stepper.step(rate)
        return loss

    try:
        with kept(training.device):
            return range_test(try_rate, advance, course.lr)
    finally:
        batches.close()


def _endless(training: Training) -> Generator[Pair, None, None]:
    """Batches of the training's epochs, one after the other, without those that are not full where any is."""
    least = min(training.course.batch_size, len(training.learn))
    for epoch in itertools.count():
        for x, y in training.feed.batches(order_of(training, epoch), epoch, training.course.batch_size, 0):
            if len(x) >= least:
                yield x, y
