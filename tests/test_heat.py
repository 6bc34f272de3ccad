"""Where a model looks: the map of a bundle against its logits and Captum, other networks by Grad-CAM and by occlusion."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import rehead
from rehead.bundle import Head
from rehead.bundle_head import read_head
from rehead.errors import BackboneError, PhotoError, RecipeError, RunError
from rehead.folds import cross_validate
from rehead.heat import CAM, OCCLUSION, Heat, _grad_cam, _occluded, activation, explain, shares, write_overlay
from rehead.nets.backbone import load_backbone
from rehead.nets.grad_cam import grad_cam


@pytest.fixture(scope="module")
def bundle(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import make_photos

    photos = make_photos(tmp_path_factory.mktemp("explained") / "photos", {"red": 30, "blue": 30})
    return rehead.tune(photos, cache=cache, out=photos.parent / "run", report=False).bundle


def half_red() -> np.ndarray:
    """Blue, and red in the right half."""
    picture = np.zeros((224, 224, 3), np.uint8)
    picture[:, :112] = (60, 60, 200)
    picture[:, 112:] = (200, 60, 60)
    return picture + np.random.default_rng(0).integers(0, 40, picture.shape, np.uint8)


def test_the_sum_of_a_map_is_the_logit_without_its_bias_and_captum_agrees(bundle: Path) -> None:
    model, head = rehead.load(bundle), read_head(bundle)
    for place, label in enumerate(model.classes):
        heat = explain(model, half_red(), label)
        assert (heat.method, heat.values.shape) == (CAM, (7, 7))
        logit = model.logits(heat.pixels[None])[0, place]
        assert heat.values.sum() + head.layers[0][1][place] == pytest.approx(logit, abs=1e-3)
        by_captum = _grad_cam(model, heat.pixels, place)
        np.testing.assert_allclose(by_captum, heat.values, atol=1e-2 * np.abs(heat.values).max())


def test_what_speaks_for_a_class_is_shown_as_a_share_of_the_strongest_place() -> None:
    np.testing.assert_allclose(shares(np.array([[-4, 0], [1, 2]], np.float32)), [[0, 0], [0.5, 1]])
    np.testing.assert_allclose(shares(np.full((2, 2), -1, np.float32)), 0)


def test_behind_an_mlp_a_place_is_weighed_by_the_gradient() -> None:
    random = np.random.default_rng(1)
    layers = tuple((random.normal(size=size).astype(np.float32), random.normal(size=size[0]).astype(np.float32))
                   for size in ((6, 4), (3, 6)))  # fmt: skip
    head, seen = Head("mlp", layers, "relu"), random.random((4, 2, 2)).astype(np.float32)
    x = torch.tensor(seen.mean(axis=(1, 2)), requires_grad=True)
    hidden = torch.relu(torch.from_numpy(layers[0][0]) @ x + torch.from_numpy(layers[0][1]))
    (torch.from_numpy(layers[1][0]) @ hidden)[1].backward()
    assert x.grad is not None
    wanted = np.einsum("c,chw->hw", x.grad.numpy(), seen) / 4  # places
    np.testing.assert_allclose(activation(head, seen, 1), wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_networks_whose_bundle_has_no_map_are_asked_by_grad_cam(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(name, weights=tmp_path / "w.safetensors")
    width = backbone.cut_at("pool")[1].shape[0]
    head = Head(
        "linear", ((np.random.default_rng(0).normal(size=(3, width)).astype(np.float32), np.zeros(3, np.float32)),)
    )
    image = torch.rand(1, 3, backbone.preprocess.height, backbone.preprocess.width)
    values = grad_cam(backbone, head, image, 1)
    assert values.ndim == 2
    assert values.shape[0] == values.shape[1] > 1
    assert np.ptp(values) > 0


@pytest.mark.parametrize(
    "backbone",
    [
        {"name": "hf-hub:a/stranger", "arguments": {}},
        {
            "name": "test_vit",
            "arguments": {"pretrained_cfg_overlay": {"hf_hub_id": None, "url": "http://10.0.0.5/x.pth"}},
        },
        {"name": "test_vit", "arguments": {"checkpoint_path": "/no/such/file"}},
        {"name": "test_vit", "arguments": {}},
        {},
        {"name": ["test_vit"]},
        {"name": "test_vit", "arguments": 5},
    ],
)
def test_what_a_bundle_says_never_decides_where_weights_are_fetched(
    backbone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*address: object, **_: object) -> None:
        raise AssertionError(f"{address} was asked")

    monkeypatch.setattr("socket.create_connection", asked)
    monkeypatch.setattr("rehead.nets.hub._cached_file", lambda config: None)
    facts = {"backbone": {"cut": "pool", "learned": [], "weights": "00", **backbone}}
    preprocess = SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3)
    model: Any = SimpleNamespace(bundle=SimpleNamespace(facts=facts, preprocess=preprocess, folder=tmp_path / "bundle"))
    with pytest.raises(BackboneError):
        _grad_cam(model, np.zeros((160, 160, 3), np.uint8), 0)


def test_hiding_a_part_that_matters_shows_where_it_is() -> None:
    def logits(pixels: np.ndarray) -> np.ndarray:
        corner = pixels[:, :32, 192:].mean(axis=(1, 2, 3)) / 255
        return np.stack([corner, -corner], axis=1).astype(np.float32)

    preprocess = SimpleNamespace(mean=(0.0, 0.0, 0.0))
    model: Any = SimpleNamespace(logits=logits, bundle=SimpleNamespace(preprocess=preprocess))
    pixels = np.full((224, 224, 3), 255, np.uint8)
    values = _occluded(model, pixels, 0)
    assert values[0, 6] == pytest.approx(1)  # how far the logit falls without it
    assert np.count_nonzero(values) == 1


def test_the_picture_is_written_and_the_photo_is_spared(bundle: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(half_red()).save(photo)
    before = photo.read_bytes()
    heat = explain(bundle, photo)
    write_overlay(heat, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as written:
        assert written.size == (448, 448)
    with pytest.raises(RecipeError, match="is there already"):
        write_overlay(heat, photo)
    with pytest.raises(RecipeError, match="says no format"):
        write_overlay(heat, tmp_path / "map.txt")
    write_overlay(heat, tmp_path / "map.png", force=True)
    assert photo.read_bytes() == before


def test_a_photo_that_is_not_there_and_an_older_bundle_are_no_mistakes_of_ours(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"nowhere\.jpg is not there"):
        explain(bundle, tmp_path / "nowhere.jpg")
    older = explain(Path(__file__).parent / "golden" / "bundle-1", half_red())
    assert older.method == OCCLUSION


def test_a_class_that_nothing_speaks_for_is_no_error() -> None:
    heat = Heat(np.full((7, 7), -1, np.float32), half_red(), "red", CAM)
    assert heat.overlay().size == (448, 448)


def test_the_photos_it_learned_from_that_look_most_like_one_are_told(bundle: Path, cache: Path, tmp_path: Path) -> None:
    photos = bundle.parents[1] / "photos"
    found = rehead.neighbours(bundle, photos / "red" / "3.png", k=4, cache=cache)
    assert len(found) == 4
    assert {one.label for one in found} == {"red"}
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
    learned = {one.path for one in found}
    assert all((photos / path).is_file() for path in learned)
    away = shutil.copytree(bundle, tmp_path / "bundle")
    with pytest.raises(RunError):
        rehead.neighbours(away, photos / "red" / "3.png", cache=cache)


def test_a_class_that_the_bundle_does_not_know_is_named(bundle: Path) -> None:
    with pytest.raises(RecipeError, match=r"knows no class 'redd'\.\nIt knows blue, red\.\nDid you mean 'red'"):
        explain(rehead.load(bundle), half_red(), "redd")


def test_a_fit_that_was_decided_is_not_decided_again(
    photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", fit="auto", head="prototype", report=False)
    monkeypatch.delattr("rehead.fitting._best_fit")
    assert len(rehead.neighbours(tuned.bundle, photos / "red" / "3.png", k=2, cache=cache)) == 2
    assert cross_validate(tuned.run, cache=cache).verdict.n == 40
