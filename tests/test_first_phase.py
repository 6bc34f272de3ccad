"""Last layers first, then all of them: one job, which a kill in either phase does not change by a bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_photos

import rehead
from rehead import bundle as bundles
from rehead.errors import RecipeError
from rehead.tuning.presets import PRESETS
from rehead.tuning.recipe import Recipe

Program = Callable[..., subprocess.CompletedProcess[str]]
ALL = {"train": "all", "first": "balanced", "epochs": 1, "batch_size": 8, "start_scale": 0.3, "lr": 1e-6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("phases") / "photos", {"red": 10, "blue": 10})


def test_the_last_layers_learn_and_then_all_of_them(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "balanced", {"train": "last:1", "epochs": 2, "views": 1, "norm": "adapt"})
    tuned = rehead.tune(folder, cache=cache, out=tmp_path / "run", **ALL, report=False)
    names = {path.name for path in tuned.run.iterdir()}
    assert {"first-metrics.jsonl", "first-curves.svg", "metrics.jsonl", "curves.svg"} <= names
    assert not names & {"tries", "checkpoint.safetensors"}
    assert [len((tuned.run / name).read_text().splitlines()) for name in ("first-metrics.jsonl", "metrics.jsonl")] == [
        2,
        1,
    ]
    assert "then trained with conv_head for 2 epochs by adamw" in tuned.head_note
    assert "then trained with all layers for 1 epoch by adamw" in tuned.head_note
    assert tuned.verdict.alone.both == tuned.verdict.alone.n == tuned.verdict.n
    log = (tuned.run / "log.txt").read_text()
    assert log.count("A linear head alone: ") == 1
    assert log.index("First phase") < log.index("What learns (last:1)") < log.index("Second phase")
    assert "steps are few for all layers: the highest rate is" in log
    assert "stem" in bundles.read(tuned.bundle).facts["backbone"]["learned"]
    first, later = (json.loads((tuned.run / name).read_text().splitlines()[-1]) for name in
                    ("first-metrics.jsonl", "metrics.jsonl"))  # fmt: skip
    assert later["watch_loss"] == pytest.approx(first["watch_loss"], abs=0.05), "it begins where the first phase ended"


@pytest.mark.slow
def test_a_wish_to_stop_in_the_first_phase_is_of_the_second_too(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_deeper import Stopping

    monkeypatch.setitem(PRESETS, "balanced", {"train": "last:1", "epochs": 2, "views": 1, "norm": "adapt"})
    listener = Stopping("Training")
    tuned = rehead.tune(
        folder, cache=cache, out=tmp_path / "run", progress=listener, stop=lambda: listener.wished, **ALL, report=False
    )
    assert (tuned.run / "log.txt").read_text().count("Stopped after 1 of") == 2
    assert tuned.verdict.top1.value > 0.5


def test_a_first_phase_has_its_presets_settings_and_keeps_what_concerns_the_machine() -> None:
    recipe = Recipe(
        train="all", first="balanced", lr=1e-4, mixup=0.3, watch=0.2, cache_limit_gb=3.0, seed=7, cut="none"
    )
    first = recipe.first_phase
    assert first is not None
    assert (first.train, first.lr, first.views) == ("last:40%", PRESETS["balanced"]["lr"], 4)
    assert (first.mixup, first.watch, first.cache_limit_gb, first.seed, first.cut) == (0.0, 0.2, 3.0, 7, None)
    assert first.first_phase is None
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_preset("thorough", {}).first_phase is not None


@pytest.mark.parametrize(
    "settings", [{"first": "balanced"}, {"first": "balanced", "train": "last:2"}, {"first": "quick"}]
)
def test_a_first_phase_goes_before_all_layers_alone(settings: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="--first"):
        Recipe.from_dict(settings)


@pytest.mark.slow
def test_a_kill_in_either_phase_changes_no_bit(rehead: Program, folder: Path, cache: Path, tmp_path: Path) -> None:
    options = [word for name, value in ALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    environment = {**os.environ, "REHEAD_CACHE": str(cache)}
    whole = rehead("tune", folder, *options, "--out", tmp_path / "whole", REHEAD_CACHE=str(cache))
    assert whole.returncode == 0, whole.stderr
    graph = (tmp_path / "whole" / "bundle" / "model.onnx").read_bytes()
    alone = json.loads((tmp_path / "whole" / "verdict.json").read_text())["alone"]
    assert alone is not None
    for number, moment in enumerate(("tries/first/metrics.jsonl", "checkpoint.safetensors")):
        run = tmp_path / f"run{number}"
        process = subprocess.Popen(
            [sys.executable, "-m", "rehead", "tune", str(folder), *options, "--no-report", "--out", str(run), "--json"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        while not (run / moment).exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (run / "verdict.json").exists()
        done = rehead("tune", "--resume", run, REHEAD_CACHE=str(cache))
        assert done.returncode == 0, done.stderr
        assert (run / "bundle" / "model.onnx").read_bytes() == graph, moment
        assert json.loads((run / "verdict.json").read_text())["alone"] == alone, moment
        assert "then trained with blocks.5" in json.loads((run / "run.json").read_text())["head"]
