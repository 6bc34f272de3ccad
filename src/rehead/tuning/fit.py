"""A module of one's own, tuned on batches of one's own: the tutorial's loop, with what it leaves to luck checked.

Only the parameters asked for learn, the rest is bit for bit as before. Leading modules of a chain that do not learn are
run once for each batch, not once an epoch. Jobs on stored features are left to `train.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rehead.errors import EngineError, RecipeError
from rehead.tuning.checks import check_loss
from rehead.tuning.modes import learning, set_modes

KEPT_BYTES = 2 << 30  # outputs of frozen modules that are kept between epochs
Batch = tuple[torch.Tensor, torch.Tensor]


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    train: nn.Module | Iterable[nn.Parameter] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 1e-3,
    epochs: int = 2,
    device: str = "auto",
    norm: str = "frozen",
    on_epoch: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Tunes `model` in place by the cross-entropy of its logits and gives the mean loss (nats) of each epoch.

    batches: of (images, labels), all gone through once an epoch: images as the model takes them, labels one-hot (n, k) or
    class numbers (n,). train: what learns, a part of the model or its parameters; all of it by default. optimizer: called
    with the parameters and lr. device: "auto", "cpu", "cuda" or "mps"; the model comes back on the CPU, in eval mode.
    norm: "frozen" keeps the statistics of normalisation layers, "adapt" lets those of `train` follow the batches.
    on_epoch: told the epoch, from 1, and its loss.
    Raises RecipeError when nothing learns or a layer's width does not fit, Diverged when the loss is not a number.
    """
    names = learning(model, train)
    target = torch.device(_chosen(device))
    model.to(target)
    set_modes(model, names, norm)
    parameters = [p for name, p in model.named_parameters() if name in names]
    steps = optimizer(parameters, lr=lr)
    frozen, rest = _leading(model)
    source = _Once(batches, frozen, target)
    losses = []
    try:
        for epoch in range(1, epochs + 1):
            total, n = 0.0, 0
            for step, (x, y) in enumerate(source):
                with checked_widths(model) if epoch == 1 and step == 0 else _nothing():
                    loss = F.cross_entropy(rest(x), y)
                steps.zero_grad(set_to_none=True)
                loss.backward()
                steps.step()
                mean = float(loss.detach())
                check_loss(mean, f"in epoch {epoch}, batch {step + 1}", lr)
                total, n = total + mean * len(x), n + len(x)
            if not n:
                raise RecipeError(
                    what="There are no batches to fit on.", fix="A generator can be gone through once: pass a list."
                )
            losses.append(total / n)
            if on_epoch is not None:
                on_epoch(epoch, losses[-1])
    finally:
        model.to("cpu").eval().requires_grad_(True)
    return losses


@contextmanager
def checked_widths(model: nn.Module) -> Iterator[None]:
    """Within it, a dense layer that is given another width than its own raises RecipeError, which names both."""
    handles = []

    def hook(name: str) -> Callable[..., None]:
        def check(layer: nn.Linear, inputs: tuple[Any, ...]) -> None:
            if inputs and inputs[0].shape[-1] != layer.in_features:
                raise RecipeError(
                    what=f"The layer {name or 'given'} takes {layer.in_features} features, but is given {inputs[0].shape[-1]}.",
                    why=f"What comes before it gives {tuple(inputs[0].shape)}, the photos first.",
                    fix=f"Make it nn.Linear({inputs[0].shape[-1]}, {layer.out_features}), or pool and flatten before it.",
                )

        return check

    try:
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                handles.append(layer.register_forward_pre_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _chosen(device: str) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(device.split(":")[0], False):
        names = ", ".join(name for name in there if there[name])
        raise EngineError(what=f"There is no device {device} here.", why=f"PyTorch sees: {names}.")
    return device


def _leading(model: nn.Module) -> tuple[nn.Module | None, nn.Module]:
    """The leading modules of a chain that hold nothing that learns, and the rest."""
    if not isinstance(model, nn.Sequential):
        return None, model
    n = next((i for i, m in enumerate(model) if any(p.requires_grad for p in m.parameters())), 0)
    return (model[:n], model[n:]) if n else (None, model)


class _Once:
    """Batches on the device, behind the frozen modules; kept, where they come from a list and fit into KEPT_BYTES."""

    def __init__(self, batches: Iterable[Batch], frozen: nn.Module | None, device: torch.device) -> None:
        self._batches, self._frozen, self._device = batches, frozen, device
        self._may_keep = frozen is not None and isinstance(batches, Sequence)
        self._kept: dict[int, torch.Tensor] = {}
        self._kept_bytes = 0

    def __iter__(self) -> Iterator[Batch]:
        for i, (images, labels) in enumerate(self._batches):
            if i not in self._kept:
                x = images.to(self._device)
                if self._frozen is not None:
                    with torch.no_grad():
                        x = self._frozen(x)
                size_bytes = x.numel() * x.element_size()
                if self._may_keep and self._kept_bytes + size_bytes <= KEPT_BYTES:
                    self._kept[i], self._kept_bytes = x, self._kept_bytes + size_bytes
            else:
                x = self._kept[i]
            yield x, labels.to(self._device)
