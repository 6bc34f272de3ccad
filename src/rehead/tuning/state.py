"""All that a training needs to go on, and putting it into a model and an optimiser and out again.

What changes while training is the parameters that learn and all buffers: the statistics of norms. Their moving average
changes with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rehead.tuning.checks import check_fits
from rehead.tuning.step import Stepper

WATCHED = "watched"  # of each watched photo in the epoch of least loss: the loss; from before the first, see `train.py`
SHORT = 9  # steps; the average begins short, so that the beginning is forgotten: after n of them it keeps n / (n + 9)


@dataclass
class State:
    """All that a training needs to go on: tensors by name, and plain facts. step: batches done in this epoch.

    history: one entry an epoch; "part": the share of its batches, of one that was cut short.
    best_epoch: the one whose weights are kept, 0 for those from before the first; see `train.py`.
    least_epoch: the one of least loss on the watched photos, of those after which weights were kept; 0 before.
    has_ended: whether the training was ended before all its epochs.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_seen: int = 0
    best_epoch: int = 0
    least_epoch: int = 0
    has_ended: bool = False
    learning: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class Average:
    """The moving average of what learns, with the statistics of norms; `used` puts it into the model for a while.

    keep: how much of it is kept a step, None for no average at all.
    """

    def __init__(self, model: nn.Module, names: set[str], keep: float | None) -> None:
        self.keep, self.n = keep, 0
        changing = _changing(model, names) if keep is not None else {}
        self._live = {name: tensor for name, tensor in changing.items() if tensor.is_floating_point()}  # no counters
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    def update(self) -> None:
        self.n += 1
        keep = min(self.keep or 0.0, self.n / (self.n + SHORT))
        for name, tensor in self._live.items():
            self.tensors[name].lerp_(tensor.detach(), 1 - keep)

    @contextmanager
    def used(self) -> Iterator[None]:
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for name, tensor in self._live.items():
                other = self.tensors[name].clone()
                self.tensors[name].copy_(tensor)
                tensor.copy_(other)


def keep(model: nn.Module, names: set[str], stepper: Stepper, average: Average, state: State) -> State:
    """The state with all tensors in it, on the CPU."""
    tensors = {n: t for n, t in state.tensors.items() if n.startswith("best.") or n == WATCHED}
    tensors |= {f"model.{n}": t.detach().cpu() for n, t in _changing(model, names).items()}
    tensors |= {f"average.{n}": t.cpu() for n, t in average.tensors.items()}
    tensors["average_n"] = torch.tensor(average.n)
    tensors |= {f"optimizer.{n}": t for n, t in stepper.tensors().items()}
    state.tensors = tensors
    return state


def restore(model: nn.Module, stepper: Stepper, average: Average, state: State) -> None:
    """Puts a checkpoint's tensors back; nothing where there is none."""
    if "average_n" not in state.tensors:
        return
    saved = _under("model.", state)
    check_fits(saved, dict(model.named_parameters()) | dict(model.named_buffers()))
    load(model, saved)
    average.n = int(state.tensors["average_n"])
    for name, tensor in average.tensors.items():
        tensor.copy_(state.tensors.get(f"average.{name}", saved[name]))  # a run without one may go on with one
    stepper.load(_under("optimizer.", state))


def keep_best(model: nn.Module, names: set[str], state: State) -> None:
    """The weights as they are become the ones to keep."""
    best = {f"best.{name}": t.detach().cpu().clone() for name, t in _changing(model, names).items()}
    others = {n: t for n, t in state.tensors.items() if not n.startswith("best.")}
    state.tensors = others | best


def load_best(model: nn.Module, state: State) -> None:
    """Puts the weights of the best epoch into the model."""
    load(model, _under("best.", state))


def load(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copies tensors into the model's parameters and buffers of these names."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _under(prefix: str, state: State) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.tensors.items() if n.startswith(prefix)}


def _changing(model: nn.Module, names: set[str]) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if name in names} | dict(model.named_buffers())
