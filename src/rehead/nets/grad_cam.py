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
from rehead.nets.places import places_of


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
    layer, places = _last_with_places(backbone)
    place = 1 + len(places) if 0 in places else 1
    front = Turned(backbone.cut_at(layer, pooled=False)[0], place)
    network = nn.Sequential(front, Back(backbone.suffix(layer), place), module_from_head(head)).eval()
    found = LayerGradCam(network, front).attribute(images, target=target)[0, 0].detach().numpy()
    if len(places) == 2:
        return np.asarray(found, np.float32)
    side = math.isqrt(len(found))
    return np.asarray(found[len(found) - side * side :].reshape(side, side), np.float32)  # class tokens stand first


def _last_with_places(backbone: Backbone) -> tuple[str, tuple[int, ...]]:
    """The name of the last layer that gives something for several places, and which dimensions those are."""
    size = backbone.preprocess.height, backbone.preprocess.width
    is_last = getattr(backbone.network, "output_fmt", "NCHW") == "NHWC"
    for layer in reversed(backbone.layers):
        places = places_of(layer.shape, size, channels_last=is_last)
        if layer.name not in (POOL, HEAD) and math.prod(layer.shape[i] for i in places) > 1:
            return layer.name, places
    raise BackboneError(what=f"No layer of {backbone.name} has places.")
