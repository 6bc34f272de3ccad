"""Grad-CAM by Captum (Selvaraju et al. 2017): how much each place of a network's last map speaks for a class."""

from __future__ import annotations

import math

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import nn

from rehead.bundle import Head
from rehead.errors import BackboneError
from rehead.nets.backbone import Backbone
from rehead.nets.chain import HEAD, POOL
from rehead.nets.heads import module_from_head

N_DIMS_OF_TOKENS, N_DIMS_OF_A_MAP = 2, 3


class Turned(nn.Module):
    """Activations with channels at `place` of their dimensions -> the same with channels where Captum looks for them, at 1."""

    def __init__(self, piece: nn.Module, place: int) -> None:
        super().__init__()
        self.piece, self.place = piece, place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.piece(x).movedim(self.place, 1)


class Back(nn.Module):
    """The opposite of what `Turned` did, before a piece that takes activations as they were."""

    def __init__(self, piece: nn.Module, place: int) -> None:
        super().__init__()
        self.piece, self.place = piece, place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.piece(x.movedim(1, self.place))


def grad_cam(backbone: Backbone, head: Head, images: torch.Tensor, target: int) -> NDArray[np.float32]:
    """(rows, columns), of one image (1, 3, h, w), normalised. target: the class's place among the head's outputs.

    Raises BackboneError where no layer of the network has places.
    """
    layer, shape = _last_with_places(backbone)
    is_map = len(shape) == N_DIMS_OF_A_MAP
    channels_last = not is_map or getattr(backbone.network, "output_fmt", "NCHW") == "NHWC"
    place = len(shape) if channels_last else 1
    front = Turned(backbone.cut_at(layer, pooled=False)[0], place)
    network = nn.Sequential(front, Back(backbone.suffix(layer), place), module_from_head(head)).eval()
    found = LayerGradCam(network, front).attribute(images, target=target)[0, 0].detach().numpy()
    if is_map:
        return np.asarray(found, np.float32)
    side = math.isqrt(len(found))
    return np.asarray(found[len(found) - side * side :].reshape(side, side), np.float32)  # class tokens stand first


def _last_with_places(backbone: Backbone) -> tuple[str, tuple[int, ...]]:
    for layer in reversed(backbone.layers):
        if layer.name in (POOL, HEAD):
            continue
        n_places = np.prod(layer.shape[1:]) if len(layer.shape) == N_DIMS_OF_A_MAP else layer.shape[0]
        if len(layer.shape) in (N_DIMS_OF_TOKENS, N_DIMS_OF_A_MAP) and n_places > 1:
            return layer.name, layer.shape
    raise BackboneError(what=f"No layer of {backbone.name} has places.")
