"""What must hold of a training's tensors: they are numbers when they are kept, and of this very model when they come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from rehead.errors import Diverged, RunError

if TYPE_CHECKING:
    from rehead.tuning.state import State


def check_loss(loss: float, where: str, lr: float) -> None:
    """Raises Diverged when a loss is not a number. where: "in epoch 1, batch 3"."""
    if not math.isfinite(loss):
        raise Diverged(f"The loss is {loss} {where}.", lr)


def sound(state: State, lr: float) -> State:
    """The state, which may be kept. Raises Diverged when one of its tensors holds what is not a number.

    A loss is known before the step that it leads to: after the last batch that was fine weights may not be.
    """
    where = f"in epoch {state.epoch + 1} after batch {state.step}" if state.step else f"after epoch {state.epoch}"
    for name, tensor in state.tensors.items():
        # by NumPy: PyTorch's threads, called once a tensor, waited ten times as long on 16 cores
        if tensor.is_floating_point() and not np.isfinite(tensor.float().numpy()).all():
            raise Diverged(f"Weights are no numbers any more {where}: {name.partition('.')[2]}.", lr)
    return state


def check_fits(saved: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Raises RunError when a checkpoint's tensors are not the model's by name and shape; it names the first."""
    for name, tensor in saved.items():
        here = tuple(own[name].shape) if name in own else "not there"
        if here != tuple(tensor.shape):
            raise RunError(
                what="The checkpoint is of another model.",
                why=f"{name} is {tuple(tensor.shape)} in it and {here} here.",
                fix="The classes or the layers changed: start a new run (features that are there are used).",
            )
