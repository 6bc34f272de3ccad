"""Other programs that follow a training: each keeps the protocol's laws, and none can stop the training."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import rehead
from rehead.errors import MissingExtra, RecipeError
from rehead.tuning import trackers
from rehead.tuning.trackers import TRACKERS, Trackers, chosen_trackers

Found = dict[int, float]


def from_tensorboard(run: Path) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("loss")}


def from_mlflow(run: Path) -> Found:
    with trackers._environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ALLOW_FILE_STORE="true"):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or (run / "mlflow").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'rehead'")
    (one,) = client.search_runs([experiment.experiment_id])
    assert one.info.status == "FINISHED"
    assert one.data.params["lr"] == "0.1"
    return {metric.step: metric.value for metric in client.get_metric_history(one.info.run_id, "loss")}


READERS: dict[str, Callable[[Path], Found]] = {"tensorboard": from_tensorboard, "mlflow": from_mlflow}


@pytest.fixture(params=TRACKERS)
def name(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def told(name: str, run: Path, losses: dict[int, float], first: int) -> list[str]:
    notes: list[str] = []
    tracker = Trackers([name], run, notes.append)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # their own, of one another
        tracker.begin({"lr": 0.1, "schedule": "one-cycle"}, first)
        for step, loss in losses.items():
            tracker.metrics(step, {"loss": loss, "lr": 0.01})
        (run / "recipe.toml").write_text("format = 1\n")
        tracker.end([run / "recipe.toml"])
    return notes


def test_what_was_told_reads_back_at_its_steps(name: str, tmp_path: Path) -> None:
    assert told(name, tmp_path, {1: 0.5, 2: 0.25}, first=1) == []
    assert READERS[name](tmp_path) == {1: 0.5, 2: 0.25}


def test_begun_again_it_goes_on_and_what_is_told_again_counts(name: str, tmp_path: Path) -> None:
    told(name, tmp_path, {1: 0.5, 2: 0.25}, first=1)
    assert told(name, tmp_path, {2: 0.125, 3: 0.0625}, first=2) == []
    assert READERS[name](tmp_path) == {1: 0.5, 2: 0.125, 3: 0.0625}


def test_one_that_fails_is_let_go_with_a_word_said_once(name: str, tmp_path: Path) -> None:
    run = tmp_path / "file"
    run.write_text("no folder")
    notes: list[str] = []
    tracker = Trackers([name], run, notes.append)
    tracker.begin({"lr": 0.1}, 1)
    tracker.metrics(1, {"loss": 0.5})
    tracker.end([])
    assert len(notes) == 1
    assert notes[0].startswith(f"{name} is told nothing more: ")


def test_the_environment_is_as_before(name: str, tmp_path: Path) -> None:
    before = dict(os.environ)
    told(name, tmp_path, {1: 0.5}, first=1)
    assert dict(os.environ) == before


def test_mlflow_logs_where_its_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "run"
    run.mkdir()
    assert told("mlflow", run, {1: 0.5}, first=1) == []
    assert from_mlflow(run) == {1: 0.5}
    assert [path.name for path in (tmp_path / "server").glob("**/recipe.toml")] == ["recipe.toml"]
    assert not (run / "mlflow").exists()


def test_a_name_that_is_no_tracker_and_a_library_that_is_not_there_are_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'mlflow'"):
        chosen_trackers(["mlfow"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"rehead\[tensorboard\]"):
        chosen_trackers(["tensorboard"])


def test_a_head_alone_has_no_epochs_to_follow(photos: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for track in ["tensorboard"], "tensorboard":
        with pytest.raises(RecipeError, match="--track tensorboard has nothing to follow"):
            rehead.tune(photos, cache=cache, out=tmp_path / "run", track=track, report=False)


def test_a_search_has_no_one_training_to_follow(photos: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(RecipeError, match="--recipe auto tries one recipe after another") as error:
        rehead.tune(
            photos, cache=cache, out=tmp_path / "run", recipe="auto", budget_s=60, track="tensorboard", report=False
        )
    assert error.value.fix == "Leave --track out, or name --recipe balanced or thorough."
