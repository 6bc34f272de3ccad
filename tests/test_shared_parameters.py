"""A network whose blocks share parameters, tuned from some of its layers on: what is told is of the model that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from safetensors.torch import save_file

import rehead
from rehead.runs.finished import read_finished

SHARING: dict[str, Any] = {
    "backbone": "vit_srelpos_small_patch16_224",
    "backbone_args": {"img_size": 64, "input_size": 64},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("sharing") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of random weights; all blocks take their positions from one small network."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    network = rehead.backbone(SHARING["backbone"], pretrained=False, **SHARING["backbone_args"]).network
    save_file(dict(network.state_dict()), path)
    return str(path)


@pytest.mark.parametrize("train", ["last:1", "last:2", "lora:2@last:2", "all"])
@pytest.mark.long
def test_what_was_judged_is_what_the_bundle_computes(
    train: str, folder: Path, weights: str, cache: Path, tmp_path: Path
) -> None:
    tuned = rehead.tune(
        folder, cache=cache, out=tmp_path / "run", weights=weights, train=train, epochs=1, batch_size=8, lr=0.01,
        report=False, **SHARING,
    )  # fmt: skip
    finished, model = read_finished(tuned.run, cache), rehead.load(tuned.bundle)
    photos = [finished.catalog.photos[i] for i in finished.outputs.held_out]
    pixels = np.stack([model.pixels(finished.catalog.read(photo)) for photo in photos])
    np.testing.assert_allclose(model.logits(pixels), finished.outputs.logits, atol=1e-3)
    is_partly_frozen = train.startswith("last")
    assert ("that frozen layers use too stay frozen" in (tuned.run / "log.txt").read_text()) == is_partly_frozen
