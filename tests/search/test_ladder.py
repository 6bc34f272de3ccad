"""--recipe auto: what is tried, what is kept, what is written down, and what happens when time or the job ends."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import numpy as np
import pytest
from conftest import make_photos
from PIL import Image
from safetensors.torch import save_file

import rehead
from rehead.deeper import tune_layers
from rehead.errors import Defect, DiskFull, Diverged, PhotoError, RecipeError, ReheadError, TooManyBad
from rehead.job import Job
from rehead.runs.folder import RunFolder
from rehead.search.ladder import _Climb, _compared, _Held
from rehead.search.tries import LADDER, Search
from rehead.solution import Solution
from rehead.tuning.presets import PRESETS
from rehead.tuning.recipe import Recipe
from rehead.tuning.recipe import load as load_recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny network with random weights, in a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(dict(rehead.backbone("test_resnet", pretrained=False).network.state_dict()), path)
    return {"backbone": "test_resnet", "weights": str(path)}


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise under two labels: nobody can tell them apart."""
    folder = tmp_path_factory.mktemp("hard") / "photos"
    random = np.random.default_rng(0)
    for label in ("one", "other"):
        (folder / label).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / label / f"{i}.png")
    return folder


def tries(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "tried.json").read_text())["tries"]


@pytest.fixture(scope="module")
def climbed(hard: Path, tiny: dict[str, Any], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    """A search in which each try is called better than the one before, and leaves what finding a rate would, which is slow."""

    def tune(job: Job, recipe: Recipe, run: RunFolder) -> Solution:
        solution = tune_layers(job, recipe, run)
        for name in "lr_range.json", "lr_range.svg":
            run.write(name, recipe.train)
        return solution

    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rehead.search.ladder._compared", lambda *pair: (True, _compared(*pair)[1]))
        patch.setattr("rehead.search.ladder.tune_layers", tune)
        return rehead.tune(
            hard, cache=cache, out=out, recipe="auto", budget_s=3000.0, epochs=2, views=2, **tiny, report=False
        )


def test_easy_photos_need_no_more_than_the_head(tiny: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", recipe="auto", **tiny, report=False)
    quick, balanced = tries(tuned.run)
    assert quick["kept"]
    assert balanced["seconds"] is None
    assert balanced["why"].endswith("of the photos that judge it, and more would not be worth it.")
    recipe = load_recipe(tuned.run / "recipe.toml")
    assert (recipe.train, recipe.budget_s) == ("head", None)
    assert quick["why"] in (tuned.run / "log.txt").read_text()


def test_a_try_is_judged_and_the_run_holds_the_recipe_that_is_kept(climbed: rehead.Tuned) -> None:
    found = tries(climbed.run)
    assert [entry["name"] for entry in found[:2]] == ["quick", "balanced"]
    balanced = found[1]
    assert balanced["right"]["n"] == pytest.approx(0.2 * found[0]["right"]["n"], abs=3)
    assert balanced["seconds"] > 0
    assert "watched photos" in balanced["why"]
    assert [entry["name"] for entry in found if entry["kept"]] == list(LADDER)
    assert load_recipe(climbed.run / "recipe.toml").train == PRESETS["thorough"]["train"]


def test_what_the_kept_try_wrote_stays_in_the_run(climbed: rehead.Tuned) -> None:
    told = {"metrics.jsonl", "curves.svg", "lr_range.json", "lr_range.svg"}
    assert (told | {f"first-{name}" for name in ("metrics.jsonl", "curves.svg")}) <= set(os.listdir(climbed.run))
    assert (climbed.run / "lr_range.svg").read_text() == PRESETS["thorough"]["train"]


def test_the_bundle_is_of_the_kept_try_and_the_tries_are_gone(climbed: rehead.Tuned, hard: Path) -> None:
    assert not (climbed.run / "tries").exists()
    learned = json.loads((climbed.bundle / "rehead.json").read_text())["backbone"]["learned"]
    assert learned == ["conv1.0", "conv1.3", "conv1.6", "layer1", "layer2", "layer3", "layer4"]
    assert rehead.load(climbed.bundle).predict(hard / "one" / "0.png").label in ("one", "other")


def test_what_would_not_be_finished_is_not_begun(hard: Path, tiny: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(
        hard, cache=cache, out=tmp_path / "run", recipe="auto", budget_s=15.0, epochs=500, **tiny, report=False
    )
    balanced = tries(tuned.run)[1]
    assert balanced["why"].startswith("Not tried: it would take about ")
    assert balanced["expected_s"] > 15


def held(name: str, watched: dict[int, bool]) -> _Held:
    solution = Solution(
        catalog=None,
        head=None, note="", train=[], held_out=[], logits=np.zeros((0, 2)), body=Path(), features=lambda pixels: pixels,
        card=None, bad={}, n_stored=0,
    )  # type: ignore[arg-type]  # fmt: skip
    return _Held(name, Recipe(), solution, watched)


def test_a_try_is_kept_only_when_it_is_clearly_better_on_photos_that_judge_both() -> None:
    simple = held("quick", {i: i % 2 == 0 for i in range(100)})
    better = held("balanced", {i: i % 4 != 3 for i in range(50, 120)})
    even = held("balanced", {i: i % 2 == 0 or i == 1 for i in range(100)})
    assert _compared(simple, better)[0]
    assert "on 50 watched photos" in _compared(simple, better)[1]
    is_kept, why = _compared(simple, even)
    assert not is_kept
    assert why.endswith("Not clearly better, so quick, the simpler, is kept.")
    assert not _compared(simple, held("balanced", {}))[0]
    of_one = "on 1 watched photo (too few to tell). Not clearly better, so quick, the simpler, is kept."
    assert _compared(simple, held("balanced", {0: True}))[1].endswith(of_one)


FAILURES = {
    "a photo that is gone": lambda: FileNotFoundError(errno.ENOENT, "No such file or directory", "photo.jpg"),
    "a photo that was torn": lambda: PhotoError(what="is cut short"),
    "too many of them": lambda: TooManyBad(what="30 of 80 photos cannot be read, which is more than 20%."),
    "no memory": lambda: RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."),
    "none of NumPy's": lambda: MemoryError("Unable to allocate 3 GiB"),
    "a full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "a full cache": lambda: DiskFull(what="The disk is full."),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_try_that_fails_leaves_what_was_kept(
    failure: Callable[[], Exception],
    hard: Path,
    tiny: dict[str, Any],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise failure()

    monkeypatch.setattr("rehead.search.ladder.tune_layers", fail)
    tuned = rehead.tune(hard, cache=cache, out=tmp_path / "run", recipe="auto", budget_s=3000.0, **tiny, report=False)
    quick, balanced = tries(tuned.run)
    error = failure()
    said = error.what if isinstance(error, ReheadError) else str(error)
    assert balanced["why"].rstrip(".") == f"Failed, so quick is kept: {said}".rstrip(".")
    assert quick["kept"]
    assert "balanced: Failed, so quick is kept" in (tuned.run / "log.txt").read_text()


def test_a_mistake_of_ours_ends_the_job(
    hard: Path, tiny: dict[str, Any], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehead.search.ladder.tune_layers", Mock(side_effect=Defect(what="Ours.")))
    with pytest.raises(Defect):
        rehead.tune(hard, cache=cache, out=tmp_path / "run", recipe="auto", budget_s=3000.0, **tiny, report=False)


@pytest.mark.long
def test_an_mlp_is_judged_on_all_photos_that_judge_the_next_try(
    hard: Path, tiny: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    tuned = rehead.tune(
        hard, cache=cache, out=tmp_path / "run", recipe="auto", budget_s=3000.0, head="mlp:8", epochs=2, views=1,
        **tiny, report=False,
    )  # fmt: skip
    quick, balanced = tries(tuned.run)[:2]
    rows = csv.DictReader((tuned.run / "catalog.csv").read_text().splitlines())
    assert quick["right"]["n"] == sum(row["side"] == "train" for row in rows)
    assert f"on {balanced['right']['n']} watched photos" in balanced["why"]
    assert "by 5-fold" in quick["why"]


@pytest.mark.long
def test_the_mlp_stays_where_its_folds_fail_or_time_is_up(
    hard: Path, tiny: dict[str, Any], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: Any) -> None:
        raise Diverged("The loss is no number.", 0.3)

    monkeypatch.setattr("rehead.search.ladder.cross_validated", diverges)
    mlp = {"recipe": "auto", "head": "mlp:8", "epochs": 2, "views": 1}
    tuned = rehead.tune(hard, cache=cache, out=tmp_path / "a", budget_s=3000.0, **mlp, **tiny, report=False)
    assert tries(tuned.run)[0]["kept"]
    assert "of the training side set aside" in tries(tuned.run)[0]["why"]
    monkeypatch.undo()
    late = rehead.tune(hard, cache=cache, out=tmp_path / "b", budget_s=0.01, **mlp, **tiny, report=False)
    assert "of the training side set aside" in tries(late.run)[0]["why"]
    assert re.search(r"quick is kept, \d+ s of 0 s are gone", (late.run / "log.txt").read_text())


@pytest.mark.parametrize(("gone_s", "given_s"), [(0, 480), (400, 160), (700, 0.001)])
def test_the_head_alone_takes_its_share_of_the_time_that_is_left(
    gone_s: float, given_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune_head = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("rehead.search.ladder.tune_head", tune_head)
    with pytest.raises(KeyboardInterrupt):
        _Climb(gone(gone_s), Search.of({"budget_s": 600.0}), Mock()).begin()
    assert tune_head.call_args.args[1].budget_s == pytest.approx(given_s, abs=1)


def gone(seconds: float) -> Mock:
    """A job that has taken so long."""
    job = Mock()
    job.clock.laps.return_value = {"total": seconds}
    return job


def test_a_try_that_goes_on_tells_which_settings_came_too_late_for_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").touch()
    begun = Search.of({"lr": 1e-3, "seed": 3}).recipe("balanced")
    (tmp_path / "recipe.toml").write_text(begun.to_toml())
    for lr, told in (1e-3, []), (1e-4, [call("balanced goes on as it began, without the new --lr")]):
        job = gone(0)
        climb = _Climb(job, Search.of({"lr": lr, "seed": 3}), Mock())
        assert climb.planned("balanced", Mock(path=tmp_path), Mock(), job) == (begun, 0.0)
        assert job.progress.note.call_args_list == told


@pytest.mark.parametrize("settings", [{"train": "last:1"}, {"watch": 0}, {"head": "prototype"}, {"epochs": 0}])
def test_settings_that_leave_nothing_to_find_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Search.of(settings)


@pytest.mark.parametrize(
    ("settings", "what", "fits"),
    [
        ({"quantize": "int8"}, "--quantize int8 is for a network that is frozen", "quick"),
        ({"head": "auto"}, "--head auto cannot be trained on", "quick"),
        ({"lr": "auto"}, "--lr auto has nothing to find", "balanced or thorough"),
        ({"first": "balanced"}, "--first balanced goes before --train all", "thorough"),
    ],
)
def test_a_setting_that_some_recipes_of_the_ladder_refuse_is_told_with_those_that_take_it(
    settings: dict[str, Any], what: str, fits: str
) -> None:
    with pytest.raises(RecipeError) as error:
        Search.of(settings)
    assert error.value.what.startswith(what)
    assert error.value.fix == f"Leave the setting out, or name one recipe that takes it: --recipe {fits}."


@pytest.mark.parametrize(
    "settings",
    [{"lr": "auto", "head": "auto"}, {"lr": "auto", "quantize": "int8"}, {"lr": "auto", "head": "prototype"}],
)
def test_settings_that_no_recipe_of_the_ladder_takes_together_are_not_answered_by_what_another_refuses(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(RecipeError, match="--lr auto has nothing to find") as error:
        Search.of(settings)
    assert error.value.fix == "Leave the setting out."


def test_a_setting_that_all_recipes_of_the_ladder_refuse_alike_is_told_as_by_each() -> None:
    with pytest.raises(RecipeError) as error:
        Search.of({"epochs": 0})
    with pytest.raises(RecipeError) as alone:
        Recipe.from_preset("balanced", {"epochs": 0})
    assert (error.value.what, error.value.why, error.value.fix) == (
        alone.value.what, alone.value.why, alone.value.fix,
    )  # fmt: skip


@pytest.mark.parametrize("budget", ["10m", 0, 0.0, True])
def test_a_budget_that_is_no_time_is_refused(budget: object) -> None:
    with pytest.raises(RecipeError, match=r"--budget must be 0\.001 seconds or more"):
        Search.of({"budget_s": budget})


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    search = Search.of({"seed": np.int64(3), "epochs": 2.0})
    assert json.dumps(search.written(())["settings"]) == '{"seed": 3, "epochs": 2}'


def test_settings_go_before_each_preset_and_the_budget_is_the_jobs() -> None:
    search = Search.of({"budget_s": 60.0, "lr": 1e-4, "seed": 3})
    for name in LADDER:
        assert (search.recipe(name).lr, search.recipe(name).seed) == (1e-4, 3)
        assert search.recipe(name).train == PRESETS[name]["train"]
    assert search.budget_s == 60.0
    assert search.recipe("balanced").budget_s is None


@pytest.mark.slow
def test_a_killed_search_goes_on_from_its_last_try(
    hard: Path, tiny: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "rehead", "tune", str(hard), "--no-report", "--recipe", "auto", "--budget", "1h",
               "--out", str(run),
               "--epochs", "8", "--backbone", "test_resnet", "--weights", tiny["weights"]]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "REHEAD_CACHE": str(cache)})
    ends = time.monotonic() + 120
    while not (run / "tries" / "balanced" / "checkpoint.safetensors").exists() and time.monotonic() < ends:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "verdict.json").exists()
    tuned = rehead.tune(resume=run, cache=cache, report=False)
    assert [entry["name"] for entry in tries(tuned.run)[:2]] == ["quick", "balanced"]
    assert "balanced: 8 epochs, it goes on" in (run / "log.txt").read_text()
