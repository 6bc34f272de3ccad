"""The MLP head: dense layers trained on stored pooled features, with Adam on the loss of what is learned.

The steps are `train.py`'s, so they may be taken here, or by several processes that share every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rehead.bundle import Activation, Head
from rehead.bundle_facts import Task
from rehead.data.split import seed_for
from rehead.nets.heads import head_from_module, mlp_module
from rehead.progress import Progress
from rehead.tuning.convex import Axes, standard
from rehead.tuning.course import Course
from rehead.tuning.feed import Pair
from rehead.tuning.lr_range import range_lines
from rehead.tuning.range_test import find_rate
from rehead.tuning.recipe import AUTO, LR, STOP_SHARE
from rehead.tuning.scale import Scale
from rehead.tuning.state import State
from rehead.tuning.train import Training, train_layers

By: TypeAlias = Callable[[Training], State]  # who takes the steps: `train_layers`, or something that does the same

# The usual rate, times the number of features, at most LR: Adam moves each weight by about the rate, and so an output by the
# rate times its inputs (Yang and others 2022). At 0.001 the best epoch of 1,280 features was the first or the second.
RATE_BY_WIDTH = 0.25
PATIENCE = 8  # epochs that are worse on that slice than the best
MIN_SLICE = 10  # photos; with fewer, all epochs are run on all photos


class FeatureFeed:
    """Features (n, width) as an MLP takes them, standardised. Of those that lie on a disk no more than a batch is in memory.
    labels: (n,) or (n, k)."""

    def __init__(self, features: NDArray[np.floating[Any]], labels: NDArray[Any], axes: Axes) -> None:
        self.labels, self.is_on_disk = labels, isinstance(features, np.memmap)
        self._axes = axes
        self._features = features if self.is_on_disk else axes.standardised(features)

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        del epoch
        for start in range(first * size, len(order), size):
            chosen = order[start : start + size]
            yield self._of(chosen), torch.from_numpy(self.labels[chosen])

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        for start in range(0, len(positions), size):
            yield self._of(positions[start : start + size])

    def _of(self, chosen: NDArray[np.int64]) -> torch.Tensor:
        rows = self._features[chosen]
        return torch.from_numpy(self._axes.standardised(rows) if self.is_on_disk else rows)


def train_mlp(
    features: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    n_classes: int,
    *,
    hidden: tuple[int, ...],
    epochs: int,
    batch_size: int,
    lr: float | str | None,
    activation: Activation,
    class_weight: str | None,
    seed: int,
    device: str,
    progress: Progress,
    task: Task = "classification",
    by: By | None = None,
    watch: NDArray[np.bool_] | None = None,
) -> tuple[Head, str, NDArray[np.int64]]:
    """A head of dense layers `hidden` wide, a few words on it, and the photos that said which epoch is kept (none where all
    were learned from). features: (n, width).

    labels: what is learned, see `data/targets.py`. n_classes: outputs of the head, 1 for a number. lr: a rate, "auto"
    for one that a range test finds, or None for `usual_rate`. Features and numbers are standardised; the head that comes back
    takes features as they are, and gives numbers as they are. by: who takes the steps, None for this process. watch: (n,), the
    photos that are to say which epoch is kept, unless they are under MIN_SLICE; None: a tenth of each class.
    """
    scale_back = Scale.of(labels) if task == "regression" else None
    labels = scale_back.standardised(labels) if scale_back else labels
    axes = standard(features)
    learn, seen = _slices(labels if task == "classification" else np.zeros(len(labels)), watch, seed)
    module = mlp_module(features.shape[1], hidden, n_classes, activation, seed=seed_for(seed, "mlp"))
    torch.nn.init.zeros_(
        module[-1].weight
    )  # else what few photos do not say would stay as random as these first weights
    rate = usual_rate(features.shape[1]) if lr in (None, AUTO) else float(lr)

    def report(facts: dict[str, Any]) -> None:
        loss = facts.get("watch_loss", facts["loss"])
        progress.status(f"MLP epoch {facts['epoch']} of {epochs}, loss {loss:.3f}")

    training = Training(
        model=module,
        groups=[list(module.parameters())],
        feed=FeatureFeed(features, labels, axes),
        course=_course(epochs, batch_size, rate, class_weight, seed),
        learn=learn,
        watch=seen,
        n_classes=n_classes,
        task=task,
        device=device,
        report=report,
        save=lambda _: None,
        due=lambda: False,
        progress=lambda *_: None,
        note=progress.note,
    )
    if lr == AUTO:
        test = find_rate(training, lambda _: None)
        for line in range_lines(test):
            progress.note(line)
        training = replace(training, course=replace(training.course, lr=test.lr))
    state = (by or train_layers)(training)
    head = _on_raw(head_from_module(module, "mlp", activation), axes)
    head = scale_back.on(head) if scale_back else head
    kept = f"epoch {state.best_epoch} of {state.epoch} kept by {len(seen)} photos of the training side"
    widths = ", ".join(map(str, hidden))
    note = f"mlp: {widths} hidden, Adam, {kept if len(seen) else f'{state.epoch} epochs'}"
    return head, note, seen


def usual_rate(width: int) -> float:
    """The learning rate for dense layers on so many features where none is named: lower for more, as RATE_BY_WIDTH says."""
    return min(LR, RATE_BY_WIDTH / width)


def _course(epochs: int, batch_size: int, lr: float, class_weight: str | None, seed: int) -> Course:
    return Course(
        epochs=epochs, batch_size=batch_size, lr=lr, class_weight=class_weight, seed=seed, patience=PATIENCE, tolerance=0,
        from_random=True, optimizer="adam", schedule="constant", weight_decay=0.0, layer_decay=1.0, label_smoothing=0.0,
        clip=None, accumulate=1, average=None, norm="frozen", mixup=0.0, cutmix=0.0, erase=0.0, sampling="plain",
    )  # fmt: skip


def _slices(
    labels: NDArray[Any], watch: NDArray[np.bool_] | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Photos to learn from, and photos that decide when to stop; where none are given, of every class that has enough."""
    if watch is None:
        watch = np.zeros(len(labels), bool)
        order = np.random.default_rng(seed_for(seed, "slice")).permutation(len(labels))
        for label in np.unique(labels):
            members = order[labels[order] == label]
            watch[members[: int(len(members) * STOP_SHARE)]] = True
    if watch.sum() < MIN_SLICE:
        watch = np.zeros(len(labels), bool)
    return np.flatnonzero(~watch), np.flatnonzero(watch)


def _on_raw(head: Head, axes: Axes) -> Head:
    """The head with the standardisation folded into its first layer."""
    weight, bias = head.layers[0]
    folded = weight.astype(np.float64) * axes.scale
    first = (folded.astype(np.float32), (bias - folded @ axes.mean.astype(np.float64)).astype(np.float32))
    return Head(head.kind, (first, *head.layers[1:]), head.activation)
