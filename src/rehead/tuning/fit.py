"""A module of one's own, tuned on batches of one's own: the tutorial's loop, with what it leaves to luck checked.

Only the parameters asked for learn, the rest is bit for bit as before. Leading modules of a chain that do not learn are
run once for each batch, not once an epoch, unless they are of chance. What must hold of batches is `given.py`'s; jobs on
stored features are left to `train.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from rehead.ambient import gradients
from rehead.errors import EngineError, RecipeError
from rehead.tuning.checks import check_loss
from rehead.tuning.given import check_images, check_labels, checked_widths, pair_of
from rehead.tuning.modes import learning, set_modes

VARYING = (_DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
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
    hooks = model._forward_pre_hooks, model._forward_hooks, model._backward_pre_hooks, model._backward_hooks
    return runs is nn.Sequential.forward and not any(hooks)


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
            labels = labels.float() if labels.dtype == torch.float64 else labels  # which Apple's GPUs have not
            yield x.clone() if i in self._kept else x, labels.to(self._device)
