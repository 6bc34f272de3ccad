"""Trainings that stop by what goes wrong: what is said, what is kept, and how they go on."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import numpy as np
import pytest
from conftest import make_photos
from PIL import Image

import rehead
from rehead.errors import ClusterError, Diverged, RecipeError, RunError, UnknownLayer
from rehead.run import _how_to_go_on
from rehead.runs.contents import CHECKPOINT, SECONDS, TRIES
from rehead.runs.folder import RunFolder

LAST: dict[str, Any] = {"train": "last:1", "epochs": 2, "batch_size": 8}
TOO_HIGH = {**LAST, "batch_size": 2, "lr": 1000.0, "weight_decay": 10.0}  # weights grow ten thousandfold in a step
ROOM = 5_000_000  # bytes: between a checkpoint before the first step and one after it, which holds Adam's moments too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("going_on") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def diverged(folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Diverged]:
    """A run whose learning rate was too high, and what was said."""
    run = tmp_path_factory.mktemp("diverged") / "run"
    with pytest.raises(Diverged) as error:
        rehead.tune(folder, cache=cache, out=run, **TOO_HIGH, report=False)
    return run, error.value


@pytest.fixture
def run(diverged: tuple[Path, Diverged], tmp_path: Path) -> Path:
    return Path(shutil.copytree(diverged[0], tmp_path / "run"))


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Within it, writing on beyond this size fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_rate_that_is_too_high_is_told_with_its_step_and_what_to_do(diverged: tuple[Path, Diverged]) -> None:
    run, error = diverged
    assert "in epoch 1, batch" in error.what
    assert f"The learning rate there was {error.lr:g}" in error.why
    assert error.lr > 100
    assert error.fix.endswith(f"rehead tune --resume {run} --lr 100 --force")


@pytest.mark.slow
def test_it_goes_on_at_a_lower_rate_when_forced(
    run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = {"lr": 0.001, "weight_decay": 0.05}
    with pytest.raises(RunError) as error:
        rehead.tune(resume=run, cache=cache, **lower, report=False)
    assert error.value.why == "--lr is 1000.0, not 0.001; --weight-decay is 10.0, not 0.05."
    (run / SECONDS).write_text(json.dumps({"train": 990.0, "total": 1000.0}))
    monkeypatch.setenv("REHEAD_CACHE", str(tmp_path / "other"))
    tuned = rehead.tune(resume=run, force=True, **lower)
    assert tuned.images["from_store"] == 40, "the cache that it was told of at first"
    assert not (tmp_path / "other").exists()
    assert tuned.recipe.lr == 0.001
    assert tuned.report is None, "none was asked for at first"
    assert tuned.seconds["train"] > 990, "what the job took before counts too"
    assert tuned.seconds["total"] > 1000
    assert not (run / SECONDS).exists()
    assert tuned.verdict.top1.value == 1.0


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("recipe.toml", b"format = 1", b"format = 2", "The recipe has format 2; this rehead reads up to 1."),
        ("checkpoint.safetensors", b'"format":"1"', b'"format":"9"', "The checkpoint has format 9"),
    ],
)
def test_a_run_of_a_newer_version_is_refused_and_left_as_it_was(
    run: Path, cache: Path, file: str, old: bytes, new: bytes, said: str
) -> None:
    data = (run / file).read_bytes()
    assert old in data
    (run / file).write_bytes(data.replace(old, new))
    with pytest.raises((RecipeError, RunError), match=said) as error:
        rehead.tune(resume=run, cache=cache, force=True, report=False)
    assert "pip install --upgrade rehead" in error.value.fix
    assert (run / file).read_bytes() == data.replace(old, new)


def test_classes_that_came_are_refused_even_when_forced(run: Path, folder: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20, "green": 10})
    kept = {name: (run / name).read_bytes() for name in ("recipe.toml", "photos.json", "catalog.csv")}
    for force in (False, True):
        with pytest.raises(RunError, match="has learned other classes") as error:
            rehead.tune(photos, resume=run, cache=cache, force=force, report=False)
        assert "theirs are 'blue', 'green', 'red'" in error.value.why
    with pytest.raises(UnknownLayer):
        rehead.tune(resume=run, cache=cache, force=True, train="nowhere", report=False)
    assert {name: (run / name).read_bytes() for name in kept} == kept, "a run that was refused is as it was"


@pytest.mark.long
def test_photos_that_near_copies_took_to_the_training_side_are_not_held_out_later_also_when_forced(
    cache: Path, tmp_path: Path
) -> None:
    random, photos = np.random.default_rng(0), tmp_path / "photos"
    for label in ("one", "other"):
        (photos / label).mkdir(parents=True)
        for i in range(15):
            picture = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((96, 96))
            picture.save(photos / label / f"{i}.png")
            picture.resize((80, 80)).save(photos / label / f"{i}-copy.png")
    with pytest.raises(Diverged):
        rehead.tune(photos, cache=cache, out=tmp_path / "run", **TOO_HIGH, report=False)
    n = int(re.search(r"(\d+) held-out photos? went", (tmp_path / "run" / "log.txt").read_text())[1])
    with pytest.raises(RunError) as error:
        rehead.tune(resume=tmp_path / "run", cache=cache, tie_copies=False, force=True)
    assert error.value.what == f"Of the photos to hold out, the run {tmp_path / 'run'} has learned from {n}."
    with pytest.raises(Diverged):
        rehead.tune(resume=tmp_path / "run", cache=cache, tie_copies=True, force=True)


def test_held_out_photos_that_came_later_are_not_taken_for_wrong_before(
    run: Path, folder: Path, cache: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(folder, tmp_path / "photos")
    for photo in make_photos(tmp_path / "more", {"red": 45, "blue": 45}).rglob("*.png"):
        shutil.copy(photo, photos / photo.parent.name / f"later-{photo.name}")
    forced = {"resume": run, "cache": cache, "force": True, "report": False, "weight_decay": 0.0, "lr": 1e-4}
    tuned = rehead.tune(photos, **forced)
    assert tuned.verdict.n > 10
    assert tuned.verdict.alone is None


def test_a_wrong_folder_that_was_noticed_in_time_leaves_the_run_as_it_was(
    run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    kept = {name: (run / name).read_bytes() for name in ("recipe.toml", "photos.json", "catalog.csv")}
    wrong = make_photos(tmp_path / "wrong", {"red": 5, "grey": 5})
    monkeypatch.setattr("rehead.begin.scan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rehead.tune(wrong, resume=run, cache=cache, force=True, lr=1e-3, report=False)
    assert {name: (run / name).read_bytes() for name in kept} == kept


@pytest.mark.slow
def test_a_disk_that_is_full_in_a_checkpoint_leaves_the_one_before_and_the_run_goes_on(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    whole = rehead.tune(folder, cache=cache, out=tmp_path / "whole", **LAST, report=False)
    run = tmp_path / "run"
    with pytest.raises(RunError) as error, largest_file(ROOM):
        rehead.tune(folder, cache=cache, out=run, **LAST, report=False)
    assert error.value.what == f"The run could not be written to {run}: File too large."
    assert error.value.fix == f"Make room, and go on from there: rehead tune --resume {run}"
    assert not list(run.glob(".*.part")), "nothing half written is left"
    again = rehead.tune(resume=run, cache=cache, report=False)
    for name in ("model.onnx", "head.safetensors"):
        assert (again.bundle / name).read_bytes() == (whole.bundle / name).read_bytes()


def test_a_run_that_another_job_writes_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with RunFolder(out, force=False) as first:
        first.create("photos", "network")
        first.write("recipe.toml", "")
        with pytest.raises(RunError, match="Another job is writing"):
            RunFolder(out, force=True)
        first.write("verdict.json", "{}")
        first.finish()
    with contextlib.suppress(KeyboardInterrupt), RunFolder(out, force=True) as second:
        second.create("photos", "network")
        with pytest.raises(RunError, match="Another job is writing"):
            RunFolder(out, force=True)
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert sorted(path.name for path in out.iterdir()) == ["recipe.toml", "verdict.json"], "as it was"


def test_a_run_that_is_taken_up_stays_where_it_is(run: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--resume goes on in the run's own folder") as error:
        rehead.tune(resume=run, out=tmp_path / "other", cache=cache, report=False)
    assert "Leave --out out" in error.value.fix
    assert run.is_dir()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("place", [None, CHECKPOINT, f"{TRIES}/first/{CHECKPOINT}"])
def test_where_a_cluster_has_no_room_the_checkpoint_that_there_is_is_named(place: str | None, tmp_path: Path) -> None:
    if place is not None:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    run, progress = Mock(path=tmp_path), Mock()
    with pytest.raises(ClusterError), _how_to_go_on(run, progress, is_resumed=False):
        raise ClusterError(what="Training was to end before the cluster had begun with it.")
    said = [call(f"The last checkpoint is kept. Go on from it: rehead tune --resume {tmp_path}")] if place else []
    assert progress.note.call_args_list == said
