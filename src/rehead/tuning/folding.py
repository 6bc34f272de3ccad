"""Norms with frozen statistics computed inside the convolutions before them while layers learn.

Such a norm scales and shifts each channel by numbers of its own, so convolution and norm are one convolution whose weights
are a product (Jacob et al. 2018, section 3.2, without quantisation). Learning through the product gives the gradients of
both, weight, scale and shift, up to rounding; what the norm would read and write for each photo is neither computed nor
kept for the way back. All products of a step are made at once: a device is asked for less, which takes time of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from rehead.nets.graph import Normed

Tensors = Sequence[torch.Tensor]


class Folding:
    """Of these norms those whose weights all learn, inside the convolutions before them, with the statistics of now."""

    def __init__(self, model: nn.Module, pairs: Sequence[Normed]) -> None:
        inside = set(model.modules())
        self._model = model
        self._pairs = [p for p in pairs if inside.issuperset(p) and all(w.requires_grad for w in _weights(p))]
        self._fold = _Fold(self._pairs) if self._pairs else None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it they are where the model is called, whatever their mode. Parameters are where they were, under their
        names."""
        if (fold := self._fold) is None:
            yield
            return
        hooks = (
            self._model.register_forward_pre_hook(fold.begin),
            self._model.register_forward_hook(fold.end, always_call=True),
        )
        modules = [*chain.from_iterable(self._pairs)]
        own = {module: vars(module)["forward"] for module in modules if "forward" in vars(module)}
        try:
            for place, (convolution, norm) in enumerate(self._pairs):
                _replace(convolution, fold.instead(place, convolution))
                _replace(norm, _behind(norm))
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for module in modules:
                vars(module).pop("forward", None)
            for module, forward in own.items():
                _replace(module, forward)


class _Fold:
    """The products of one call of the model, from its begin to its end."""

    def __init__(self, pairs: Sequence[Normed]) -> None:
        self._pairs = pairs
        self._one_over_std = torch.cat([(_there(norm.running_var) + norm.eps).rsqrt() for _, norm in pairs])
        self._mean = torch.cat([_there(norm.running_mean) for _, norm in pairs])
        self._whole: list[dict[str, torch.Tensor]] = []

    def begin(self, *_: object) -> None:
        weights, gammas, betas = zip(*map(_weights, self._pairs), strict=True)
        device = self._mean.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self._mean.dtype
        made = _Products.apply(kind, self._one_over_std, self._mean, *weights, *gammas, *betas)
        self._whole = [
            {"weight": w, "bias": b} for w, b in zip(made[: len(weights)], made[len(weights) :], strict=True)
        ]

    def end(self, *_: object) -> None:
        self._whole = []

    def instead(self, place: int, convolution: nn.Conv2d) -> Callable[[torch.Tensor], torch.Tensor]:
        """What the convolution does with the products. As `torch.func.functional_call` it lays them where its own code finds
        them, but a bias may be new."""
        forward = convolution.forward

        def convolve(x: torch.Tensor) -> torch.Tensor:
            kept, laid = convolution._parameters, vars(convolution)
            laid["_parameters"] = self._whole[place]
            try:
                return forward(x)
            finally:
                laid["_parameters"] = kept

        return convolve


class _Products(torch.autograd.Function):
    """(weights * scale, shift) of n convolutions, where scale = gamma / std and shift = beta - mean * scale.

    Takes the kind of numbers that is wanted, 1 / std and mean of all channels in a row, then n weights, n gammas and n betas;
    gives n weights and n biases.
    """

    @staticmethod
    def forward(
        ctx: Any, kind: torch.dtype, one_over_std: torch.Tensor, mean: torch.Tensor, *all_: torch.Tensor
    ) -> Any:
        n = len(all_) // 3
        weights, gammas, betas = all_[:n], all_[n : 2 * n], all_[2 * n :]
        scale = torch.cat(gammas) * one_over_std
        shift = torch.cat(betas).addcmul_(mean, scale, value=-1).to(kind)
        widths = [len(gamma) for gamma in gammas]
        scales = _by_channel(scale, widths)
        ctx.save_for_backward(one_over_std, mean, scale, *weights)
        ctx.widths = widths
        made = [torch.mul(w, s, out=torch.empty_like(w, dtype=kind)) for w, s in zip(weights, scales, strict=True)]
        return *made, *shift.split(widths)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        one_over_std, mean, scale, *weights = ctx.saved_tensors
        n = len(weights)
        of_weights = [g * s for g, s in zip(gradients[:n], _by_channel(scale, ctx.widths), strict=True)]
        of_scale = torch.cat([(g * w).sum((1, 2, 3)) for g, w in zip(gradients[:n], weights, strict=True)])
        of_shift = torch.cat(gradients[n:]).to(scale.dtype)
        of_gamma = (of_scale - mean * of_shift) * one_over_std
        return None, None, None, *of_weights, *of_gamma.split(ctx.widths), *of_shift.split(ctx.widths)


def _weights(pair: Normed) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
    convolution, norm = pair
    return convolution.weight, norm.weight, norm.bias


def _by_channel(row: torch.Tensor, widths: list[int]) -> Tensors:
    return [part[:, None, None, None] for part in row.split(widths)]


def _there(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None, "the norm keeps no statistics"
    return tensor


def _replace(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
    vars(module)["forward"] = forward


def _behind(norm: nn.BatchNorm2d) -> Callable[[torch.Tensor], torch.Tensor]:
    """What is left of the norm: timm's have an activation in them."""
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if isinstance(part, nn.Module)]
    return nn.Sequential(*rest).forward
