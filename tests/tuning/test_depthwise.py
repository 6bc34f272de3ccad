"""Depthwise convolutions in bfloat16 on a CPU: their gradients are those of float32, up to rounding; no others change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rehead.tuning.depthwise import DepthwiseGradients
from rehead.tuning.step import computing_in

CPU = torch.device("cpu")
WIDTH = 12


def gradients(model: nn.Module, x: torch.Tensor, dtype: torch.dtype, pull: torch.Tensor) -> list[torch.Tensor]:
    """The result, and the gradients of the input and of the parameters that learn, each in float32."""
    x = x.clone().requires_grad_()
    learning = [p for p in model.parameters() if p.requires_grad]
    with computing_in(dtype, CPU):
        y = model(x)
    return [y.detach().float(), *torch.autograd.grad((y.float() * pull).sum(), [x, *learning])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, (3, 5)])
@pytest.mark.parametrize(
    "settings", [{}, {"stride": 2}, {"padding": 2, "dilation": 2}, {"stride": (2, 1), "padding": (1, 0)},
                 {"padding": "same"}, {"padding_mode": "reflect", "padding": 1}]
)  # fmt: skip
@pytest.mark.parametrize("wider", [1, 2])
def test_gradients_are_those_of_float32(kernel: Any, settings: dict[str, Any], bias: bool, wider: int) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(WIDTH, wider * WIDTH, kernel, groups=WIDTH, bias=bias, **settings)
    x = torch.randn(3, WIDTH, 18, 18).to(memory_format=torch.channels_last)
    pull = torch.randn_like(model(x))
    for ours, exact in zip(
        gradients(model, x, torch.bfloat16, pull), gradients(model, x, torch.float32, pull), strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours - exact).abs().max() <= 0.03 * exact.abs().max()


def test_what_is_frozen_has_no_gradient() -> None:
    model = nn.Conv2d(WIDTH, WIDTH, 5, groups=WIDTH, stride=2)
    model.weight.requires_grad_(False)
    x = torch.randn(2, WIDTH, 9, 9)
    with computing_in(torch.bfloat16, CPU):
        model(x).float().sum().backward()
    assert model.weight.grad is None
    assert model.bias is not None
    assert model.bias.grad is not None
    with computing_in(torch.bfloat16, CPU), torch.inference_mode():
        assert model(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "model", [nn.Conv2d(WIDTH, 8, 3), nn.Conv2d(WIDTH, WIDTH, 3, groups=3), nn.ConvTranspose2d(WIDTH, 4, 3)]
)
def test_other_convolutions_are_computed_as_they_were(model: nn.Module) -> None:
    x = torch.randn(2, WIDTH, 9, 9)
    pull = torch.randn_like(model(x))
    ours = gradients(model, x, torch.bfloat16, pull)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    theirs = [y.detach().float(), *torch.autograd.grad((y.float() * pull).sum(), [x, *model.parameters()])]
    assert all(map(torch.equal, ours, theirs))


def test_it_is_by_names_too_and_single_pictures_are_left() -> None:
    x, weight = torch.randn(1, WIDTH, 9, 9), torch.randn(WIDTH, 1, 3, 3)
    with DepthwiseGradients():
        named = nn.functional.conv2d(groups=WIDTH, weight=weight, input=x, stride=1)
        single = nn.functional.conv2d(x[0], weight, groups=WIDTH)
    assert (named.dtype, single.dtype) == (torch.bfloat16, torch.float32)
    assert (named[0].float() - single).abs().max() < 0.05


@pytest.mark.parametrize(("kernel", "stride", "expected"), [(3, 1, set()), (5, 1, {"weight"}), (3, 2, {"input"}),
                                                            (5, 2, {"input", "weight"})])  # fmt: skip
def test_the_slow_gradients_alone_are_taken_in_float32(
    kernel: int, stride: int, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    plain = torch.ops.aten.convolution_backward

    def spy(gradient: torch.Tensor, *rest: Any) -> Any:
        if gradient.dtype == torch.float32:
            seen.add("input" if rest[-1][0] else "weight")
        return plain(gradient, *rest)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", spy)
    model = nn.Conv2d(WIDTH, WIDTH, kernel, stride=stride, groups=WIDTH)
    x = torch.randn(2, WIDTH, 9, 9)
    gradients(model, x, torch.bfloat16, torch.randn_like(model(x)))
    assert seen == expected
