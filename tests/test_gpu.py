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
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", device="cuda", **settings)
    assert tuned.verdict.top1.value >= 0.9
    assert rehead.load(tuned.bundle).predict(str(photos / "red" / "0.png")).label == "red"
