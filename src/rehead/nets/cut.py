"""A network cut at a named layer: below it the prefix, which stays frozen, above it the suffix, which may be tuned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rehead.nets.chain import POOL, Chain
from rehead.nets.places import places_of


class Pooled(nn.Module):
    """The whole network but its classifier: (n, 3, h, w) normalised -> (n, width). Needs no tracing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(images)
        return self.network.forward_head(features, pre_logits=True).flatten(1)


class Averaged(nn.Module):
    """A piece of a network whose output is averaged over space or tokens: -> (n, width).

    channels_last: what a map is taken for whose shape does not tell.
    """

    def __init__(self, piece: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.piece, self.channels_last = piece, channels_last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.piece(images)
        shape, size = ([int(n) for n in x.shape[1:]] for x in (features, images[:, 0]))
        axes = [1 + axis for axis in places_of(shape, size, channels_last=self.channels_last)]
        return features.mean(axes) if axes else features


class Flat(nn.Module):
    """A piece of a network whose output is one row a photo, (n, width)."""

    def __init__(self, piece: nn.Module) -> None:
        super().__init__()
        self.piece = piece

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.piece(features).flatten(1)


def prefix_of(network: nn.Module, cut: str, *, chain: Callable[[], Chain], pooled: bool = True) -> nn.Module:
    """The prefix of a timm network: (n, 3, h, w) float32, normalised -> (n, width), or the layer's own output.

    cut: the last layer of the prefix. chain: the network taken apart, asked for only where that is needed.
    Raises UnknownLayer, which lists the layers.
    """
    if cut == POOL:
        return Pooled(network).eval()
    layers = chain()
    piece = layers.piece(-1, layers.place(cut)[1])
    return Averaged(piece, getattr(network, "output_fmt", "NCHW") == "NHWC").eval() if pooled else piece


def suffix_of(chain: Chain, cut: str) -> nn.Module:
    """What lies between the layer `cut` and the head: the prefix's own output -> pooled features (n, width), as of `Pooled`."""
    return Flat(chain.piece(chain.place(cut)[1], chain.pooled)).eval()
