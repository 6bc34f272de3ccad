"""--tta: a photo and its mirror image are judged together, and without it nothing changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos, noise
from PIL import ImageOps

import rehead
from rehead.bundle import softmax

PICTURE = noise(1, (130, 60, 130), size=224)
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bundle(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = make_photos(tmp_path_factory.mktemp("mirrored") / "photos", {"red": 12, "blue": 12})
    return rehead.tune(photos, cache=cache, out=tmp_path_factory.mktemp("run") / "run", report=False).bundle


def test_the_logits_are_the_mean_of_both_images(bundle: Path) -> None:
    model = rehead.load(bundle)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    wanted = (model.logits(pixels) + model.logits(pixels[:, :, ::-1].copy())) / 2
    np.testing.assert_allclose(model.logits(pixels, tta=True), wanted, rtol=1e-6)
    np.testing.assert_allclose(model.probabilities(pixels, tta=True), softmax(wanted), atol=1e-6)


def test_a_photo_and_its_mirror_image_get_the_same_answer(bundle: Path) -> None:
    model = rehead.load(bundle)
    pixels = np.stack([np.asarray(picture) for picture in (PICTURE, ImageOps.mirror(PICTURE))])
    both, plain = model.logits(pixels, tta=True), model.logits(pixels)
    np.testing.assert_allclose(both[0], both[1], rtol=1e-4)
    assert not np.allclose(plain[0], plain[1], rtol=1e-4)


def test_the_program_says_what_the_library_says(rehead: Program, bundle: Path, tmp_path: Path) -> None:
    import rehead as library

    PICTURE.save(tmp_path / "a.png")
    model = library.load(bundle)
    for option, tta in ((["--tta"], True), ([], False)):
        done = rehead("predict", bundle, "a.png", "--format", "jsonl", *option)
        told = tuple((one["label"], one["probability"]) for one in json.loads(done.stdout)["top"])
        assert told == model.predict(str(tmp_path / "a.png"), tta=tta).top
    assert model.predict(PICTURE, tta=True).top != model.predict(PICTURE).top


def test_a_verdict_can_be_on_both_images(bundle: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "other", {"red": 4, "blue": 4})
    plain, both = (rehead.verify(bundle, photos, cache=cache, tta=tta).verdict for tta in (False, True))
    assert both.top1.n == plain.top1.n == 8
    assert both.log_loss.value != plain.log_loss.value
