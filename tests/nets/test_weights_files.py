"""Weights as people bring them: wrapped, renamed, cut short; and what the cut needs of them."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import WEIGHTS
from safetensors.torch import save_file

import rehead
from rehead.errors import BackboneError, WeightsMismatch, WeightsUnavailable
from rehead.exporting.prefixes import check_backbone, ready_prefix
from rehead.nets.backbone import load_backbone
from rehead.nets.card import Card, known_as, locate
from rehead.nets.heads import head_from_module, mlp_module, module_from_head
from rehead.nets.weights import NAME_IT, read_weights
from rehead.progress import Silent

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return dict(load_backbone("resnet18", pretrained=False, seed=3).network.state_dict())


def same_weights(path: Path, tensors: Tensors, **settings: object) -> bool:
    network = load_backbone("resnet18", weights=path, **settings).network  # type: ignore[arg-type]
    return all(torch.equal(t, tensors[n]) for n, t in network.state_dict().items() if n.startswith(("conv1", "layer3")))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_usual_wrappers_and_prefixes_are_taken_off(
    wrapper: str | None, prefix: str, tensors: Tensors, tmp_path: Path
) -> None:
    renamed = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({wrapper: renamed, "epoch": 3} if wrapper else renamed, tmp_path / "w.pth")
    assert same_weights(tmp_path / "w.pth", tensors)


@pytest.mark.parametrize("prefix", ["0.", "backbone.", "module.backbone."])
def test_a_network_in_a_larger_model_is_found(prefix: str, tensors: Tensors, tmp_path: Path) -> None:
    within = {prefix + name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    others = {f"head.{i}.weight": torch.zeros(3, 3) for i in range(5)}
    torch.save({"teacher": {**within, **others}}, tmp_path / "w.pth")
    assert same_weights(tmp_path / "w.pth", tensors)
    save_file({**within, **others}, tmp_path / "w.safetensors")
    assert same_weights(tmp_path / "w.safetensors", tensors)


def test_a_network_in_a_larger_model_that_lacks_a_layer_is_told_of_as_one_alone(
    tensors: Tensors, tmp_path: Path
) -> None:
    below = {f"backbone.{n}": t for n, t in tensors.items() if not n.startswith(("layer4", "fc"))}
    save_file({**below, "head.weight": torch.zeros(2, 256)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match="layer4") as error:
        load_backbone("resnet18", weights=tmp_path / "w.safetensors")
    assert "--cut layer3" in error.value.fix
    assert same_weights(tmp_path / "w.safetensors", tensors, cut="layer3")


def test_a_file_of_several_networks_gives_no_part_of_another(tmp_path: Path) -> None:
    larger = load_backbone("seresnet18", pretrained=False).network.state_dict()
    save_file({**{f"a.{n}": t for n, t in larger.items()}, "b.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match="are those of another network"):
        load_backbone("resnet18", weights=tmp_path / "w.safetensors")


def test_an_averaged_model_is_read_without_the_number_of_those_averaged(tensors: Tensors, tmp_path: Path) -> None:
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{name}": tensor for name, tensor in tensors.items()}}
    torch.save(averaged, tmp_path / "w.pth")
    assert "conv1.weight" in read_weights(tmp_path / "w.pth")
    assert same_weights(tmp_path / "w.pth", tensors)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "teacher"])
def test_a_checkpoint_with_numbers_as_tensors_beside_its_weights_is_read(
    wrapper: str, tensors: Tensors, tmp_path: Path
) -> None:
    """As PyTorch's own example for ImageNet writes it, by `best_acc1`."""
    torch.save({"epoch": 3, wrapper: tensors, "best_acc1": torch.tensor(71.2)}, tmp_path / "w.pth")
    assert same_weights(tmp_path / "w.pth", tensors)


@pytest.mark.parametrize("beside", [{"arch": "resnet18"}, {}, {"state_dict": {"step": 3}}])
def test_facts_of_a_model_beside_its_weights_do_not_hide_them(
    beside: dict[str, object], tensors: Tensors, tmp_path: Path
) -> None:
    torch.save({**tensors, "model": beside}, tmp_path / "flat.pth")
    assert same_weights(tmp_path / "flat.pth", tensors)
    torch.save({"model": beside, "teacher": tensors}, tmp_path / "nested.pth")
    assert same_weights(tmp_path / "nested.pth", tensors)


def test_safetensors_without_a_classifier_or_with_another_one_load(tensors: Tensors, tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    save_file(body, tmp_path / "body.safetensors")
    assert same_weights(tmp_path / "body.safetensors", tensors)
    other = {**tensors, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    save_file(other, tmp_path / "other.safetensors")
    assert same_weights(tmp_path / "other.safetensors", tensors)


def test_tensors_under_other_names_load_in_order(tensors: Tensors, tmp_path: Path) -> None:
    torch.save({f"t{i}": tensor for i, tensor in enumerate(tensors.values())}, tmp_path / "w.pt")
    assert load_backbone("resnet18", weights=tmp_path / "w.pt").loaded == "in order"
    assert same_weights(tmp_path / "w.pt", tensors)


@pytest.mark.parametrize(
    ("others", "why", "fix"),
    [
        ({}, "", "Take layers without it, such as backbone[:-1]."),
        (
            {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)},
            "The network has (1000, 512) there, the weights (7, 512).",
            "Take the network with as many outputs: num_classes=7.",
        ),
    ],
)
def test_layers_that_a_file_has_no_weights_for_are_not_handed_out(
    others: Tensors, why: str, fix: str, tensors: Tensors, tmp_path: Path
) -> None:
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    save_file({**body, **others}, tmp_path / "w.safetensors")
    net = rehead.backbone("resnet18", weights=tmp_path / "w.safetensors")
    assert net[:-1](torch.zeros(1, 3, 224, 224)).shape == (1, 512)
    for which in (slice(None), "head", -1):
        with pytest.raises(BackboneError, match=r"hold 'fc.weight', which the weights of .* do not have") as error:
            net[which]
        assert (error.value.why, error.value.fix) == (why, fix)
    if others:
        seven = rehead.backbone("resnet18", weights=tmp_path / "w.safetensors", num_classes=7)
        assert seven[:](torch.zeros(1, 3, 224, 224)).shape == (1, 7)


@pytest.mark.parametrize("others", [{}, {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}])
def test_a_new_classifier_that_was_asked_for_is_handed_out(others: Tensors, tensors: Tensors, tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    save_file({**body, **others}, tmp_path / "w.safetensors")
    net = rehead.backbone("resnet18", weights=tmp_path / "w.safetensors", num_classes=10)
    for which in (slice(None), "head", slice(-2, None)):
        assert net[which].state_dict()["fc.weight"].shape == (10, 512)
    assert torch.equal(net[:].state_dict()["layer3.0.conv1.weight"], tensors["layer3.0.conv1.weight"])


def test_a_match_by_order_alone_is_told(tmp_path: Path) -> None:
    class Told(Silent):
        notes: tuple[str, ...] = ()

        def note(self, text: str) -> None:
            self.notes += (text,)

    network = load_backbone("test_resnet", pretrained=False).network
    for name, of_file in (("own", str), ("other", "{}.t".format)):
        torch.save({of_file(n): t for n, t in network.state_dict().items()}, tmp_path / f"{name}.pt")
        told = Told()
        ready_prefix(
            "test_resnet", weights=tmp_path / f"{name}.pt", arguments={}, cut="pool", cache=tmp_path, progress=told
        )
        by_order = (
            "The weights have other names than the layers of test_resnet: they were matched by their order alone."
        )
        assert told.notes == (() if name == "own" else (by_order,))


def test_tensors_that_a_file_holds_sorted_by_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """A norm then comes as bias, mean, variance, weight, all of one shape."""
    given = load_backbone("tf_efficientnet_lite0", pretrained=False).network.state_dict()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in given))
    renamed = {f"{layers.index(n.rpartition('.')[0]):03}.{n.rpartition('.')[2]}": t for n, t in given.items()}
    torch.save(renamed, tmp_path / "w.pth")
    assert load_backbone("tf_efficientnet_lite0", weights=tmp_path / "w.pth").loaded == "in order"
    save_file(renamed, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match="do not fit"):
        load_backbone("tf_efficientnet_lite0", weights=tmp_path / "w.safetensors")


def test_missing_layers_are_named_and_the_cut_below_them_offered(tensors: Tensors, tmp_path: Path) -> None:
    save_file({n: t for n, t in tensors.items() if not n.startswith(("layer4", "fc"))}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match="layer4") as error:
        load_backbone("resnet18", weights=tmp_path / "w.safetensors")
    assert "--cut layer3" in error.value.fix
    assert same_weights(tmp_path / "w.safetensors", tensors, cut="layer3")


@pytest.mark.parametrize(
    ("name", "missing", "cut"),
    [
        ("efficientnet_b0", ("conv_head", "bn2", "classifier"), "blocks.6"),
        (
            "efficientnet_b0",
            ("blocks.5.1", "blocks.5.2", "blocks.5.3", "blocks.6", "conv_head", "bn2", "classifier"),
            "blocks.4",
        ),
        ("vit_tiny_patch16_224", ("norm", "head"), "blocks.10"),  # the norm belongs to the layer before it
        ("convnext_atto", ("head",), "stages.3"),
        (  # whose tensors stand in another order than they are used in
            "xcit_nano_12_p16_224",
            ("cls", "blocks.8", "blocks.9", "blocks.10", "blocks.11", "norm", "head"),
            "blocks.7",
        ),
    ],
)
@pytest.mark.long
def test_the_cut_that_is_offered_can_be_made(name: str, missing: tuple[str, ...], cut: str, tmp_path: Path) -> None:
    own = load_backbone(name, pretrained=False).network.state_dict()
    save_file({n: t for n, t in own.items() if not n.startswith(missing)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch) as error:
        check_backbone(name, tmp_path / "w.safetensors", {}, "pool", tmp_path)
    assert error.value.fix == f"All up to {cut} is there: cut behind it with --cut {cut}."
    assert load_backbone(name, weights=tmp_path / "w.safetensors", cut=cut).loaded == "by name"


def test_no_cut_is_offered_where_a_file_goes_on_behind_what_it_lacks(tmp_path: Path) -> None:
    shallower = load_backbone("convnext_atto", pretrained=False, arguments={"depths": (2, 2, 3, 2)})
    save_file(dict(shallower.network.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match=r"stages\.2\.blocks\.3.* not in the file") as error:
        load_backbone("convnext_atto", weights=tmp_path / "w.safetensors")
    assert error.value.fix == NAME_IT


def test_one_missing_tensor_is_counted_as_one(tensors: Tensors, tmp_path: Path) -> None:
    del (left := dict(tensors))["layer1.0.bn1.weight"]
    left["conv1.weight"] = left["conv1.weight"][:, :1].contiguous()
    save_file(left, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsMismatch, match=r"do not fit: 1 tensor is missing, 1 tensor has another shape\."
    ) as error:
        load_backbone("resnet18", weights=tmp_path / "w.safetensors")
    assert error.value.fix == NAME_IT


def test_other_shapes_are_shown(tmp_path: Path) -> None:
    save_file(dict(load_backbone("resnet34", pretrained=False).network.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match=r"do not fit"):
        load_backbone("resnet50", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "other", "arguments"),
    [
        ("resnet18", "seresnet18", {}),
        ("resnet18", "resnet34", {}),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224", {"init_values": 1e-5}),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224", {"reg_tokens": 4, "no_embed_class": True}),
    ],
)
def test_weights_of_a_network_that_has_more_are_refused(
    name: str, other: str, arguments: dict[str, object], tmp_path: Path
) -> None:
    given = load_backbone(other, pretrained=False, arguments=arguments).network.state_dict()
    own = load_backbone(name, pretrained=False).network.state_dict()
    shaped = {n: own.get(n, t) for n, t in given.items()}
    save_file(shaped, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match="are those of another network: it has no place for") as error:
        load_backbone(name, weights=tmp_path / "w.safetensors")
    assert next(n for n in sorted(shaped) if n not in own) in error.value.why
    assert "Name the network these weights were made for" in error.value.fix


def test_what_a_training_left_beside_a_networks_weights_is_no_hindrance(tmp_path: Path) -> None:
    network = load_backbone("vit_tiny_patch16_224", pretrained=False).network
    beside = ("mask_token", "decoder_pos_embed", "decoder.0.weight", "head_dist.weight", "blocks.0.attn.attn_mask")
    more = {name: torch.zeros(3, 3) for name in beside} | {"blocks.0.total_ops": torch.zeros(1)}
    save_file({**network.state_dict(), **more}, tmp_path / "w.safetensors")
    assert load_backbone("vit_tiny_patch16_224", weights=tmp_path / "w.safetensors").loaded == "by name"


def test_what_the_official_weights_of_a_family_have_and_never_use_is_no_hindrance(tmp_path: Path) -> None:
    """Those of DLA: projections of stages in which timm has none, as only their subtrees' are read."""
    own = load_backbone("dla34", pretrained=False).network.state_dict()
    unused = {
        f"{stage}.project.{part}": torch.zeros(width, 3) if part == "0.weight" else torch.zeros(width)
        for stage, width in (("level3", 128), ("level4", 256), ("level4.tree1", 256))
        for part in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
        if f"{stage}.project.{part}" not in own
    }
    save_file({**own, **unused}, tmp_path / "w.safetensors")
    assert len(unused) == 10
    assert load_backbone("dla34", weights=tmp_path / "w.safetensors").loaded == "by name"
    save_file({**own, **unused, "level3.tree1.conv3.weight": torch.zeros(9)}, tmp_path / "more.safetensors")
    with pytest.raises(WeightsMismatch, match="it has no place for 1 tensor"):
        load_backbone("dla34", weights=tmp_path / "more.safetensors")


def test_a_digest_in_a_name_is_checked(tensors: Tensors, tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    (tmp_path / "w.pth").rename(tmp_path / f"resnet18-{digest[:8]}.pth")
    assert set(read_weights(tmp_path / f"resnet18-{digest[:8]}.pth")) == set(tensors)
    (tmp_path / f"resnet18-{digest[:8]}.pth").rename(tmp_path / "resnet18-0123456a.pth")
    with pytest.raises(WeightsMismatch, match="not the file its name says"):
        read_weights(tmp_path / "resnet18-0123456a.pth")
    (tmp_path / "resnet18-0123456a.pth").rename(tmp_path / "resnet18-20240131.pth")
    assert set(read_weights(tmp_path / "resnet18-20240131.pth")) == set(tensors), "a date is no digest"


@pytest.mark.parametrize(
    "name", ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"]
)
def test_pooled_features_then_the_classifier_are_the_network(name: str) -> None:
    backbone = load_backbone(name, pretrained=False)
    size = backbone.card.preprocess.height
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = backbone.prefix(images)
        whole = backbone.network(images)
        assert features.shape == (2, *backbone.card.shape)
        assert torch.allclose(backbone.network.get_classifier()(features), whole, atol=1e-5)


def test_preprocessing_arguments_do_not_go_to_timm() -> None:
    card = load_backbone("resnet18", pretrained=False, arguments={"mean": 0.5, "std": (0.5, 0.4, 0.3)}).card
    assert card.preprocess.mean == (0.5, 0.5, 0.5)
    assert card.preprocess.std == (0.5, 0.4, 0.3)


def test_a_card_survives_json_and_its_identity_follows_what_decides_features() -> None:
    card = load_backbone("resnet18", pretrained=False).card
    assert Card.from_json(card.to_json()) == card
    other = load_backbone("resnet18", pretrained=False, seed=1).card
    assert other.identity != card.identity
    assert known_as("tf_efficientnet_lite0.in1k") == "efficientnet_lite0"


@pytest.mark.parametrize("activation", ["relu", "none"])
def test_a_head_as_arrays_is_the_head_as_a_module(activation: str) -> None:
    module = mlp_module(12, (8, 4), 3, activation, seed=5)  # type: ignore[arg-type]
    head = head_from_module(module, "mlp", activation)  # type: ignore[arg-type]
    x = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    with torch.inference_mode():
        assert np.allclose(head.logits(x), module(torch.from_numpy(x)).numpy(), atol=1e-5)
        assert np.allclose(head.logits(x), module_from_head(head)(torch.from_numpy(x)).numpy(), atol=1e-5)


@pytest.mark.realdata
def test_the_default_weights_name_cats_and_dogs(data: Path) -> None:
    """ImageNet's classes 151 to 268 are dogs, 281 to 285 are domestic cats."""
    from rehead.pixels import prepare

    backbone = load_backbone("efficientnet_lite0")
    files = [*sorted((data / "dogscats/cat").iterdir())[:24], *sorted((data / "dogscats/dog").iterdir())[:24]]
    pixels = np.stack([prepare(path.read_bytes(), backbone.card.preprocess) for path in files])
    with torch.inference_mode():
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        named = backbone.network(images).argmax(1).numpy()
    assert np.isin(named[:24], range(281, 286)).sum() >= 16
    assert np.isin(named[24:], range(151, 269)).sum() >= 20


@pytest.mark.realdata
def test_both_shared_weights_files_load() -> None:
    cut = load_backbone("resnet18", weights=WEIGHTS / "resnet18_to_layer3.safetensors", cut="layer3")
    assert cut.card.shape == (256,)
    mobile = load_backbone(
        "mobilenetv2_100",
        weights=WEIGHTS / "mobilenetv2_100.pth",
        arguments={"pad_type": "same", "mean": 0.5, "std": 0.5},
    )
    assert (mobile.loaded, mobile.card.shape) == ("by name", (1280,))


@pytest.mark.parametrize("names", [["w.safetensors"], ["rehead.json", "model.onnx"]], ids=["a file", "a bundle"])
def test_weights_that_may_not_be_read_are_told_in_whole_words(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        (tmp_path / name).touch()
    closed = PermissionError(
        errno.EACCES, "Permission denied", str(tmp_path / names[-1])
    )  # root may read what it likes
    monkeypatch.setattr("rehead.nets.card.sha256_file", Mock(side_effect=closed))
    weights = tmp_path / names[0] if len(names) == 1 else tmp_path
    with pytest.raises(WeightsUnavailable) as error:
        locate("resnet18", weights)
    assert str(error.value) == f"{weights} cannot be read.\nPermission denied.\nCheck its permissions."


def test_a_folder_or_a_damaged_file_as_weights_is_told_in_whole_words(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="is a folder, not a file of weights"):
        load_backbone("resnet18", weights=tmp_path)
    (tmp_path / "w.pth").write_bytes(b"no weights at all " * 40)
    with pytest.raises(WeightsMismatch) as caught:
        load_backbone("resnet18", weights=tmp_path / "w.pth")
    assert len(caught.value.why) < 300
    assert caught.value.why[-1] in ".)" or caught.value.why.endswith(" ...")
