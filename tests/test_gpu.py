"""The same jobs on a CUDA device: bf16 features close to the reference, and both ways to tune."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_photos
from PIL import Image

import rehead
from rehead.ambient import dice
from rehead.tuning import step as steps
from rehead.tuning.course import Course
from rehead.tuning.recipe import Recipe
from rehead.tuning.step import Stepper, precision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


@pytest.mark.parametrize(
    "settings",
    [{}, {"train": "last:1", "epochs": 2}, {"train": "all", "epochs": 1, "augment": "crop"}],
)
def test_a_job_on_the_device_is_verified_and_its_bundle_runs_on_the_cpu(
    cache: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 40, "blue": 40})
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", device="cuda", **settings, report=False)
    assert tuned.verdict.top1.value >= 0.9
    assert not settings or tuned.verdict.alone.both >= 0.9 * tuned.verdict.n
    assert rehead.load(tuned.bundle).predict(str(photos / "red" / "0.png")).label == "red"


def test_batches_copied_ahead_are_the_batches() -> None:
    from rehead.tuning.feed import ahead

    pairs = [(torch.randn(4, 3, 8, 8), torch.arange(4) + i) for i in range(5)]
    found = list(ahead(iter(pairs), torch.device("cuda")))
    assert all(
        torch.equal(a[0], b[0].cpu()) and torch.equal(a[1], b[1].cpu()) for a, b in zip(pairs, found, strict=True)
    )
    assert all(x.is_cuda for x, _ in found)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # of PyTorch 2.11's own compiler
def test_a_compiled_training_ends_with_a_model_that_is_right(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 40, "blue": 40})
    settings = {"train": "last:1", "epochs": 2, "compile": True, "device": "cuda"}
    with torch._inductor.config.patch(compile_threads=1):  # more are processes, which stay
        tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", **settings, report=False)
    assert tuned.verdict.top1.value >= 0.9


def test_photos_that_the_device_decodes_are_those_that_pillow_decodes() -> None:
    from rehead.features.jpegs import jpeg_of
    from rehead.features.on_device import decodes, on_device
    from rehead.features.views import augmented
    from rehead.pixels import Preprocess

    device = torch.device("cuda")
    if not decodes(device):
        pytest.skip("this torchvision decodes no JPEG on CUDA")
    preprocess = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(small).resize((180, 120), Image.Resampling.BICUBIC).save(file := io.BytesIO(), "JPEG", quality=95)
    jpegs = [jpeg_of("crop", file.getvalue(), preprocess, seed) for seed in range(8)]
    for seed, ours in enumerate(on_device([jpeg for jpeg in jpegs if jpeg], device).cpu()):
        theirs = augmented("crop", file.getvalue(), preprocess, seed)
        assert np.abs(ours.numpy().astype(float) - theirs).mean() < 1


def test_features_are_the_same_whatever_runs_beside_and_how_many_are_asked_for(cache: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from rehead.exporting.prefixes import ready_prefix
    from rehead.features.torch_engine import TorchEngine
    from rehead.progress import Silent

    prefix = ready_prefix("efficientnet_lite0", weights=None, arguments={}, cut="pool", cache=cache, progress=Silent())
    engine = TorchEngine(prefix, "cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (engine.batch, 224, 224, 3), np.uint8)
    wanted = engine(pixels)
    np.testing.assert_array_equal(engine(pixels[:5]), wanted[:5])
    others = [np.roll(pixels, i, axis=0) for i in range(24)]
    with ThreadPoolExecutor(engine.workers) as pool:
        for i, rows in enumerate(pool.map(engine, others)):
            np.testing.assert_array_equal(rows, np.roll(wanted, i, axis=0))


def test_photos_that_cross_beside_the_training_are_normalised_to_the_bits_of_the_cpu() -> None:
    from rehead.tuning.feed import PhotoFeed, ahead

    def pixels(asked: Sequence[tuple[int, object]]) -> list[np.ndarray]:
        return [np.random.default_rng(place).integers(0, 256, (32, 32, 3), np.uint8) for place, _ in asked]

    order, means = np.arange(64), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    here = PhotoFeed(pixels, order, *means, 0)
    there = PhotoFeed(pixels, order, *means, 0, learner=torch.device("cuda"))
    for (x, y), (wanted, labels) in zip(
        ahead(there.batches(order, 0, 8, 0), torch.device("cuda")), here.batches(order, 0, 8, 0), strict=True
    ):
        assert x.is_cuda
        assert torch.equal(x.cpu(), wanted)
        assert torch.equal(y.cpu(), labels)


def test_a_job_whose_steps_are_recorded_while_photos_are_decoded_learns(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MANY", 1)
    photos = make_photos(tmp_path / "photos", {"red": 60, "blue": 60})
    for path in photos.glob("*/*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    settings = {"train": "all", "epochs": 3, "augment": "crop", "batch_size": 8, "start_scale": 0.5, "device": "cuda"}
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", **settings, report=False)
    assert tuned.verdict.top1.value >= 0.9
    assert "not recorded" not in (tmp_path / "run" / "log.txt").read_text()


COURSE = replace(Recipe(train="all").course, batch_size=16)


class Net(torch.nn.Module):
    """asks: whether it asks the device for a number on the way, which no record can do."""

    def __init__(self, asks: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.asks = asks
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(256, 2),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * (2.0 if self.asks and float(x.sum()) > 1e9 else 1.0)


def learned(
    course: Course, *, records: bool, asks: bool = False
) -> tuple[list[float], list[torch.Tensor], list[str], Any]:
    """The losses of 20 batches, of which one is smaller and those behind it larger, the weights at the end, what was noted, and
    the last record."""
    device, random, notes = torch.device("cuda"), np.random.default_rng(0), []
    model = Net(asks).to(device, memory_format=torch.channels_last)
    stepper = Stepper(
        model, [[*model.parameters()]], course, None, device, notes.append, n_batches=100 if records else 0,
        dtype=precision(device),
    )  # fmt: skip
    losses = []
    for number in range(20):
        n, side = course.batch_size if number != 11 else 5, 12 if number < 12 else 14
        x = torch.from_numpy(random.normal(size=(n, 3, side, side)).astype(np.float32)).to(device)
        y = torch.from_numpy(random.integers(0, 2, n)).to(device)
        with dice(number, device):
            losses.append(float(stepper.backward(x, y, n / course.batch_size)))
        stepper.step(0.01 * (1 + number % 3))
        if number in (10, 11):
            stepper.make_room()
    record = stepper._recorded
    return losses, [p.detach().cpu() for p in model.state_dict().values()], notes, record


@pytest.mark.parametrize(
    "changed", [{}, {"mixup": 0.4}, {"optimizer": "sgd", "clip": 1.0}, {"cutmix": 1.0, "label_smoothing": 0.1}]
)
def test_steps_that_are_recorded_learn_what_others_learn(changed: dict[str, Any]) -> None:
    course = replace(COURSE, **changed)
    losses, weights, notes, record = learned(course, records=True)
    wanted, others, _, none = learned(course, records=False)
    assert record is not None
    assert none is None
    assert not notes
    np.testing.assert_allclose(losses, wanted, atol=2e-2)
    for ours, theirs in zip(weights, others, strict=True):
        assert (ours.float() - theirs.float()).abs().max() < 2e-2


def test_a_network_that_cannot_be_recorded_learns_step_by_step() -> None:
    losses, _, notes, record = learned(COURSE, records=True, asks=True)
    assert record is None
    assert len(notes) == 1
    np.testing.assert_allclose(losses, learned(COURSE, records=False)[0], atol=2e-2)
