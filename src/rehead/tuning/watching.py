"""What a training says of photos that it does not learn from: their logits, and whether an epoch is worse than the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rehead.tuning.checks import check_loss
from rehead.tuning.feed import Feed, PhotoFeed, StoredFeed
from rehead.tuning.losses import each_loss, weights_of
from rehead.tuning.state import State
from rehead.tuning.step import computing_in, free_memory, is_out_of_memory, precision
from rehead.tuning.together import share

if TYPE_CHECKING:
    from rehead.tuning.train import Training

JUDGED, JUDGED_ON_CPU, JUDGED_ROWS = 64, 16, 1_024  # photos that are judged at once; rows of features


def logits_of(
    model: nn.Module,
    feed: Feed,
    positions: NDArray[np.int64],
    device: str,
    size: int | None = None,
    dtype: torch.dtype | None = None,
) -> NDArray[np.float32]:
    """(n, n_classes) of these photos, one at least, as they are, without augmentation; the model is left in the mode it had.
    dtype: what it computes in, by default that of a network that does not learn."""
    size = size or (JUDGED_ON_CPU if device == "cpu" else JUDGED)
    place = torch.device(device)
    rows: list[NDArray[np.float32]] | None = None
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode(), computing_in(dtype or precision(place), place):
            rows = [model(x.to(device)).float().cpu().numpy() for x in feed.plain(positions, size)]
    except RuntimeError as error:
        if not is_out_of_memory(error) or size == 1:
            raise
    finally:
        for module, mode in modes.items():
            module.training = mode
    if rows is not None:
        return np.concatenate(rows)
    free_memory(place)
    return logits_of(model, feed, positions, device, size // 2, dtype)


def watched(
    training: Training, state: State, lr: float, seconds: float, n_before: int, epoch: int
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """The facts of an epoch: loss while learning, and on the watched photos loss and, of classes, how many are right. And
    what `judged` gives of them. seconds: that the epoch took, here without the n_before photos that were seen before the job
    was interrupted."""
    faults = losses = torch.empty(0)
    facts: dict[str, Any] = {"epoch": epoch + 1, "loss": state.loss_sum / max(1, state.n_seen), "lr": lr}
    facts |= {"seconds": round(seconds, 3), "images_per_s": round((state.n_seen - n_before) / max(seconds, 1e-9), 1)}
    if len(training.watch):
        faults, losses = judged(training)
        check_loss(float(losses.mean()), f"on the watched photos after epoch {epoch + 1}", lr)
        facts |= {"watch_loss": float(losses.mean()), "watch_n": len(losses)}
        if training.task == "classification":
            facts["watch_right"] = len(faults) - int(faults.sum())
    return facts, faults, losses


def judged(training: Training) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each watched photo, (n,): 1 where its class is not the one that is named, and the loss, weighted as what is learned;
    of other labels the loss twice.

    Whether training is undone is decided by the first: smoothed labels raise the loss of a head that was sure and right.
    """
    together, watch = training.together, training.watch
    mine = share(watch, together) if len(watch) >= together.n else watch
    size = None if isinstance(training.feed, PhotoFeed | StoredFeed) else JUDGED_ROWS
    rows = logits_of(training.model, training.feed, mine, training.device, size, training.dtype)
    logits = torch.from_numpy(rows if mine is watch else together.gathered(rows))
    labels = torch.from_numpy(training.feed.labels[training.watch])
    losses = each_loss(training.task, logits, labels, class_weights(training, "cpu"))
    return ((logits.argmax(1) != labels).float() if training.task == "classification" else losses), losses


def class_weights(training: Training, device: torch.device | str) -> torch.Tensor | None:
    """With which each class counts as much in all, their mean over the photos being 1; None where not asked."""
    return weights_of(
        training.task, training.feed.labels[training.learn], training.n_classes, training.course.class_weight, device
    )


def is_worse(losses: torch.Tensor, least: torch.Tensor | None, n_errors: float = 1) -> bool:
    """Whether an epoch is worse on the watched photos than that of least loss by more than so many standard errors of the
    difference.

    With a falling rate the last epoch has the better weights, and the least of a few noisy losses is mostly luck: see
    `benchmarks/kept_epoch.py`. With less than two watched photos, and where they are others than those of that epoch, it is
    not worse.
    """
    if least is None or len(losses) < 2 or len(losses) != len(least):  # one has no standard error
        return False
    difference = losses - least
    return bool(difference.mean() > n_errors * difference.std() / math.sqrt(len(losses)))
