"""The same jobs on a CUDA device: bf16 features close to the reference, and both ways to tune."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_photos

import rehead

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


@pytest.mark.parametrize(
    "settings", [{}, {"train": "last:1", "epochs": 2}, {"train": "all", "epochs": 1, "augment": "crop"}]
)
def test_a_job_on_the_device_is_verified_and_its_bundle_runs_on_the_cpu(
    cache: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 40, "blue": 40})
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", device="cuda", **settings, report=False)
    assert tuned.verdict.top1.value >= 0.9
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
    import io

    import numpy as np
    from PIL import Image

    from rehead.features.views import augmented
    from rehead.pixels import Preprocess
    from rehead.tuning.jpeg import decodes, jpeg_of, on_device

    device = torch.device("cuda")
    if not decodes(device):
        pytest.skip("this torchvision decodes no JPEG on CUDA")
    preprocess = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(small).resize((180, 120), Image.Resampling.BICUBIC).save(file := io.BytesIO(), "JPEG", quality=95)
    jpegs = [jpeg_of("crop", file.getvalue(), preprocess, seed) for seed in range(8)]
    for seed, ours in enumerate(on_device([jpeg for jpeg in jpegs if jpeg], device).cpu()):
        theirs = augmented("crop", file.getvalue(), preprocess, seed)
        assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).mean() < 3


def test_features_are_the_same_whatever_runs_beside_and_how_many_are_asked_for(cache: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

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
    import numpy as np

    from rehead.tuning.feed import PhotoFeed, ahead

    def pixels(place: int, _: object) -> np.ndarray:
        return np.random.default_rng(place).integers(0, 256, (32, 32, 3), np.uint8)

    order, means = np.arange(64), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    here = PhotoFeed(pixels, order, *means, 0)
    there = PhotoFeed(pixels, order, *means, 0, learner=torch.device("cuda"))
    for (x, y), (wanted, labels) in zip(
        ahead(there.batches(order, 0, 8, 0), torch.device("cuda")), here.batches(order, 0, 8, 0), strict=True
    ):
        assert x.is_cuda
        assert torch.equal(x.cpu(), wanted)
        assert torch.equal(y.cpu(), labels)
