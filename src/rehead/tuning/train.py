"""Layers trained by gradient steps, top to bottom: batches in, the best weights by photos that are watched out.

What learns is decided by names (`modes.py`), how fast by the step (`course.py`), from what by a feed (`feed.py`). All dice
are thrown from the seed, the epoch and the step alone, so that a job that goes on from a checkpoint ends, on CPU, with the
same bits as one that was never interrupted.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rehead.bundle import Task
from rehead.data.split import seed_for
from rehead.errors import Defect, RunError
from rehead.tuning import losses
from rehead.tuning.course import Course, lr_at
from rehead.tuning.feed import Feed
from rehead.tuning.fit import check_loss
from rehead.tuning.mixing import erased, mixed
from rehead.tuning.modes import set_modes

WATCHED = "best.watched"  # the loss of each watched photo in the epoch that is kept
NO_DECAY_NDIM = 1  # norms' weights and all biases have one dimension

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda groups, **settings: torch.optim.SGD(groups, momentum=0.9, nesterov=True, **settings),
}


@dataclass
class State:
    """All that a training needs to go on: tensors by name, and plain facts. step: batches done in this epoch.

    history: one entry an epoch. best_epoch: from 1, the one whose weights are kept, see `_is_worse`.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_seen: int = 0
    best_epoch: int = 0
    learning: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What does not change while layers are trained. groups: the parameters that learn, layer by layer, the head last.

    watch: positions in the feed that decide which epoch is kept; none: the last. report: told each epoch's facts. save:
    told the state whenever `due` says so, and at the end of each epoch. stop: asked after each batch; once true the epoch
    ends there and is the last. task: what the feed's labels are; numbers are standardised.
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
    stop: Callable[[], bool] = lambda: False
    task: Task = "classification"


def train_layers(job: Job, start: State | None = None) -> State:
    """Trains the model in place and leaves it in eval mode on the CPU with the best weights, or the last without a watch.

    Raises RunError when the loss is not a number; the checkpoint of the last good step stays. Raises Defect when other
    parameters changed than those that were to learn.
    """
    course, device = job.course, torch.device(job.device)
    wanted = {id(p) for group in job.groups for p in group}
    names = {name for name, p in job.model.named_parameters() if id(p) in wanted}
    state = start or State(learning=sorted(names))
    if state.learning != sorted(names):
        raise RunError(
            what="The checkpoint is of a job in which other layers learned.", fix="Start again without --resume."
        )
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    job.model.to(device, memory_format=layout)
    set_modes(job.model, names, course.norm)
    optimizer = _optimizer(job)
    average = _Average(job.model, names, course.average)
    _restore(job.model, optimizer, average, state)
    scaler = torch.amp.GradScaler(enabled=device.type == "cuda" and not torch.cuda.is_bf16_supported())
    n_batches = math.ceil(len(job.learn) / course.batch_size)
    n_steps = math.ceil(n_batches / course.accumulate)
    weights = losses.weights_of(job.task, job.feed.labels[job.learn], job.n_classes, course.class_weight, device)
    for epoch in range(state.epoch, course.epochs):
        begun, first, stopped = time.monotonic(), state.step, False
        set_modes(job.model, names, course.norm)
        order = _order(job, epoch)
        for number, (x, y) in enumerate(job.feed.batches(order, epoch, course.batch_size, first), first):
            step = epoch * n_steps + number // course.accumulate
            lr = lr_at(course, step, n_steps * course.epochs)
            with _dice(course.seed, epoch, number), _watched(job.model, names, is_first=epoch == 0 and number == 0):
                share = len(x) / (course.batch_size * course.accumulate)
                loss = _backward(job, x.to(device), y.to(device), weights, scaler, share)
                check_loss(loss, f"in epoch {epoch + 1}, batch {number + 1}", lr)
                is_whole = (number + 1) % course.accumulate == 0 or number + 1 == n_batches
                if is_whole:
                    _step(optimizer, scaler, lr, course)
                    average.update()
            state.step, state.loss_sum, state.n_seen = number + 1, state.loss_sum + loss * len(x), state.n_seen + len(x)
            job.progress(
                len(x), f"epoch {epoch + 1} of {course.epochs}, loss {state.loss_sum / state.n_seen:.3f}, lr {lr:.1e}"
            )
            if stopped := job.stop():
                break
            if is_whole and job.due():  # gradients of half a step are not kept
                job.save(_kept(job.model, names, optimizer, average, state))
        seconds = time.monotonic() - begun
        with average.used():
            facts, watched = _watch(job, state, lr, seconds, epoch)
            if not _is_worse(watched, state.tensors.get(WATCHED)):
                state.best_epoch = epoch + 1
                best = {WATCHED: watched, **_best(job.model, names)}
                state.tensors = {n: t for n, t in state.tensors.items() if not n.startswith("best.")} | best
        state.history.append(facts)
        state.epoch, state.step, state.loss_sum, state.n_seen = epoch + 1, 0, 0.0, 0
        job.report(facts)
        job.save(_kept(job.model, names, optimizer, average, state))
        if stopped or (course.patience and epoch + 1 - state.best_epoch >= course.patience):
            break
    best = {n.removeprefix("best."): t for n, t in state.tensors.items() if n.startswith("best.") and n != WATCHED}
    _load(job.model, best)
    job.model.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)
    return state


def logits_of(
    model: nn.Module, feed: Feed, positions: NDArray[np.int64], device: str, size: int = 64
) -> NDArray[np.float32]:
    """(n, n_classes) of these photos as they are, without augmentation; the model is left in the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.inference_mode(), _autocast(torch.device(device)):
        rows = [model(x.to(device)).float().cpu() for x in feed.plain(positions, size)]
    for module, mode in modes.items():
        module.training = mode
    return np.concatenate([row.numpy() for row in rows])


def _optimizer(job: Job) -> torch.optim.Optimizer:
    """Groups by layer: the rate falls with the distance from the head, and one-dimensional parameters do not decay."""
    course, groups = job.course, []
    for depth, parameters in enumerate(reversed(job.groups)):
        scale = course.layer_decay**depth
        for is_plain in (False, True):
            chosen = [p for p in parameters if (p.ndim <= NO_DECAY_NDIM) == is_plain]
            if chosen:
                decay = 0.0 if is_plain else course.weight_decay
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale, "lr": 0.0})
    return OPTIMIZERS[course.optimizer](groups, lr=course.lr)


def _order(job: Job, epoch: int) -> NDArray[np.int64]:
    """The photos to learn from, shuffled; with balanced sampling each class as often, drawn with replacement."""
    random = np.random.default_rng(seed_for(job.course.seed, "shuffle", epoch))
    if job.course.sampling != "balanced":
        return random.permutation(job.learn)
    labels = job.feed.labels[job.learn]
    counts = np.bincount(labels, minlength=job.n_classes)
    chances = 1 / counts[labels]
    return random.choice(job.learn, len(job.learn), p=chances / chances.sum())


def _backward(
    job: Job, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None, scaler: Any, share: float, parts: int = 1
) -> float:
    """The mean loss of a batch; its gradient is added. A batch that does not fit into the device's memory is halved."""
    total, smoothing, loss_of = 0.0, job.course.label_smoothing, functools.partial(losses.loss_of, job.task)
    x, other, kept = mixed(erased(x, job.course.erase), job.course.mixup, job.course.cutmix)
    try:
        for part in torch.arange(len(x), device=x.device).tensor_split(parts):
            with _autocast(x.device):
                logits = job.model(x[part]).float()
                loss = kept * loss_of(logits, y[part], weights, smoothing)
                if kept < 1:
                    loss = loss + (1 - kept) * loss_of(logits, y[other[part]], weights, smoothing)
            scaler.scale(loss * share * len(part) / len(x)).backward()
            total += float(loss.detach()) * len(part) / len(x)
        return total
    except torch.cuda.OutOfMemoryError:
        if parts >= len(x):
            raise
        job.model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    job.progress(0, f"the device's memory is full: batches of {len(x)} go in {2 * parts} parts")
    return _backward(job, x, y, weights, scaler, share, 2 * parts)


def _step(optimizer: torch.optim.Optimizer, scaler: Any, lr: float, course: Course) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    if course.clip is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], course.clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def _watch(job: Job, state: State, lr: float, seconds: float, epoch: int) -> tuple[dict[str, Any], torch.Tensor]:
    """The facts of an epoch: loss while learning, and on the watched photos loss and, of classes, how many are right. And
    the loss of each watched photo, (n,)."""
    each = torch.empty(0)
    facts: dict[str, Any] = {"epoch": epoch + 1, "loss": state.loss_sum / max(1, state.n_seen), "lr": lr}
    facts |= {"seconds": round(seconds, 3), "images_per_s": round(state.n_seen / max(seconds, 1e-9), 1)}
    if len(job.watch):
        logits = torch.from_numpy(logits_of(job.model, job.feed, job.watch, job.device))
        labels = torch.from_numpy(job.feed.labels[job.watch])
        each = losses.each_loss(job.task, logits, labels)
        facts |= {"watch_loss": float(each.mean()), "watch_n": len(labels)}
        if job.task == "classification":
            facts["watch_right"] = int((logits.argmax(1) == labels).sum())
    return facts, each


def _is_worse(losses: torch.Tensor, best: torch.Tensor | None) -> bool:
    """Whether an epoch is worse on the watched photos than the best by more than one standard error of the difference.

    Of epochs that cannot be told apart the later one is kept, after Breiman's rule (1984): with a falling rate it has the
    better weights, and the least of a few noisy losses is mostly luck. Without watched photos the last is kept.
    """
    if best is None or not len(losses):
        return False
    difference = losses - best
    return bool(difference.mean() > difference.std() / math.sqrt(len(losses)))


@contextmanager
def _dice(seed: int, epoch: int, number: int) -> Iterator[None]:
    """Dropout's and mixing's dice depend on the place in the training alone."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed_for(seed, "step", epoch, number))
        yield


@contextmanager
def _watched(model: nn.Module, names: set[str], *, is_first: bool) -> Iterator[None]:
    """Around the first step: raises Defect when a parameter changed that was not to learn."""
    before = {n: p.detach().clone() for n, p in model.named_parameters() if n not in names} if is_first else {}
    yield
    changed = [n for n, p in model.named_parameters() if n in before and not torch.equal(p, before[n])]
    if changed:
        raise Defect(what=f"{len(changed)} parameters changed that were not to learn: {', '.join(changed[:4])}.")


def _autocast(device: torch.device) -> Any:
    kind = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast(device.type, kind, enabled=device.type == "cuda")


class _Average:
    """The moving average of what learns, with the statistics of norms; `used` puts it into the model for a while."""

    def __init__(self, model: nn.Module, names: set[str], keep: float | None) -> None:
        self.keep, self.n = keep, 0
        self._live = _moving(model, names) if keep is not None else {}
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    def update(self) -> None:
        self.n += 1
        keep = min(self.keep or 0.0, self.n / (self.n + 9))  # short at first, so that the beginning is forgotten
        for name, tensor in self._live.items():
            self.tensors[name].lerp_(tensor.detach(), 1 - keep)

    @contextmanager
    def used(self) -> Iterator[None]:
        self._swap()
        yield
        self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for name, tensor in self._live.items():
                other = self.tensors[name].clone()
                self.tensors[name].copy_(tensor)
                tensor.copy_(other)


def _moving(model: nn.Module, names: set[str]) -> dict[str, torch.Tensor]:
    """What changes while training, without counters: parameters that learn, and the statistics of norms."""
    return {name: tensor for name, tensor in _changing(model, names).items() if tensor.is_floating_point()}


def _changing(model: nn.Module, names: set[str]) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if name in names} | dict(model.named_buffers())


def _best(model: nn.Module, names: set[str]) -> dict[str, torch.Tensor]:
    return {f"best.{name}": t.detach().cpu().clone() for name, t in _changing(model, names).items()}


def _kept(
    model: nn.Module, names: set[str], optimizer: torch.optim.Optimizer, average: _Average, state: State
) -> State:
    """The state with all tensors in it, on the CPU."""
    tensors = {n: t for n, t in state.tensors.items() if n.startswith("best.")}
    tensors |= {f"model.{n}": t.detach().cpu() for n, t in _changing(model, names).items()}
    tensors |= {f"average.{n}": t.cpu() for n, t in average.tensors.items()}
    tensors["average_n"] = torch.tensor(average.n)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{i}.{key}"] = torch.as_tensor(value).detach().cpu()
    state.tensors = tensors
    return state


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, average: _Average, state: State) -> None:
    """Puts a checkpoint's tensors back; nothing where there is none."""
    if "average_n" not in state.tensors:
        return
    _load(model, {n.removeprefix("model."): t for n, t in state.tensors.items() if n.startswith("model.")})
    average.n = int(state.tensors["average_n"])
    for name, tensor in average.tensors.items():
        tensor.copy_(state.tensors[f"average.{name}"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in state.tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            parameter = parameters[int(i)]
            on = tensor if tensor.ndim == 0 else tensor.to(parameter.device)
            optimizer.state[parameter][key] = on.clone()


def _load(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
