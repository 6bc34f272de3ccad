"""Which dimensions are places: told by the shape, as networks turn their maps around without a word."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rehead.extraction import _pooled
from rehead.nets.backbone import sketch
from rehead.nets.cut import prefix_of
from rehead.nets.places import places_of
from rehead.pixels import Preprocess


@pytest.mark.parametrize(
    ("shape", "size", "places"),
    [
        ((64, 7, 7), (224, 224), (1, 2)),
        ((7, 7, 64), (224, 224), (0, 1)),
        ((6, 8, 10), (240, 300), (1, 2)),
        ((8, 10, 12), (240, 300), (0, 1)),
        ((8, 8, 8), (224, 224), (1, 2)),
        ((1, 1, 512), (224, 224), (0, 1)),
        ((512, 1, 1), (224, 224), (1, 2)),
        ((197, 192), (224, 224), (0,)),
        ((512,), (224, 224), ()),
    ],
)
def test_places_are_what_has_the_proportions_of_the_photo(
    shape: tuple[int, ...], size: tuple[int, int], places: tuple[int, ...]
) -> None:
    assert places_of(shape, size) == places


def test_where_the_shape_does_not_tell_the_network_does() -> None:
    assert places_of((8, 8, 8), (224, 224), channels_last=True) == (0, 1)
    assert places_of((64, 7, 7), (224, 224), channels_last=True) == (1, 2)


@pytest.mark.parametrize(
    ("name", "cut", "width"),
    [
        ("volo_d1_224", "network.0", 192),  # channels last, of which it says nothing
        ("samvit_base_patch16", "blocks.5", 768),
        ("swin_tiny_patch4_window7_224", "layers.1", 192),  # channels last, as it says
        ("vit_tiny_patch16_224", "blocks.3", 192),
        ("resnet18", "layer3", 256),
    ],
)
def test_a_cut_gives_a_number_for_each_channel(name: str, cut: str, width: int) -> None:
    chain = sketch(name, {})
    height = chain.network.pretrained_cfg["input_size"][1]
    features = prefix_of(chain.network, cut, chain=lambda: chain)(torch.empty(2, 3, height, height, device="meta"))
    assert features.shape == (2, width)


def test_features_are_pooled_for_the_first_number_as_for_the_head() -> None:
    preprocess = Preprocess(height=224, width=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    x = np.arange(2 * 7 * 7 * 5, dtype=np.float16).reshape(2, 7, 7, 5)
    np.testing.assert_allclose(_pooled(x, preprocess), x.astype(np.float32).mean((1, 2)))
    np.testing.assert_allclose(_pooled(x.transpose(0, 3, 1, 2), preprocess), x.astype(np.float32).mean((1, 2)))
    assert np.array_equal(_pooled(x[:, 0, 0], preprocess), x[:, 0, 0])
