"""A network cut at a named layer: below it the prefix, which stays frozen and gives pooled features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from rehead.errors import UnknownLayer, nearest

POOL = "pool"  # all up to and including global pooling: what the classifier sees


class Pooled(nn.Module):
    """The whole network but its classifier: (n, 3, h, w) normalised -> (n, width)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(images)
        return self.network.forward_head(features, pre_logits=True).flatten(1)


class PooledAt(nn.Module):
    """The network up to one layer's output, averaged over space or tokens: (n, 3, h, w) normalised -> (n, width)."""

    def __init__(self, graph: nn.Module, layer: str, channels_last: bool) -> None:
        super().__init__()
        self.graph, self.layer, self.channels_last = graph, layer, channels_last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.graph(images)[self.layer]
        if features.ndim == 4:
            return features.mean((1, 2) if self.channels_last else (2, 3))
        return features.mean(1) if features.ndim == 3 else features


def prefix_of(network: nn.Module, cut: str) -> nn.Module:
    """The prefix of a timm network: (n, 3, h, w) float32, normalised -> (n, width) float32.

    cut: "pool", or the name of a layer, whose output is then averaged. Raises UnknownLayer, which lists the layers.
    """
    if cut == POOL:
        return Pooled(network).eval()
    names = [name for name, _ in network.named_modules() if name]
    if cut not in names:
        raise UnknownLayer(
            what=f"No layer is called {cut!r}.",
            why=f"This backbone has, in order: {', '.join(layers_of(network))}.",
            fix=nearest(cut, names) or "Pass one of these names as --cut.",
        )
    from timm.layers import create_feature_extractor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision warns that training mode traces otherwise; only eval is used
        graph = create_feature_extractor(network.eval(), {cut: cut})
    return PooledAt(graph, cut, getattr(network, "output_fmt", "NCHW") == "NHWC").eval()


def layers_of(network: nn.Module) -> Sequence[str]:
    """The stages a person would name, in order of data flow, "pool" last."""
    stages = [info["module"] for info in getattr(network, "feature_info", None) or [] if info.get("module")]
    children = [name for name, _ in network.named_children()]
    return [*dict.fromkeys(stages or children), POOL]
