"""What a notebook has set of PyTorch reaches nothing that is computed here, and is as it was afterwards."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_photos, noise
from PIL import Image, ImageFile
from safetensors.torch import save_file

import rehead
from rehead.ambient import dice, own_settings
from rehead.errors import SourceError
from rehead.heat import GRAD_CAM
from rehead.nets.backbone import load_backbone

SMALL, WITHOUT_MAP = "test_resnet", "test_vit"  # of timm: exported by PyTorch, in a second


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def another_device() -> Iterator[None]:
    torch.set_default_device("meta")  # what is made there cannot be computed with what is made elsewhere, as on CUDA
    try:
        yield
    finally:
        torch.set_default_device(None)


NOTEBOOKS: dict[str, Callable[[], Any]] = {
    "float64": float64,
    "device": another_device,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.fixture(params=NOTEBOOKS)
def notebook(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process that has set something of PyTorch, and finds it as it left it."""
    with NOTEBOOKS[request.param]():
        before = settings()
        yield
        assert settings() == before


def settings() -> tuple[object, ...]:
    device = torch.get_default_device().type
    mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return torch.get_default_dtype(), device, mode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("ambient") / "photos", {"red": 16, "blue": 16})


def random_weights(name: str, path: Path) -> Path:
    save_file(load_backbone(name, pretrained=False).network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(SMALL, tmp_path_factory.mktemp("ambient") / "w.safetensors")


def mlp(folder: Path, cache: Path, out: Path) -> bytes:
    tuned = rehead.tune(folder, head="mlp:8", epochs=3, cache=cache, out=out, report=False)
    return (tuned.bundle / "model.onnx").read_bytes()


def deep(folder: Path, weights: Path, place: Path) -> bytes:
    """With a network that PyTorch exports, an engine that is PyTorch, a range test, and a step whose dice change its inputs."""
    how = {"backbone": SMALL, "backbone_args": {"input_size": 64}, "weights": weights, "engine": "torch"}
    how |= {"train": "all", "epochs": 1, "lr": "auto", "mixup": 0.2, "erase": 0.3}
    tuned = rehead.tune(folder, **how, batch_size=8, cache=place / "cache", out=place / "run", report=False)
    return (tuned.bundle / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def usual_mlp(folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return mlp(folder, cache, tmp_path_factory.mktemp("mlp") / "run")


@pytest.fixture(scope="module")
def usual_deep(folder: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return deep(folder, weights, tmp_path_factory.mktemp("deep"))


@pytest.mark.usefixtures("notebook")
def test_a_head_of_dense_layers_is_the_same(folder: Path, cache: Path, tmp_path: Path, usual_mlp: bytes) -> None:
    assert mlp(folder, cache, tmp_path / "run") == usual_mlp


@pytest.mark.usefixtures("notebook")
@pytest.mark.long
def test_layers_that_learn_are_the_same(folder: Path, weights: Path, tmp_path: Path, usual_deep: bytes) -> None:
    assert deep(folder, weights, tmp_path) == usual_deep


@pytest.mark.parametrize("notebook", ["float64", "device"], indirect=True)
@pytest.mark.usefixtures("notebook")
@pytest.mark.long
def test_a_race_and_an_audit_of_a_network_that_pytorch_runs(folder: Path, weights: Path, tmp_path: Path) -> None:
    raced = rehead.race(
        folder, backbones=[f"{SMALL}={weights}"], engine="torch", cache=tmp_path / "cache", out=tmp_path / "race"
    )
    assert len(raced.entries) == 1
    rehead.audit(folder, backbone=SMALL, weights=weights, engine="torch", cache=tmp_path / "another")


@pytest.mark.usefixtures("notebook")
def test_a_batch_is_float32_on_the_cpu(folder: Path) -> None:
    images, labels = rehead.load_batch(folder, 4, seed=0)
    for tensor in (images, labels):
        assert (tensor.dtype, tensor.device.type, tensor.is_inference()) == (torch.float32, "cpu", False)


@pytest.mark.usefixtures("notebook")
def test_a_backbone_is_float32_on_the_cpu_and_can_be_cut(weights: Path, folder: Path) -> None:
    net = rehead.backbone(SMALL, weights=weights)
    kinds = {(p.dtype, p.device.type, p.is_inference()) for p in net.network.parameters()}
    assert kinds == {(torch.float32, "cpu", False)}
    assert net.card.shape == net.layers[-2].shape
    x, _ = rehead.load_batch(folder, 2, preprocess=net.preprocess)
    with torch.autocast("cpu", enabled=False):  # a call of a network is the notebook's own, and its autocast's
        assert net[:-1](x).dtype == torch.float32


@pytest.mark.parametrize("notebook", ["no_grad", "inference_mode"], indirect=True)
@pytest.mark.usefixtures("notebook")
def test_a_loop_of_ones_own_learns(folder: Path) -> None:
    batch = rehead.load_batch(folder, 8, seed=0)
    with torch.inference_mode(False):
        model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    first, last = rehead.fit(model, [batch], epochs=2, device="cpu")
    assert last < first


@pytest.mark.usefixtures("notebook")
def test_an_estimator_learns(cache: Path) -> None:
    photos = [noise(i, colour) for i in range(8) for colour in ((200, 60, 60), (60, 60, 200))]
    model = rehead.Classifier(head="mlp:8", cache=cache).fit(photos, ["red", "blue"] * 8)
    assert model.score(photos, ["red", "blue"] * 8) == 1


@pytest.fixture
def half_pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A notebook that takes pictures of which a half is there, and goes on to."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    yield
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def cut_off(folder: Path, place: Path) -> Path:
    """The folder, with one photo of which the end is lost."""
    photos = Path(shutil.copytree(folder, place / "photos"))
    Image.open(photos / "red" / "1.png").resize((224, 224)).save(photos / "red" / "half.jpg")
    whole = (photos / "red" / "half.jpg").read_bytes()
    (photos / "red" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    return photos


@pytest.mark.usefixtures("half_pictures")
def test_a_picture_that_is_cut_off_is_not_learned_from(folder: Path, tmp_path: Path) -> None:
    photos = cut_off(folder, tmp_path)
    tuned = rehead.tune(photos, cache=tmp_path / "cache", out=tmp_path / "run", report=False)
    assert "red/half.jpg,cannot be decoded: image file is truncated" in (tuned.run / "skipped.csv").read_text()
    paths = [*photos.glob("*/?.png"), photos / "red" / "half.jpg"]
    with pytest.raises(SourceError, match=r"half\.jpg cannot be decoded: image file is truncated"):
        rehead.Classifier(cache=tmp_path / "cache").fit(paths, [path.parent.name for path in paths])
    assert rehead.verify(tuned.bundle, photos).verdict.n == 32


@pytest.mark.usefixtures("half_pictures")
def test_a_job_that_ends_leaves_what_pillow_takes_to_one_that_goes_on() -> None:
    with ExitStack() as second:
        with own_settings():
            second.enter_context(own_settings())
        assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.usefixtures("half_pictures")
def test_what_pillow_takes_is_set_apart_where_pytorch_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    with own_settings():
        assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.fixture(scope="module")
def without_map(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("without_map")
    how = {"backbone": WITHOUT_MAP, "weights": random_weights(WITHOUT_MAP, place / "w.safetensors")}
    return rehead.tune(folder, **how, cache=place / "cache", out=place / "run", report=False).bundle


@pytest.fixture(scope="module")
def usual_heat(without_map: Path, folder: Path) -> rehead.Heat:
    return rehead.explain(without_map, folder / "red" / "0.png")


@pytest.mark.usefixtures("notebook")
def test_where_a_network_looks_is_the_same(without_map: Path, folder: Path, usual_heat: rehead.Heat) -> None:
    heat = rehead.explain(without_map, folder / "red" / "0.png")
    assert heat.method == usual_heat.method == GRAD_CAM
    np.testing.assert_array_equal(heat.values, usual_heat.values)


@pytest.mark.parametrize("notebook", ["float64", "device"], indirect=True)
@pytest.mark.usefixtures("notebook")
@pytest.mark.long
def test_a_program_of_pytorch_is_made_and_run(without_map: Path, folder: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(without_map, tmp_path / "bundle"))
    rehead.export(bundle, "torch", photos=folder, cache=tmp_path / "cache")
    found, wanted = (rehead.load(bundle, variant=name).predict(folder / "red" / "0.png") for name in ("torch", None))
    assert found.label == wanted.label


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose dice were seeded, of those that PyTorch would have."""
    seen: list[str] = []
    for name in ("cuda", "mps", "xpu"):
        for kind in ("manual_seed", "manual_seed_all"):
            monkeypatch.setattr(f"torch.{name}.{kind}", lambda _, name=name: seen.append(name), raising=False)
    return seen


def test_a_backbone_throws_no_dice_of_another_device(seeded: list[str]) -> None:
    before = torch.get_rng_state()
    rehead.backbone(SMALL, pretrained=False, seed=1)
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_that_learn_on_the_cpu_throw_no_dice_of_another_device(
    folder: Path, cache: Path, tmp_path: Path, seeded: list[str]
) -> None:
    before = torch.get_rng_state()
    mlp(folder, cache, tmp_path / "run")
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), before)


def test_dice_are_those_of_the_seed_and_come_back_after_an_error() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    with dice(7):
        assert torch.equal(torch.rand(3), wanted)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), dice(8):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_dice_of_apple_come_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("torch.mps.get_rng_state", lambda: "as it was")
    monkeypatch.setattr("torch.mps.set_rng_state", told.append)
    monkeypatch.setattr("torch.mps.manual_seed", told.append)
    with pytest.raises(KeyError), dice(8, torch.device("mps")):
        raise KeyError
    assert told == [8, "as it was"]
