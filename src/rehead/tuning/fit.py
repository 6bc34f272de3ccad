"""A module of one's own, tuned on batches of one's own: the tutorial's loop, with what it leaves to luck checked.

Only the parameters asked for learn, the rest is bit for bit as before. Leading modules of a chain that do not learn are
run once for each batch, not once an epoch, unless they are of chance. Jobs on stored features are left to `train.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from rehead.ambient import gradients
from rehead.errors import EngineError, RecipeError
from rehead.tuning.checks import check_loss
from rehead.tuning.modes import learning, set_modes

VARYING = (_DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
NEAR_ONE = 1e-2  # of a sum of shares, which may be in bfloat16
KEPT_BYTES = 2 << 30  # outputs of frozen modules that are kept between epochs
Batch = tuple[torch.Tensor, torch.Tensor]


@gradients()
def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    train: nn.Module | Iterable[nn.Module | nn.Parameter] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 1e-3,
    epochs: int = 2,
    device: str | torch.device = "auto",
    norm: str = "frozen",
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Tunes `model` in place by the cross-entropy of its logits and gives the mean loss (nats) of each epoch.

    batches: of (images, labels), all gone through once an epoch: images as the model takes them, labels one-hot (n, k) or
    class numbers (n,). train: what learns, parts of the model or parameters; all of it by default. optimizer: called
    with the parameters and lr. device: "auto", "cpu", "cuda" or "mps"; the model comes back on the CPU, in eval mode, without
    gradients of what learned, and what required one before does so again. norm: "frozen" keeps the statistics of normalisation
    layers, "adapt" lets those of `train` follow the batches. on_epoch: told the epoch, from 1, and its loss.
    Raises RecipeError when nothing learns, the optimizer is made already or wants a closure, a batch or a layer's width does
    not fit, Diverged when the loss is not a number; the weights are then those before that step.
    """
    _check_arguments(optimizer, epochs, norm, lr)
    names = learning(model, train)
    target = torch.device(_chosen(str(device)))
    asked_for = {name for name, p in model.named_parameters() if p.requires_grad}
    losses = []
    try:
        model.to(target)
        set_modes(model, names, norm)
        steps = optimizer([p for name, p in model.named_parameters() if name in names], lr=lr)
        _check_step(steps)
        frozen, rest = _leading(model)
        source = _Once(batches, frozen, target)
        for epoch in range(1, epochs + 1):
            total, n = 0.0, 0
            with checked_widths(model) if epoch == 1 else nullcontext():
                for step, (x, y) in enumerate(source, 1):
                    logits = rest(x)
                    check_labels(y, logits, len(x), step)
                    loss = F.cross_entropy(logits, y)
                    mean = float(loss.detach())
                    check_loss(mean, f"in epoch {epoch}, batch {step}", lr)
                    steps.zero_grad(set_to_none=True)
                    loss.backward()
                    steps.step()
                    total, n = total + mean * len(x), n + len(x)
            if not n:
                raise RecipeError(
                    what="There are no batches to fit on.",
                    fix="Pass a list of (images, labels)"
                    + ("." if isinstance(batches, Sequence) else "; a generator can be gone through once."),
                )
            losses.append(total / n)
            if on_epoch is not None:
                on_epoch(epoch, losses[-1])
    finally:
        model.to("cpu").eval()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in asked_for)
            if name in names:
                parameter.grad = None
    return losses


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


def _check_arguments(optimizer: object, epochs: int, norm: str, lr: float) -> None:
    if isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise RecipeError(
            what=f"optimizer= is one that is made already: {kind}.",
            why="It is made here, of the parameters that learn and lr=.",
            fix=f"Pass what makes it: optimizer=torch.optim.{kind}, lr=1e-3",
        )
    if epochs < 1:
        raise RecipeError(what=f"epochs is {epochs}; there is one at least.", fix="For example: epochs=2")
    if norm not in ("frozen", "adapt"):
        raise RecipeError(what=f"norm cannot be {norm!r}.", fix="One of: frozen, adapt.")
    if not lr > 0:
        raise RecipeError(what=f"lr is {lr}; a learning rate is over 0.", fix="For example: lr=1e-3")


def _check_step(optimizer: torch.optim.Optimizer) -> None:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise RecipeError(
            what=f"optimizer= is {type(optimizer).__name__}, which wants a closure: it computes the loss several times a step.",
            why="Here each batch is one gradient and one step.",
            fix="For example: optimizer=torch.optim.SGD",
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


def _chosen(device: str) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(device.split(":")[0], False):
        names = ", ".join(name for name in there if there[name])
        raise EngineError(what=f"There is no device {device} here.", why=f"PyTorch sees: {names}.")
    return device


def _leading(model: nn.Module) -> tuple[nn.Module | None, nn.Module]:
    """The leading modules of a chain that hold nothing that learns and give the same each time, and the rest."""
    if not isinstance(model, nn.Sequential) or not _is_plain(model):
        return None, model
    parts = list(model)
    n = next((i for i, m in enumerate(parts) if any(p.requires_grad for p in m.parameters()) or _may_vary(m)), 0)
    return (nn.Sequential(*parts[:n]), nn.Sequential(*parts[n:])) if n else (None, model)


def _is_plain(model: nn.Sequential) -> bool:
    """Whether it does nothing but run its modules one after another: a subclass may, and so may hooks."""
    runs = getattr(model.forward, "__func__", None)
    return runs is nn.Sequential.forward and not (model._forward_pre_hooks or model._forward_hooks)


def _may_vary(module: nn.Module) -> bool:
    """Whether it may give others for the same photos: dropout, and what is not PyTorch's own, in training mode."""
    own = nn.Module.__module__.rpartition(".")[0]
    return any(
        part.training and (isinstance(part, VARYING) or not type(part).__module__.startswith(own))
        for part in module.modules()
    )


class _Once:
    """Batches on the device, behind the frozen modules; kept, where they come from a list and fit into KEPT_BYTES. Each is
    given as a copy: layers that work in place write into it."""

    def __init__(self, batches: Iterable[Batch], frozen: nn.Module | None, device: torch.device) -> None:
        self._batches, self._frozen, self._device = batches, frozen, device
        self._may_keep = frozen is not None and isinstance(batches, Sequence)
        self._kept: dict[int, torch.Tensor] = {}
        self._kept_bytes = 0

    def __iter__(self) -> Iterator[Batch]:
        for i, batch in enumerate(self._batches):
            images, labels = pair_of(batch, i + 1)
            if i not in self._kept:
                check_images(images, i + 1)
                x = images.to(self._device, copy=True)
                if self._frozen is not None:
                    with torch.no_grad():
                        x = self._frozen(x)
                size_bytes = x.numel() * x.element_size()
                if self._may_keep and self._kept_bytes + size_bytes <= KEPT_BYTES:
                    self._kept[i], self._kept_bytes = x, self._kept_bytes + size_bytes
            else:
                x = self._kept[i]
            yield x.clone() if i in self._kept else x, labels.to(self._device)
