"""Depthwise convolutions while layers learn in bfloat16 on a CPU: two of their gradients are taken in float32.

PyTorch has fast kernels for what they give and for most of their gradients; that of the input where the stride is above one,
and that of the weights where the kernel is larger than 3, fall back to plain loops in bfloat16: 2 to 100 times as long as in
float32 (torch 2.15). By them alone a network such as EfficientNet would learn more slowly in bfloat16 than in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class DepthwiseGradients(TorchFunctionMode):
    """Within it, depthwise convolutions of images are computed in bfloat16, and their gradients as fast as can be. Others, and
    those with padding in words, are left as they are."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """As torch.conv2d, by whose names it is called."""
    if groups == 1 or groups != input.shape[1] or input.ndim != 4 or isinstance(padding, str):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    tensors = (input, weight) if bias is None else (input, weight, bias)
    settings = _pair(stride), _pair(padding), _pair(dilation), groups
    convolved: torch.Tensor = _Depthwise.apply(settings, *(t.to(torch.bfloat16) for t in tensors))
    return convolved


class _Depthwise(torch.autograd.Function):
    """Takes stride, padding, dilation and groups, then input (n, c, h, w), weight (c * m, 1, k, k), perhaps bias (c * m,)."""

    @staticmethod
    def forward(ctx: Any, settings: tuple[Pair, Pair, Pair, int], *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors[:2])
        ctx.settings = settings
        return torch.conv2d(*tensors, *([None] if len(tensors) == 2 else []), *settings)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x, of_weight, *of_bias = ctx.needs_input_grad[1:]
        stride = ctx.settings[0]
        found: list[torch.Tensor | None] = [None, None]
        if of_x:
            found[0] = _gradient(ctx, (gradient, x, weight), 0, in_float32=max(stride) > 1)
        if of_weight:
            found[1] = _gradient(ctx, (gradient, x, weight), 1, in_float32=max(weight.shape[2:]) > 3)
        return None, *found, *([gradient.sum((0, 2, 3)) if of_bias[0] else None] if of_bias else [])


def _gradient(ctx: Any, tensors: tuple[torch.Tensor, ...], which: int, *, in_float32: bool) -> torch.Tensor:
    stride, padding, dilation, groups = ctx.settings
    kind = tensors[0].dtype
    if in_float32:
        tensors = tuple(t.float() for t in tensors)
    wanted = [i == which for i in range(3)]
    found: torch.Tensor = torch.ops.aten.convolution_backward(
        *tensors, None, stride, padding, dilation, False, (0, 0), groups, wanted
    )[which]
    return found.to(kind)


def _pair(setting: Any) -> Pair:
    one, other = (setting, setting) if isinstance(setting, int) else (setting[0], setting[-1])
    return one, other
