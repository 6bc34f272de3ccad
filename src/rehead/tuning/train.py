"""Layers trained by gradient steps, top to bottom: batches in, the best weights by photos that are watched out.

What learns is decided by names (`modes.py`), how fast by the step (`course.py`), from what by a feed (`feed.py`), a step
is `step.py`'s, and what is kept of it `state.py`'s. All dice are thrown from the seed, the epoch and the step alone, so
that a job that goes on from a checkpoint ends, on CPU, with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rehead.ambient import dice
from rehead.bundle_facts import Task
from rehead.data.split import seed_for
from rehead.errors import Defect, RunError, counted
from rehead.features.torch_engine import by_pixel
from rehead.heap import kept
from rehead.nets.graph import Normed
from rehead.tuning.checks import check_loss, sound
from rehead.tuning.course import Course, lr_at
from rehead.tuning.feed import Feed, PhotoFeed, StoredFeed, ahead
from rehead.tuning.folding import Folding
from rehead.tuning.modes import set_modes
from rehead.tuning.state import WATCHED, Average, State, keep, keep_best, load_best, restore
from rehead.tuning.step import Stepper, precision
from rehead.tuning.together import Alone, Shared, Together
from rehead.tuning.watching import class_weights, is_worse, judged, watched

Told: TypeAlias = bool | torch.Tensor
READ_LATER = {"cuda": 2}  # steps after which a loss is read: reading it waits until the device has done all before
# Photos that go at once on a CPU: through a whole network, where 32 take twice the memory of 8 and a tenth less time; and
# through layers behind a cut, where 8 take 25 MB less and a third more time. Dense layers alone take all.
MOST_ON_CPU: dict[type, int] = {PhotoFeed: 8, StoredFeed: 32}
UNDOING = 2  # standard errors: what was asked to learn is undone where it is clearly worse


@dataclass(frozen=True)
class Training:
    """What does not change while layers are trained. groups: the parameters that learn, layer by layer, the head last.

    watch: positions in the feed that decide which epoch is kept; none: the last. report: told each epoch's facts. save:
    told the state whenever `due` says so, and at the end of each epoch. progress: told how many photos are done, and how
    it stands. note: told what happened on the way. stop: asked after each batch; once true the epoch ends there and is
    the last. task: what the feed's labels are; numbers are standardised. norms: behind which convolution each stands, see
    `folding.py`. together: the processes that train, which all have the same of everything else; what one of them is told,
    and says of stopping and saving, holds for all.
    """

    model: nn.Module
    groups: Sequence[Sequence[nn.Parameter]]
    feed: Feed
    course: Course
    learn: NDArray[np.int64]
    watch: NDArray[np.int64]
    n_classes: int
    device: str
    report: Callable[[dict[str, Any]], None]
    save: Callable[[State], None]
    due: Callable[[], bool]
    progress: Callable[[int, str], None]
    note: Callable[[str], None]
    stop: Callable[[], bool] = lambda: False
    task: Task = "classification"
    norms: Sequence[Normed] = ()
    together: Together = field(default_factory=Alone)

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in while it learns and is watched."""
        is_of_layers = isinstance(self.feed, tuple(MOST_ON_CPU)) and not self.course.compile
        return precision(torch.device(self.device), self.together.n, is_of_layers=is_of_layers)


def train_layers(training: Training, start: State | None = None) -> State:
    """Trains the model in place and leaves it in eval mode on the CPU with the best weights, or the last without a watch.

    The best are those of the last epoch, as the rate has fallen then, unless the least loss of the watched photos is less by
    more than the course's tolerance: then, and where training ends before its last epoch, those of the epoch of least loss.
    Where every epoch is worse than what was there before, the best weights are those from before, unless those were random.

    Raises Diverged when the loss is not a number; the checkpoint of the last good step stays; the first is written
    before any step. Raises Defect when other parameters changed than those that were to learn, RunError when the checkpoint
    to go on from is of other parameters.
    """
    with kept(training.device):
        return _trained(training, start)


def _trained(training: Training, start: State | None) -> State:
    course, device = training.course, torch.device(training.device)
    names = learning_names(training)
    state = start or State(learning=sorted(names))
    state.has_ended = has_settled(state, course)  # one that was told to end, and is taken up, goes on
    if state.learning != sorted(names):
        raise RunError(
            what="The checkpoint is of a job in which other layers learned.", fix="Start again without --resume."
        )
    training.model.to(device, memory_format=layout_for(device, training.model))
    set_modes(training.model, names, course.norm)
    stepper = Stepper(
        training.model, training.groups, course, class_weights(training, device), device, training.note, training.task,
        at_once(training), n_of_epoch(training) // course.batch_size * course.epochs, training.together, dtype=training.dtype,
    )  # fmt: skip
    average = Average(training.model, names, course.average)
    restore(training.model, stepper, average, state)
    folding = Folding(training.model, training.norms if course.norm == "frozen" and not course.compile else ())
    if start is None:
        if (
            len(training.watch) > 1 and not course.from_random
        ):  # what was there before may be what is kept, or a bad rate would ship worse
            state.tensors[WATCHED] = judged(training)[0]
            keep_best(training.model, names, state)
        training.save(keep(training.model, names, stepper, average, state))
    for epoch in range(state.epoch, course.epochs):
        if state.has_ended:
            why = ": the loss of watched photos no longer fell" if has_settled(state, course) else ""
            training.note(f"The training ended after epoch {epoch} of {course.epochs}{why}.")
            break
        begun, n_before = time.monotonic(), state.n_seen
        set_modes(training.model, names, course.norm)
        with torch.no_grad():
            training.together.same([p for name, p in training.model.named_parameters() if name in names])
        with folding.used():
            lr, stopped = _epoch(training, names, stepper, average, state, epoch)
        stepper.make_room()
        with average.used():
            facts, faults, losses = watched(training, state, lr, time.monotonic() - begun, n_before, epoch)
            if (part := state.step / math.ceil(n_of_epoch(training) / course.batch_size)) < 1:
                facts["part"] = round(part, 3)
            least = state.tensors.get(WATCHED)
            within = course.tolerance if epoch + 1 == course.epochs and not stopped else 0
            if not (is_worse(losses, least, within) if state.best_epoch else is_worse(faults, least, UNDOING)):
                if not (state.best_epoch and is_worse(losses, least, 0)):
                    state.least_epoch, state.tensors[WATCHED] = epoch + 1, losses
                state.best_epoch = epoch + 1
                keep_best(training.model, names, state)
        state.history.append(facts)
        state.epoch, state.step, state.loss_sum, state.n_seen = epoch + 1, 0, 0.0, 0
        state.has_ended = training.together.first_says(stopped or has_settled(state, course))
        training.report(facts)
        training.save(sound(keep(training.model, names, stepper, average, state), lr))
    end(training.model, state)
    return state


def has_settled(state: State, course: Course) -> bool:
    """Whether the last epochs brought no better loss of the watched photos, as many as the course has patience for."""
    return course.patience is not None and state.epoch - state.least_epoch >= course.patience


def end(model: nn.Module, state: State) -> None:
    """Leaves a model on the CPU, in eval mode, with the weights that are kept."""
    model.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)
    model.zero_grad(set_to_none=True)  # of a step that was not taken: a second phase is not to begin with it
    load_best(model, state)


def _epoch(
    training: Training, names: set[str], stepper: Stepper, average: Average, state: State, epoch: int
) -> tuple[float, bool]:
    """The rest of an epoch, from the batch where the state stands. The last learning rate; whether it was stopped."""
    course, device, lr = training.course, torch.device(training.device), 0.0
    n_batches = math.ceil(n_of_epoch(training) / course.batch_size)
    first = min(state.step, n_batches - 1)  # a checkpoint may be of smaller batches
    n_steps = math.ceil(n_batches / course.accumulate)
    is_checked = epoch > 0 or first > 0
    unread: list[tuple[int, int, float, torch.Tensor, Told, Told]] = []

    def read(later: int = 0) -> tuple[bool, bool]:
        """The losses of all steps but so many of the last; whether it was said there to stop, and that a checkpoint is due."""
        stops = is_due = False
        while len(unread) > later:
            number, n, lr, loss, stops_there, is_due_there = unread.pop(0)
            stops, is_due = stops or bool(stops_there), is_due or bool(is_due_there)
            mean = float(loss)
            check_loss(mean, f"in epoch {epoch + 1}, batch {number + 1}", lr)
            state.loss_sum, state.n_seen = state.loss_sum + mean * n, state.n_seen + n
            so_far = state.loss_sum / state.n_seen
            training.progress(n, f"epoch {epoch + 1} of {course.epochs}, loss {so_far:.3f}, lr {lr:.1e}")
        return stops, is_due

    shared = Shared(training.feed, training.together)
    order = order_of(training, epoch)
    for number, (x, y) in enumerate(ahead(shared.batches(order, epoch, course.batch_size, first), device), first):
        lr = lr_at(course, epoch * n_steps + number // course.accumulate, n_steps * course.epochs)
        is_whole = (number + 1) % course.accumulate == 0 or number + 1 == n_batches
        n = min(course.batch_size, len(order) - number * course.batch_size)
        rank = [training.together.rank] if training.together.n > 1 else []
        with dice(seed_for(course.seed, "step", epoch, number, *rank), device):  # dropout's and mixing's
            loss = stepper.backward(x, y, shared.n_of(n) / (course.batch_size * course.accumulate))
        unread.append((number, n, lr, *_agreed(training, loss * shared.n_of(n) / n)))
        is_stopped, is_due = read(READ_LATER.get(device.type, 0))
        if is_whole:
            stepper.add()
            if is_checked:
                stepper.step(lr)
            else:
                is_checked = _checked_step(training, names, stepper, lr)
            average.update()
        state.step = number + 1
        if is_stopped:
            read()
            training.note(f"Stopped after {number + 1} of {n_batches} batches of epoch {epoch + 1}.")
            return lr, True
        if (
            is_whole and is_due and state.step < n_batches
        ):  # gradients of half a step are not kept; an epoch's end saves anyway
            is_stopped = read()[0]
            training.save(sound(keep(training.model, names, stepper, average, state), lr))
            if is_stopped:
                return lr, True
    return lr, read()[0]


def _agreed(training: Training, loss: torch.Tensor) -> tuple[torch.Tensor, Told, Told]:
    """The loss of a whole batch, from this process's part of it; whether training is to stop, and a checkpoint is due. Of
    several processes they are read no sooner than the loss: that waits for the device."""
    stops, is_due = training.stop(), training.due()
    if training.together.n == 1:
        return loss, stops, is_due
    told = loss.detach().float().new_zeros(3)
    told[0] = loss.detach()
    told[1:2].fill_(stops)
    told[2:].fill_(is_due)
    training.together.add([told])
    return told[0], told[1] > 0, told[2] > 0


def at_once(training: Training) -> int | None:
    """Photos that go through the model at once, None for a whole batch: what norms that adapt see has to be one."""
    if torch.device(training.device).type != "cpu" or training.course.norm == "adapt":
        return None
    return next((most for kind, most in MOST_ON_CPU.items() if isinstance(training.feed, kind)), None)


def learning_names(training: Training) -> set[str]:
    """The names of the parameters that learn."""
    wanted = {id(p) for group in training.groups for p in group}
    return {name for name, p in training.model.named_parameters() if id(p) in wanted}


def layout_for(device: torch.device, model: nn.Module) -> torch.memory_format:
    """How images lie in memory where the device computes fastest: by channel on Apple's, by pixel elsewhere where they can."""
    return torch.contiguous_format if device.type == "mps" else by_pixel(model)


def n_of_epoch(training: Training) -> int:
    """How many photos an epoch learns from: all, but where norms adapt one that would be a batch by itself, in which a norm
    behind the last pooling has one value a channel."""
    n = len(training.learn)
    return n - (training.course.norm == "adapt" and n > 1 and n % training.course.batch_size == 1)


def order_of(training: Training, epoch: int) -> NDArray[np.int64]:
    """The photos to learn from, shuffled; with balanced sampling each class as often, drawn with replacement."""
    random = np.random.default_rng(seed_for(training.course.seed, "shuffle", epoch))
    if training.course.sampling != "balanced":
        return random.permutation(training.learn)[: n_of_epoch(training)]
    labels = training.feed.labels[training.learn]
    counts = np.bincount(labels, minlength=training.n_classes)
    chances = 1 / counts[labels]
    return random.choice(training.learn, n_of_epoch(training), p=chances / chances.sum())


def _checked_step(training: Training, names: set[str], stepper: Stepper, lr: float) -> bool:
    """The first step, and whether anything moved. Raises Defect when a parameter did that was not to learn.

    Parameters that were to learn and have no gradient are named in a note: nothing of what they compute reaches the loss.
    Those that stay for a step, as the first of two factors does while the second is zero, are not.
    """
    idle = sorted(name for name, p in training.model.named_parameters() if name in names and p.grad is None)
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    stepper.step(lr)
    moved = {name for name, p in training.model.named_parameters() if not torch.equal(p, before[name])}
    if foreign := sorted(moved - names):
        raise Defect(what=f"{len(foreign)} parameters changed that were not to learn: {', '.join(foreign[:4])}.")
    if idle:
        verbs = ("was", "does") if len(idle) == 1 else ("were", "do")
        said = f"{counted(len(idle), 'parameter')} that {verbs[0]} to learn {verbs[1]} not reach the loss"
        training.note(f"{said}: {', '.join(idle[:4])}")
    return bool(moved)
