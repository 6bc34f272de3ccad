"""What must hold of batches of one's own, and of the layers that they go through: else it is said which, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rehead.errors import RecipeError

NEAR_ONE = 1e-2  # of a sum of shares, which may be in bfloat16


def pair_of(batch: Any, number: int) -> tuple[Any, torch.Tensor]:
    """Images and labels of a batch. Raises RecipeError when it is no such pair. number: of the batch, from 1."""
    if not isinstance(batch, Sequence) or len(batch) != 2:
        many = f" of {len(batch)}" if isinstance(batch, Sequence) else ""
        raise RecipeError(
            what=f"Batch {number} is a {type(batch).__name__}{many}.", fix="Pass pairs of (images, labels)."
        )
    if not isinstance(batch[1], torch.Tensor):
        raise RecipeError(
            what=f"Batch {number} has labels of {type(batch[1]).__name__}.",
            fix="Pass a tensor: torch.as_tensor(labels), one-hot floats or class numbers of int64.",
        )
    return batch[0], batch[1]


def check_images(images: Any, number: int) -> None:
    """Raises RecipeError when a batch's images are no tensor of numbers. number: of the batch, from 1."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise RecipeError(
            what=f"Batch {number} has images of {kind}.",
            fix="Pass tensors of floats, as `rehead.load_batch` gives them.",
        )
    if not len(images):
        raise RecipeError(what=f"Batch {number} is empty.", fix="Leave it out.")
    if not bool(torch.isfinite(images).all()):
        raise RecipeError(what=f"Batch {number} has images that are no numbers.", fix="Look for NaN in what made them.")


def check_labels(y: torch.Tensor, logits: torch.Tensor, n: int, number: int) -> None:
    """Raises RecipeError when a batch cannot be learned from: it says which, what it holds and what is wanted.

    logits: (n, n_classes), what the model gives for its n photos. number: of the batch, from 1.
    """
    if logits.ndim != 2 or len(logits) != n:
        raise RecipeError(
            what=f"The model gives {tuple(logits.shape)} for batch {number} of {n} photos; logits are (n, n_classes).",
            fix="End it with nn.Flatten() and nn.Linear(width, n_classes).",
        )
    n_classes = logits.shape[1]
    if n_classes < 2:
        raise RecipeError(
            what=f"The model gives one number a photo, {tuple(logits.shape)} for batch {number}.",
            why="One class cannot be told from others: a model has two outputs or more.",
            fix="End it with nn.Linear(width, n_classes).",
        )
    one_hot = y.ndim == 2 and y.is_floating_point() and tuple(y.shape) == tuple(logits.shape)
    numbers = y.ndim == 1 and y.dtype == torch.int64 and len(y) == n
    if not (one_hot or numbers):
        raise RecipeError(
            what=f"Batch {number} has labels {tuple(y.shape)} of {y.dtype} for logits {tuple(logits.shape)}.",
            why="Labels are one-hot (n, n_classes) floats or class numbers (n,) int64.",
            fix="Make the last layer as wide as there are classes, or the labels as there are photos.",
        )
    if one_hot and not bool(torch.isfinite(y).all()):
        raise RecipeError(what=f"Batch {number} has labels that are no numbers.", fix="Look for NaN in what made them.")
    if one_hot and bool(((y.sum(1) - 1).abs() > NEAR_ONE).any()):
        raise RecipeError(
            what=f"Batch {number} has photos whose labels do not add up to 1.",
            why="Each photo is of one class here: a row has a 1 for it, or shares of 1.",
            fix="Photos of several labels are learned by rehead.tune, from lists of names.",
        )
    if numbers and not 0 <= int(y.min()) <= int(y.max()) < n_classes:
        raise RecipeError(
            what=f"Batch {number} has classes {int(y.min())} to {int(y.max())}, and the model has {n_classes}.",
            fix="Number classes from 0"
            + (f", or make the last layer {int(y.max()) + 1} wide." if y.min() >= 0 else "."),
        )


@contextmanager
def checked_widths(model: nn.Module) -> Iterator[None]:
    """Within it, a layer that is given another width or kind of number than its own raises RecipeError, which names the layer
    and both."""
    handles = []

    def hook(name: str) -> Callable[..., None]:
        def check(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not inputs or not isinstance(inputs[0], torch.Tensor):
                return
            shape, wanted, axis = tuple(inputs[0].shape), *_width(layer)
            given = shape[axis] if len(shape) > max(axis, 0) else None
            own, kind = getattr(layer.weight, "dtype", None), inputs[0].dtype
            if given == wanted and own not in (None, kind) and not torch.is_autocast_enabled(inputs[0].device.type):
                raise RecipeError(
                    what=f"The layer {name or 'given'} computes in {own}, but is given {kind}.",
                    fix=f"Pass images.to({own}), as `rehead.load_batch` gives them.",
                )
            if given == wanted:
                return
            raise RecipeError(
                what=f"The layer {name or 'given'} takes {wanted} {'features' if axis == -1 else 'channels'}, but is given "
                f"{given if given is not None else 'none'}.",
                why=f"What comes before it gives {shape}, the photos first.",
                fix=_mended(layer, shape, given),
            )

        return check

    try:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.BatchNorm2d | nn.BatchNorm1d):
                handles.append(layer.register_forward_pre_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _width(layer: Any) -> tuple[int, int]:
    """How wide a layer's input is, and along which axis."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, -1
    return (layer.in_channels if isinstance(layer, nn.Conv2d) else layer.num_features), 1


def _mended(layer: Any, shape: tuple[int, ...], given: int | None) -> str:
    if isinstance(layer, nn.Linear) and len(shape) == 4:
        made = shape[1] * shape[2] * shape[3]
        return (
            "Put nn.Flatten() before it."
            if made == layer.in_features
            else "Put nn.AdaptiveAvgPool2d(1) and nn.Flatten() before it."
        )
    if isinstance(layer, nn.Linear):
        return f"Make it nn.Linear({given}, {layer.out_features}), or pool and flatten before it."
    return f"Make it {given} wide, or change what comes before it."
