"""Exports that are killed, or find no room, leave the bundle whole; and networks of many kinds in every form."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_bundle, write_photos

import rehead as library
from rehead import bundle as bundles
from rehead.exporting.graph import export_prefix
from rehead.nets.cut import Pooled
from rehead.pixels import Preprocess
from rehead.runners import open_session
from rehead.variants.job import FORMS
from rehead.variants.onnx_in_torch import TorchGraph

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    small_bundle(folder / "bundle", write_photos(folder / "photos"))
    return folder


def started(place: Path, to: str, limit_bytes: int | None = None) -> subprocess.Popen[bytes]:
    """An export under way. limit_bytes: the size that no file may pass, as on a full disk."""

    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    command = [sys.executable, "-m", "rehead", "export", place / "bundle", "--to", to, "--photos", place / "photos"]
    env = {**os.environ, "REHEAD_CACHE": str(place / "cache"), "TMPDIR": str(place)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, preexec_fn=limit)


def is_whole(place: Path) -> bool:
    photo = next((place / "photos" / "red").iterdir())
    bundle = bundles.read(place / "bundle")
    return all(library.load(bundle.folder, variant=v).predict(photo).label == "red" for v in (None, *bundle.variants))


@pytest.mark.parametrize("to", list(FORMS))
def test_an_export_that_is_killed_at_any_moment_leaves_the_bundle_whole(place: Path, to: str) -> None:
    begun = time.monotonic()
    process = started(place, to)
    said = process.communicate()
    assert process.returncode == 0, said
    took = time.monotonic() - begun
    for share in (0.5, 0.8, 0.95, 1.0):
        process = started(place, to)
        time.sleep(share * took)
        process.kill()
        process.communicate()
        assert is_whole(place)


def test_ctrl_c_ends_it_in_words_and_nothing_is_left(place: Path) -> None:
    before = {path.name for path in place.iterdir()}
    process, ends = started(place, "onnx-int8"), time.monotonic() + 60
    while not any(place.glob(".rehead-export-*")):
        if process.poll() is not None or time.monotonic() > ends:
            process.kill()
            raise AssertionError(f"not begun: {process.communicate()}")
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, said
    assert "Aborted" in said
    assert "Traceback" not in said
    assert {path.name for path in place.iterdir()} - before <= {"cache", ".bundle.lock"}
    assert is_whole(place)


@pytest.mark.parametrize("to", list(FORMS))
def test_a_full_disk_is_told_and_the_bundle_stays(place: Path, to: str) -> None:
    for limit in (1_000, 12_000):
        process = started(place, to, limit)
        said = process.communicate()[1].decode()
        assert process.returncode == 2, said
        assert "The disk is full" in said
        assert is_whole(place)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0", "convnext_atto", "regnety_002",
        "vit_tiny_patch16_224", "mobilevit_xs",
    ],
)  # fmt: skip
def test_networks_of_many_kinds_become_programs(name: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False).eval()
    height, width = network.pretrained_cfg["input_size"][1:]
    path = tmp_path / "prefix.onnx"
    export_prefix(Pooled(network).eval(), Preprocess(height=height, width=width, mean=(0.5,) * 3, std=(0.5,) * 3), path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    wanted = open_session(path).run(["features"], {"pixels": pixels})[0]
    free = ({0: torch.export.Dim("n", min=1, max=64)},)
    program = torch.export.export(TorchGraph(path).eval(), (torch.from_numpy(pixels[:2]),), dynamic_shapes=free)
    for n in (1, 3):
        found = program.module()(torch.from_numpy(pixels[:n]))["features"].detach().numpy()
        assert np.abs(found - wanted[:n]).max() < 1e-4 * max(1.0, float(np.abs(wanted).max()))
