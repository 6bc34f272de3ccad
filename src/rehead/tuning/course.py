"""How layers are trained: the course of learning rates, and all else that a step needs to know. No torch.

A learning rate is a function of the step, so a job that goes on after an interruption has no scheduler to restore.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WARM_UP = {"one-cycle": 0.25, "cosine": 0.05, "constant": 0.0}  # share of the steps in which the rate rises
START = 0.04  # of the highest rate, where it begins to rise; as in Smith and Topin 2018
END = {"one-cycle": 1e-4, "cosine": 0.0, "constant": 1.0}  # of the highest rate, at the last step


@dataclass(frozen=True, kw_only=True)
class Course:
    """lr: the highest rate. decay of weights is not applied to norms and biases. layer_decay: each layer further from
    the head learns at this share of the rate of the one above it. clip: the largest norm of a step's gradient, or None.
    accumulate: batches a step. average: how much of the weights' moving average is kept a step, or None.
    patience: epochs without a better loss on the watched photos after which training ends, or None. tolerance: standard errors
    by which the last epoch may be worse than the best and is kept, see `watching.py`. from_random: whether the weights
    are random at first, and so never what is kept. norm: "frozen" or "adapt". mixup, cutmix, erase: how batches are mixed and
    erased, see `mixing.py`; 0 for none.
    compile: whether the model is compiled for the steps.
    """

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    weight_decay: float
    layer_decay: float
    label_smoothing: float
    clip: float | None
    accumulate: int
    average: float | None
    patience: int | None
    tolerance: float = 2.0
    from_random: bool = False
    norm: str
    mixup: float
    cutmix: float
    erase: float
    class_weight: str | None
    sampling: str
    seed: int
    compile: bool = False


def lr_at(course: Course, step: int, n_steps: int) -> float:
    """The learning rate of a step, counted from 0, of n_steps."""
    warm_up = max(1, round(WARM_UP[course.schedule] * n_steps)) if WARM_UP[course.schedule] else 0
    if step < warm_up:
        return course.lr * _between(START, 1.0, step / warm_up)
    return course.lr * _between(1.0, END[course.schedule], (step - warm_up) / max(1, n_steps - 1 - warm_up))


def _between(first: float, last: float, way: float) -> float:
    """From first to last along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * min(1.0, way))) / 2
