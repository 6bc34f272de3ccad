"""The new layers as PyTorch modules, and as the arrays of a `Head` and back."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from rehead.bundle import Activation, Head, Kind


def mlp_module(
    width: int, hidden: tuple[int, ...], n_classes: int, activation: Activation, *, seed: int
) -> nn.Sequential:
    """Dense layers width -> hidden... -> n_classes, with `activation` between them. The same seed, the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    widths = (width, *hidden, n_classes)
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        if i and activation == "relu":
            layers.append(nn.ReLU())
        layers.append(_dense(n_in, n_out, generator))
    return nn.Sequential(*layers)


def head_from_module(module: nn.Sequential, kind: Kind, activation: Activation) -> Head:
    """The arrays of a chain of dense layers, float32 on the CPU."""
    dense = [layer for layer in module if isinstance(layer, nn.Linear)]
    arrays = tuple((d.weight.detach().cpu().float().numpy(), d.bias.detach().cpu().float().numpy()) for d in dense)
    return Head(kind, arrays, activation)


def module_from_head(head: Head) -> nn.Sequential:
    """The head as a module: features (n, width) -> logits (n, n_classes)."""
    layers: list[nn.Module] = []
    for i, (weight, bias) in enumerate(head.layers):
        if i and head.activation == "relu":
            layers.append(nn.ReLU())
        dense = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(weight))
            dense.bias.copy_(torch.from_numpy(bias))
        layers.append(dense)
    return nn.Sequential(*layers)


def _dense(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """A dense layer with He's initialisation (He et al., 2015), from a generator of its own."""
    layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.normal_(0.0, math.sqrt(2.0 / n_in), generator=generator)
        layer.bias.zero_()
    return layer
