"""The MLP head: dense layers trained on stored pooled features, with Adam on the loss of what is learned."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rehead.bundle import Activation, Head
from rehead.bundle_facts import Task
from rehead.data.split import seed_for
from rehead.nets.heads import head_from_module, mlp_module
from rehead.progress import Progress
from rehead.tuning.losses import loss_of, weights_of
from rehead.tuning.lr_range import RangeTest, range_lines, range_test
from rehead.tuning.recipe import AUTO
from rehead.tuning.scale import Scale

STOP_SHARE = 0.1  # of the training photos decide when to stop; the held-out side is never looked at
PATIENCE = 8  # epochs without a better loss on that slice
MIN_SLICE = 10  # photos; with fewer, all epochs are run on all photos


def train_mlp(
    features: NDArray[np.float32],
    labels: NDArray[Any],
    n_classes: int,
    *,
    hidden: tuple[int, ...],
    epochs: int,
    batch_size: int,
    lr: float | str,
    activation: Activation,
    class_weight: str | None,
    seed: int,
    device: str,
    progress: Progress,
    task: Task = "classification",
) -> tuple[Head, str, NDArray[np.int64]]:
    """A head of dense layers `hidden` wide, a few words on it, and the photos that said which epoch is kept (none where all
    were learned from). features: (n, width).

    labels: what is learned, see `data/targets.py`. n_classes: outputs of the head, 1 for a number. lr: a rate, or "auto"
    for one that a range test finds. Features and numbers are standardised; the head that comes back takes features as
    they are, and gives numbers as they are.
    """
    scale_back = Scale.of(labels) if task == "regression" else None
    labels = scale_back.standardised(labels) if scale_back else labels
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-6, scale, 1.0)
    x = torch.from_numpy(((features - mean) / scale).astype(np.float32)).to(device)
    y = torch.from_numpy(labels).to(device)
    learn, watch = _slices(labels if task == "classification" else np.zeros(len(labels)), seed, device)
    module = mlp_module(features.shape[1], hidden, n_classes, activation, seed=seed_for(seed, "mlp")).to(device)
    if scale_back:  # begin at the mean: what few photos do not say would stay as random as the first weights
        torch.nn.init.zeros_(module[-1].weight)
    weights = weights_of(task, labels, n_classes, class_weight, device)
    if lr == AUTO:
        test = _range_test(module, (x, y), learn, lambda z, t: loss_of(task, z, t, weights), batch_size, seed)
        for line in range_lines(test):
            progress.note(line)
        lr = test.lr
    optimizer = torch.optim.Adam(module.parameters(), lr=float(lr))
    best, best_loss, best_epoch, n_epochs = copy.deepcopy(module.state_dict()), float("inf"), 0, 0
    for epoch in range(1, epochs + 1):
        n_epochs = epoch
        module.train()
        for batch in _shuffled(learn, batch_size, seed_for(seed, "shuffle", epoch)):
            optimizer.zero_grad(set_to_none=True)
            loss_of(task, module(x[batch]), y[batch], weights).backward()
            optimizer.step()
        module.eval()
        with torch.inference_mode():
            loss = float(loss_of(task, module(x[watch]), y[watch], weights))
        progress.status(f"MLP epoch {epoch} of {epochs}, loss {loss:.3f}")
        if loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(module.state_dict()), loss, epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    module.load_state_dict(best)
    head = _on_raw(head_from_module(module.cpu(), "mlp", activation), mean, scale)
    head = scale_back.on(head) if scale_back else head
    widths = ", ".join(map(str, hidden))
    note = f"mlp: {widths} hidden, Adam, epoch {best_epoch} of {n_epochs} kept by a slice of the training side"
    apart = watch.cpu().numpy() if len(watch) < len(labels) else np.empty(0, np.int64)
    return head, note, apart


def _range_test(
    module: nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    learn: torch.Tensor,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    batch_size: int,
    seed: int,
) -> RangeTest:
    """Taken by a copy: the module stays as it is."""
    twin, (x, y) = copy.deepcopy(module), data
    optimizer = torch.optim.Adam(twin.parameters())
    epochs = (_shuffled(learn, batch_size, seed_for(seed, "range", epoch)) for epoch in itertools.count())
    batches = itertools.chain.from_iterable(epochs)

    def try_rate(_number: int, rate: float) -> float:
        batch = next(batches)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(twin(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return range_test(try_rate, lambda _: None)


def _slices(labels: NDArray[Any], seed: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Photos to learn from, and photos that decide when to stop, of every class that has enough."""
    order = np.random.default_rng(seed_for(seed, "slice")).permutation(len(labels))
    watched = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        watched.append(members[: int(len(members) * STOP_SHARE)])
    watch = np.sort(np.concatenate(watched))
    if len(watch) < MIN_SLICE:
        everything = torch.arange(len(labels), device=device)
        return everything, everything
    learn = np.setdiff1d(np.arange(len(labels)), watch)
    return torch.from_numpy(learn).to(device), torch.from_numpy(watch).to(device)


def _shuffled(positions: torch.Tensor, batch_size: int, seed: int) -> list[torch.Tensor]:
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(seed)).to(positions.device)
    return list(positions[order].split(batch_size))


def _on_raw(head: Head, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> Head:
    """The head with the standardisation folded into its first layer."""
    weight, bias = head.layers[0]
    folded = weight.astype(np.float64) / scale
    first = (folded.astype(np.float32), (bias - folded @ mean).astype(np.float32))
    return Head(head.kind, (first, *head.layers[1:]), head.activation)
