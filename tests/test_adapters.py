"""A transformer tuned by low-rank adapters end to end: the bundle, an interruption, and what it says when it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from safetensors.torch import load_file, save_file

import rehead
from rehead import bundle as bundles
from rehead.errors import RecipeError
from rehead.progress import Silent

SMALL = {"img_size": 64, "input_size": 64}  # 16 tokens instead of 196: quick
ASKED: dict[str, Any] = {
    "backbone": "vit_tiny_patch16_224", "backbone_args": SMALL, "train": "lora:4@last:2", "batch_size": 8, "epochs": 2,
    "lr": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("lora") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of random weights."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    network = rehead.backbone("vit_tiny_patch16_224", pretrained=False, **SMALL).network
    save_file(dict(network.state_dict()), path)
    return str(path)


@pytest.fixture(scope="module")
def tuned(folder: Path, weights: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    return rehead.tune(
        folder, cache=cache, out=tmp_path_factory.mktemp("run") / "first", weights=weights, **ASKED, report=False
    )


def test_the_job_says_what_learns_and_where_it_was_cut(tuned: rehead.Tuned) -> None:
    log = (tuned.run / "log.txt").read_text()
    assert re.search(r"blocks.10 +444,864 parameters +frozen, 12,288 in adapters learn", log)
    assert re.search(r"blocks.9 +444,864 parameters +frozen$", log, re.MULTILINE)
    assert "Kept behind blocks.9: 40 photos in 2 views" in log
    assert "adapters of rank 4 in blocks.10, blocks.11 for 2 epochs" in tuned.head_note
    assert bundles.read(tuned.bundle).facts["backbone"]["learned"] == ["blocks.10", "blocks.11"]
    assert not (tuned.run / "checkpoint.safetensors").exists()


def test_the_bundle_is_the_network_with_merged_weights(tuned: rehead.Tuned, weights: str, folder: Path) -> None:
    """Its graph holds plain weights: those of two blocks' linear layers, other than before by something of rank 4."""
    import onnx
    from onnx import numpy_helper

    before = load_file(weights)
    graph = onnx.load(str(tuned.bundle / "model.onnx")).graph
    assert not [node.name for node in graph.node if "lora" in node.name]
    found = [numpy_helper.to_array(array) for array in graph.initializer]
    for name, tensor in before.items():
        if not re.fullmatch(r"blocks\.\d+\.(attn|mlp)\.\w+\.weight", name):
            continue
        same_shape = [array for array in found if array.shape == tensor.T.shape]
        nearest = min(same_shape, key=lambda array: float(np.abs(array - tensor.T.numpy()).max()))
        rank = int(np.linalg.matrix_rank(nearest - tensor.T.numpy(), tol=1e-4))
        assert rank == (4 if name.startswith(("blocks.10.", "blocks.11.")) else 0), name


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_with_the_same_bits(
    tuned: rehead.Tuned, folder: Path, weights: str, cache: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    class Killing(Silent):
        def row(self, cells: Mapping[str, str]) -> None:
            if cells["epoch"].startswith("2 "):
                raise Killed

    with pytest.raises(Killed):
        rehead.tune(
            folder, cache=cache, out=tmp_path / "run", weights=weights, progress=Killing(), **ASKED, report=False
        )
    first, _ = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()  # with the seconds that it took
    again = rehead.tune(resume=tmp_path / "run", cache=cache, report=False)
    kept, _ = (again.run / "metrics.jsonl").read_text().splitlines()
    assert kept == first
    for name in ("model.onnx", "head.safetensors"):
        assert (again.bundle / name).read_bytes() == (tuned.bundle / name).read_bytes()


@pytest.mark.slow
def test_adapters_in_all_blocks_train_from_photos_too(folder: Path, weights: str, cache: Path, tmp_path: Path) -> None:
    asked = {**ASKED, "train": "lora:2", "cut": "none", "epochs": 1, "limit": 24}
    tuned = rehead.tune(folder, cache=cache, out=tmp_path / "run", weights=weights, **asked, report=False)
    learned = bundles.read(tuned.bundle).facts["backbone"]["learned"]
    assert learned == [f"blocks.{i}" for i in range(12)]


def test_a_plain_convolutional_network_is_refused_before_anything_is_computed(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="finds no attention or linear layer") as error:
        rehead.tune(folder, cache=cache, out=tmp_path / "run", train="lora:8", report=False)
    assert "made of convolutions" in error.value.why
    assert not (tmp_path / "run").exists()


def test_without_peft_the_error_is_the_line_that_installs_it(folder: Path, tmp_path: Path) -> None:
    arguments = ["rehead", "tune", str(folder), "--no-report", "--train", "lora:8", "--out", str(tmp_path / "run")]
    code = f"import sys; sys.modules['peft'] = None; sys.argv = {arguments!r}; "
    code += "from rehead.cli.commands import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert 'Install it with: pip install "rehead[lora]"' in done.stderr
    assert not (tmp_path / "run").exists()
