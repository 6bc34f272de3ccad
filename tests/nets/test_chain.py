"""Networks taken apart: for every cut the pieces are the whole, whatever the family, and keep the network's names."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

import rehead
from rehead.errors import BackboneError, UnknownLayer
from rehead.nets.backbone import Backbone, load_backbone
from rehead.nets.chain import Chain
from rehead.nets.cut import Pooled, prefix_of, suffix_of
from rehead.tuning.modes import set_modes

FAMILIES = (
    "resnet18", "resnet50", "tf_efficientnet_lite0", "mobilenetv3_large_100", "vgg11", "densenet121", "convnext_atto",
    "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "maxvit_nano_rw_256",
    "eva02_tiny_patch14_224", "vit_small_patch16_dinov3", "regnety_002", "mixer_s16_224", "resmlp_12_224",
    "poolformer_s12", "mobilevit_xxs", "efficientformer_l1", "levit_128s", "xcit_nano_12_p16_224", "hrnet_w18_small",
    "inception_v3", "res2net50_26w_4s", "dla34", "ghostnet_100", "repvgg_a0", "fastvit_t8", "edgenext_xx_small",
    "nfnet_l0", "rexnet_100", "pvt_v2_b0", "twins_svt_small", "volo_d1_224", "shvit_s1", "efficientvit_m0", "caformer_s18",
    "repvit_m0_9", "pit_ti_distilled_224",
)  # fmt: skip

WITH_MORE = (
    "deit_tiny_distilled_patch16_224",
    "pit_ti_distilled_224",
    "volo_d1_224",
)  # whose heads take more than is pooled

HEAVY = (  # seconds each, in the default run left to the others
    "densenet121", "maxvit_nano_rw_256", "xcit_nano_12_p16_224", "hrnet_w18_small", "inception_v3", "res2net50_26w_4s",
    "dla34", "twins_svt_small", "volo_d1_224", "caformer_s18",
)  # fmt: skip
SHARED_OUT = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in FAMILIES]


def whole(name: str) -> tuple[nn.Module, Chain, torch.Tensor]:
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):  # with what it begins with it does nothing
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    size = network.pretrained_cfg["input_size"][1:]
    return network, Chain(network, size), torch.randn(2, 3, *size)


@pytest.mark.parametrize("name", SHARED_OUT)
@pytest.mark.long
def test_pieces_one_after_the_other_are_the_network(name: str) -> None:
    network, chain, images = whole(name)
    owned = dict(network.named_parameters())
    with torch.inference_mode():
        value, before = images, -1
        for layer in chain.at_depth(2):
            if before == chain.pooled:
                torch.testing.assert_close(value.flatten(1), Pooled(network)(images), atol=1e-5, rtol=1e-5)
            if before == chain.pooled and name in WITH_MORE:
                with pytest.raises(UnknownLayer, match="head of this network cannot be taken alone"):
                    chain.piece(before, layer.end)
                below = chain[:-2](images)
                torch.testing.assert_close(chain[-2:](below), network(images), atol=1e-5, rtol=1e-5)
                return
            piece = chain.piece(before, layer.end)
            value, before = piece(value), layer.end
            assert tuple(value.shape[1:]) == layer.shape
            assert all(owned[path] is parameter for path, parameter in piece.named_parameters())
        torch.testing.assert_close(value, network(images), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_for_every_cut_prefix_then_suffix_is_the_network(name: str) -> None:
    network, chain, images = whole(name)
    with torch.inference_mode():
        wanted, pooled = network(images), Pooled(network)(images)
        for layer in chain.at_depth(2)[:-1]:
            below = chain.piece(-1, layer.end)(images)
            if layer.end < chain.pooled:
                got = chain.piece(layer.end, chain.pooled)(below).flatten(1)
                torch.testing.assert_close(got, pooled, atol=1e-5, rtol=1e-5)
            if layer.end < chain.pooled or name not in WITH_MORE:
                got = chain.piece(layer.end, chain.layers[-1].end)(below)
                torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["shvit_s1", "efficientvit_m0", "repvit_m0_9", "deit_tiny_distilled_patch16_224"])
def test_what_learns_behind_a_cut_ends_where_the_whole_network_does_without_its_head(name: str) -> None:
    network, chain, images = whole(name)
    cut = chain.layers[-3].name
    with torch.inference_mode():
        got = suffix_of(chain, cut)(prefix_of(network, cut, chain=lambda: chain, pooled=False)(images))
        torch.testing.assert_close(got, Pooled(network)(images), atol=1e-5, rtol=1e-5)
    assert [layer.name for layer in chain.layers[-2:]] == ["pool", "head"]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", "stem layer1 layer2 layer3 layer4 pool head"),
        ("tf_efficientnet_lite0", "stem " + " ".join(f"blocks.{i}" for i in range(7)) + " conv_head pool head"),
        ("vit_tiny_patch16_224", "stem " + " ".join(f"blocks.{i}" for i in range(12)) + " pool head"),
        ("convnext_atto", "stem stages.0 stages.1 stages.2 stages.3 pool head"),
        ("regnety_002", "stem s1 s2 s3 s4 pool head"),
        ("nfnet_l0", "stem stages.0 stages.1 stages.2 stages.3 final_conv pool head"),
        ("vit_small_patch16_dinov3", "stem " + " ".join(f"blocks.{i}" for i in range(12)) + " pool head"),
        ("efficientvit_b0", "stem stages.0 stages.1 stages.2 stages.3 head.in_conv pool head"),
    ],
)
def test_layers_are_the_stages_a_person_would_name(name: str, layers: str) -> None:
    assert [layer.name for layer in whole(name)[1].layers] == layers.split()


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return rehead.backbone("resnet18", pretrained=False)


def test_layers_know_their_shapes_parameters_and_cost(resnet: Backbone) -> None:
    layer4, pool, head = resnet.layers[-3:]
    assert (layer4.shape, pool.shape, head.shape) == ((512, 7, 7), (512,), (1000,))
    assert sum(layer.parameters for layer in resnet.layers) == sum(p.numel() for p in resnet.network.parameters())
    assert head.parameters == 513_000
    assert head.macs == 512_000
    assert sum(layer.macs for layer in resnet.layers) == pytest.approx(1.814e9, rel=1e-3)  # as published for ResNet-18


def test_a_slice_is_what_python_means_by_it(resnet: Backbone) -> None:
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        maps = resnet[:-2](images)
        assert maps.shape == (1, 512, 7, 7)
        assert torch.equal(resnet[:"pool"](images), maps)
        assert torch.equal(resnet["layer3":](resnet[:"layer3"](images)), resnet.network(images))
        assert torch.equal(resnet["pool"](maps), resnet[5](maps))
        assert torch.equal(resnet[-3](resnet[:4](images)), maps)
        assert torch.equal(resnet[-100:100:1](images), resnet.network(images))
        x = images
        for layer in resnet:
            x = layer(x)
        assert torch.equal(x, resnet.network(images))
    assert "layer4" in resnet
    assert "layer5" not in resnet
    assert repr(resnet) == "<resnet18: stem, layer1, layer2, layer3, layer4, pool, head>"


def test_finer_layers_can_be_cut_at_by_name(resnet: Backbone) -> None:
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        below, above = resnet[:"layer4.1"], resnet["layer4.1":]
        assert torch.equal(above(below(images)), resnet.network(images))
    assert "layer4.0" in [layer.name for layer in resnet.chain.at_depth(2)]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ({"layer4.1"}, "stem layer1 layer2 layer3 layer4.0 layer4.1 pool head"),
        ({"layer1.0", "layer3.1"}, "stem layer1.0 layer1.1 layer2 layer3.0 layer3.1 layer4 pool head"),
        ({"layer1.0", "layer1", "layer4.1"}, "stem layer1 layer2 layer3 layer4.0 layer4.1 pool head"),
        ({"layer4", "none", "layer9.1"}, "stem layer1 layer2 layer3 layer4 pool head"),
    ],
)
def test_layers_are_opened_where_a_part_of_them_is_named(resnet: Backbone, names: set[str], parts: str) -> None:
    layers = resnet.chain.opened_at(names)
    assert [layer.name for layer in layers] == parts.split()
    assert sum(layer.parameters for layer in layers) == sum(layer.parameters for layer in resnet.layers)


def test_an_unknown_layer_names_the_nearest(resnet: Backbone) -> None:
    with pytest.raises(UnknownLayer) as error:
        resnet[:"layr3"]
    assert "'layr3'" in error.value.what
    assert "stem, layer1, layer2, layer3, layer4, pool, head" in error.value.why
    assert "layer3" in error.value.fix


def test_a_cut_that_several_tensors_cross_is_refused_with_the_reason(resnet: Backbone) -> None:
    with pytest.raises(UnknownLayer) as error:
        resnet["layer1.0.conv1"]
    assert "2 tensors cross there" in error.value.why


@pytest.mark.parametrize("which", [7, -8, slice(3, 3), slice(0, 4, 2), None, 1.5, [0, 1]])
def test_layers_that_are_not_there_are_refused(resnet: Backbone, which: Any) -> None:
    with pytest.raises(UnknownLayer):
        resnet[which]


def test_layers_without_known_weights_are_not_handed_out() -> None:
    half = load_backbone("resnet18", pretrained=False, cut="layer3")
    assert half[:"layer4"](torch.zeros(1, 3, 224, 224)).shape == (1, 256, 14, 14)
    with pytest.raises(BackboneError) as error:
        half[:"pool"]
    assert "beyond 'layer3'" in error.value.what
    assert '"layer4"' in error.value.fix


@pytest.mark.parametrize(
    ("name", "argument", "cut"),
    [
        ("resnet18", "drop_rate", "layer4"),
        ("test_vit", "attn_drop_rate", "blocks.4"),
    ],
)
def test_what_is_left_out_in_training_is_left_out_behind_a_cut_too(name: str, argument: str, cut: str) -> None:
    network = load_backbone(name, pretrained=False, arguments={argument: 0.5})
    shape = next(layer.shape for layer in network.layers if layer.name == cut)
    body, features = network.suffix(cut), torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.equal(body(features), body(features))
        body.train()
        assert not torch.equal(body(features), body(features))


def test_nothing_is_left_out_in_layers_that_do_not_learn() -> None:
    body = load_backbone("test_vit", pretrained=False, arguments={"attn_drop_rate": 0.5}).suffix("blocks.3")
    learn = {name for name, _ in body.named_parameters() if "blocks.5" in name}
    set_modes(body, learn)
    modes = [module.training for name, module in body.named_modules() if name.endswith("_by_mode")]
    assert modes == [False, True]


def test_a_network_that_keeps_what_it_computed_is_taken_apart_again() -> None:
    network, chain, images = whole("levit_128s")
    again = Chain(network, (224, 224))
    assert again.layers == chain.layers
    with torch.inference_mode():
        torch.testing.assert_close(again[:](images), network(images), atol=1e-5, rtol=1e-5)


def test_a_network_that_cannot_be_traced_is_named_with_the_reason() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward_head(x if x.sum() > 0 else -x)

        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return x.mean((2, 3)) if pre_logits else self.layer(x.mean((2, 3)))

    with pytest.raises(BackboneError) as error:
        Chain(Branching().eval(), (8, 8))
    assert "cannot be taken apart" in error.value.what
    assert "control flow" in error.value.why
