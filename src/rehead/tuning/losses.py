"""What a training makes small, by task: cross-entropy of classes or of labels in nats, or the squared error of
standardised numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from rehead.bundle_facts import Task

UNITS: dict[Task, str] = {
    "classification": "cross-entropy, nats",
    "multilabel": "cross-entropy a label, nats",
    "regression": "squared error, variances",
}


def loss_of(
    task: Task,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """The mean loss of a batch, a scalar. outputs: (n, k). targets: (n,) classes, (n, k) of 0 and 1, or (n,) numbers.

    weights: of `weights_of`; with them it is the sum of weighted losses by the number of rows, so that parts of a batch add
    up to the whole. smoothing: of labels, for classes only.
    """
    if task == "classification":
        total = F.cross_entropy(outputs, targets, weights, label_smoothing=smoothing, reduction="sum")
        return total / len(outputs)
    if task == "regression":
        return F.mse_loss(outputs[:, 0], targets)
    each = None if weights is None else torch.where(targets > 0.5, weights[1], weights[0])
    return F.binary_cross_entropy_with_logits(outputs, targets, each)


def each_loss(
    task: Task, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss of each photo, (n,), without smoothing; of labels the mean over them. weights: of `weights_of`."""
    if task == "classification":
        return F.cross_entropy(outputs, targets, weights, reduction="none")
    if task == "regression":
        return F.mse_loss(outputs[:, 0], targets, reduction="none")
    each = None if weights is None else torch.where(targets > 0.5, weights[1], weights[0])
    return F.binary_cross_entropy_with_logits(outputs, targets, each, reduction="none").mean(dim=1)


def weights_of(
    task: Task, targets: NDArray[Any], n_outputs: int, class_weight: str | None, device: torch.device | str
) -> torch.Tensor | None:
    """Weights with which rare classes count as much, (n_classes,), or labels that are shown as much as those that are
    not, (2, k): of photos without it, and with it."""
    if class_weight is None or task == "regression":
        return None
    n = len(targets)
    if task == "classification":
        counts = np.bincount(targets, minlength=n_outputs)
        return torch.tensor(n / (n_outputs * np.maximum(counts, 1)), dtype=torch.float32, device=device)
    shown = targets.sum(axis=0)
    pairs = n / (2 * np.maximum(np.stack([n - shown, shown]), 1))
    return torch.tensor(pairs, dtype=torch.float32, device=device)
