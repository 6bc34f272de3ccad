"""Layers learn on a Ray cluster as they do on one machine, also when a process or its node dies on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from safetensors.numpy import load_file
from test_ray import copied, on_nodes

import rehead

SETTINGS: dict[str, Any] = {"train": "last:1", "epochs": 4, "batch_size": 16, "augment": "none", "report": False}
LONG = SETTINGS | {"epochs": 40}  # long enough to be killed on the way

pytestmark = pytest.mark.slow  # Ray Train takes 20 s to begin on two cores


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("learn") / "photos", {"red": 100, "blue": 100})


def epochs(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same(run: Path, alone: Path) -> None:
    """Each epoch once, with the losses of one machine; the same verdict."""
    ours, theirs = epochs(run), epochs(alone)
    assert [facts["epoch"] for facts in ours] == [facts["epoch"] for facts in theirs]
    for facts, wanted in zip(ours, theirs, strict=True):
        assert facts["loss"] == pytest.approx(wanted["loss"], abs=1e-3)
        assert facts["watch_loss"] == pytest.approx(wanted["watch_loss"], abs=1e-2)
    verdicts = [json.loads((place / "verdict.json").read_text()) for place in (run, alone)]
    assert verdicts[0]["top1"] == verdicts[1]["top1"]
    assert verdicts[0]["cells"] == verdicts[1]["cells"]
    assert (run / "catalog.csv").read_text() == (alone / "catalog.csv").read_text()


def test_two_nodes_learn_what_one_machine_learns(photos: Path, cache: Path, tmp_path: Path) -> None:
    rehead.tune(photos, cache=copied(cache, tmp_path / "own"), out=tmp_path / "alone", **SETTINGS)
    told = on_nodes("learns", photos, cache, tmp_path, LEARNS=json.dumps(SETTINGS))
    assert "2 processes learn together" in told["notes"]
    same(tmp_path / "run", tmp_path / "alone")
    for ours, wanted in zip(epochs(tmp_path / "run"), epochs(tmp_path / "alone"), strict=True):
        assert ours["loss"] == pytest.approx(wanted["loss"], abs=1e-5)


@pytest.mark.parametrize("scenario", ["learner_killed", "learning_node_killed"])
def test_what_was_learned_is_kept_when_a_process_or_its_node_dies(
    scenario: str, photos: Path, cache: Path, tmp_path: Path
) -> None:
    rehead.tune(photos, cache=copied(cache, tmp_path / "own"), out=tmp_path / "alone", **LONG)
    told = on_nodes(scenario, photos, cache, tmp_path, LEARNS=json.dumps(LONG))
    begun = [note for note in told["notes"] if "learn together" in note or note == "One process learns"]
    assert len(begun) > 1, told["notes"]
    assert (begun[-1] == "One process learns") == (scenario == "learning_node_killed")
    same(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize("dies", [False, True])
def test_a_head_of_dense_layers_learns_on_nodes_what_it_learns_on_one_machine(
    dies: bool, photos: Path, cache: Path, tmp_path: Path
) -> None:
    settings = {"head": "mlp:2000,500", "epochs": 12, "batch_size": 4, "lr": 1e-4, "report": False}
    alone = rehead.tune(photos, cache=copied(cache, tmp_path / "own"), out=tmp_path / "alone", **settings)
    how = {"LEARNS": json.dumps(settings)} | ({"KILL": "1"} if dies else {})
    told = on_nodes("dense", photos, cache, tmp_path, **how)
    assert told["notes"].count("2 processes learn together") == 1 + dies, told["notes"]
    assert alone.head_note in (tmp_path / "run" / "run.json").read_text()
    heads = [load_file(tmp_path / run / "bundle" / "head.safetensors") for run in ("run", "alone")]
    for name, wanted in heads[1].items():  # of features that hardly vary in drawn photos, weights are in the thousands
        np.testing.assert_allclose(heads[0][name], wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


def test_all_layers_learn_from_photos_that_nodes_read(photos: Path, cache: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"train": "all", "epochs": 1, "augment": "crop"}
    told = on_nodes("learns", photos, cache, tmp_path, LEARNS=json.dumps(settings))
    assert "2 processes learn together" in told["notes"]
    assert told["verdict"]["top1"]["value"] == 1.0
    assert len(epochs(tmp_path / "run")) == 1


def test_a_photo_that_a_node_cannot_read_is_told_as_such(photos: Path, cache: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"train": "all", "epochs": 1, "augment": "crop"}
    said = on_nodes("unseen", photos, cache, tmp_path, LEARNS=json.dumps(settings))["said"]
    assert "A node cannot read a photo that layers learn from." in said
    assert ".png cannot be read: No such file or directory." in said
    assert "on a disk that the nodes share" in said


def test_what_has_no_room_to_begin_is_told_and_can_be_ended(photos: Path, cache: Path, tmp_path: Path) -> None:
    told = on_nodes("without_room", photos, cache, tmp_path, LEARNS=json.dumps(SETTINGS))
    assert "was to end before the cluster had begun" in told["said"]
    assert "waited for 1 core of one node" in told["said"]
    assert "or leave --ray out; what had arrived is kept." in told["said"]
    assert any("no room for 1 core" in note for note in told["notes"]), told["notes"]
    assert told["seconds"] < 10


def test_a_defect_is_not_begun_anew_for_ever(photos: Path, cache: Path, tmp_path: Path) -> None:
    said = on_nodes("defect", photos, cache, tmp_path, LEARNS=json.dumps(SETTINGS))["said"]
    assert "failed 3 times in the same way" in said
    assert "RuntimeError: a defect" in said
