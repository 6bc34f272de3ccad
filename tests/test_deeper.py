"""Layers below the head tuned end to end: from the command line, killed and taken up again, and what it says when it cannot."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_photos
from PIL import Image
from safetensors.torch import load_file, save_file

import rehead
from rehead import activations, cutting, deeper, ground, outcome
from rehead import bundle as bundles
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import RecipeError, RunError, UnknownLayer
from rehead.extraction import extract_missing
from rehead.features.engines import Prefix
from rehead.fitting import with_decided_fit
from rehead.job import Job
from rehead.phase import trained
from rehead.progress import Silent
from rehead.runs.outputs import read_outputs
from rehead.solution import Solution
from rehead.tuning import familiar, feed, plan
from rehead.tuning.head import Fitted
from rehead.tuning.layers import Stage
from rehead.tuning.plan import described, needed_bytes, planned
from rehead.tuning.presets import PRESETS
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import first_head, fit_task
from rehead.verdict.judging import read_verdict

Program = Callable[..., subprocess.CompletedProcess[str]]
LAST = {"train": "last:1", "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("deeper") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def tuned(folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    return rehead.tune(folder, cache=cache, out=tmp_path_factory.mktemp("run") / "first", **LAST, report=False)


def catalog_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "catalog.csv").read_text(encoding="utf-8").splitlines()))


def graph(tuned: rehead.Tuned) -> bytes:
    return (tuned.bundle / "model.onnx").read_bytes()


def test_a_run_of_layers_is_verified_and_holds_what_any_run_does(tuned: rehead.Tuned) -> None:
    assert tuned.verdict.top1.value == 1.0
    names = {path.name for path in tuned.run.iterdir()}
    assert {"bundle", "catalog.csv", "log.txt", "metrics.jsonl", "recipe.toml", "verdict.json"} <= names
    assert not names & {"checkpoint.safetensors", "body.onnx"}
    epochs = [json.loads(line) for line in (tuned.run / "metrics.jsonl").read_text().splitlines()]
    assert [facts["epoch"] for facts in epochs] == [1, 2]
    assert {"loss", "lr", "watch_loss", "watch_right", "images_per_s"} <= set(epochs[0])
    log = (tuned.run / "log.txt").read_text()
    assert re.search(r"conv_head +412,160 parameters +learns", log)
    assert re.search(r"blocks.6 +605,440 parameters +frozen", log)
    assert "Kept behind blocks.6: 40 photos in 2 views, 3 MB." in log
    told = log.index("A linear head alone: held-out accuracy 100.0% (67.6% to 100.0%) on 8 photos")
    assert log.find("epoch 1 of 2", told) > 0
    assert (tuned.verdict.alone.both, tuned.verdict.alone.n) == (8, 8)
    assert tuned.verdict.notes[-1].startswith(
        "What its layers learned does not show on these photos: a linear head alone is right on"
    )


@pytest.mark.parametrize(
    "settings",
    [LAST, LAST | {"norm": "adapt"}, {"train": "all", "epochs": 1, "batch_size": 8}],
    ids=["last", "adapt", "all"],
)
def test_beside_the_model_stands_what_a_head_alone_names_as_train_head_solves_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Of photos that few can tell apart, so that it is wrong on some."""
    photos, dice, made = tmp_path / "photos", np.random.default_rng(0), list[Any]()
    for i in range(90):
        place = photos / ("valid" if i % 3 == 0 else "train") / "ab"[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        tint = np.array([30 * (i % 2), 0, 0])
        picture = dice.integers(0, 200, (9, 9, 3)) + tint
        Image.fromarray(picture.astype(np.uint8)).resize((96, 96)).save(place)
    solved: list[tuple[int, float | None]] = []

    def fit(task: Any, features: np.ndarray, *rest: Any) -> Fitted:
        fitted = fit_task(task, features, *rest)
        solved.append((len(features), fitted.penalty))
        return fitted

    monkeypatch.setattr(outcome, "Solution", lambda **facts: made.append(facts) or Solution(**facts))
    monkeypatch.setattr(ground, "fit_task", fit)
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", device="cpu", **settings, report=False)
    head = rehead.tune(photos, cache=cache, out=tmp_path / "head", device="cpu", report=False)
    alone, outputs, rows = made[0]["alone"][:, 0], read_outputs(tuned.run), catalog_of(tuned.run)
    is_same = alone == read_outputs(head.run).logits.argmax(axis=1)
    ((n_learned, penalty),) = solved
    assert n_learned == 60
    if settings["train"] == "all":  # the same features; behind kept activations another engine computes the rest
        assert is_same.all()
        assert penalty == json.loads((head.run / "run.json").read_text())["penalty"]
    assert is_same.mean() > 0.9
    assert read_verdict(tuned.verdict.to_dict()) == tuned.verdict
    is_b = np.array([rows[i]["label"] == "b" for i in outputs.held_out.tolist()])
    before, after = alone == is_b, outputs.logits.argmax(axis=1) == is_b
    found = tuned.verdict.alone
    pairs = ((True, True), (True, False), (False, True), (False, False))
    counts = [int((before == old)[after == new].sum()) for old, new in pairs]
    assert [found.both, found.only_first, found.only_second, found.neither] == counts
    assert 0 < before.sum() < len(before) == 30


def test_without_a_warm_head_nothing_stands_beside_the_model(folder: Path, cache: Path, tmp_path: Path) -> None:
    asked = LAST | {"epochs": 1, "warm_head": False}
    tuned = rehead.tune(folder, cache=cache, out=tmp_path / "run", **asked, report=False)
    assert tuned.verdict.alone is None
    assert "A linear head alone" not in (tuned.run / "log.txt").read_text()


def test_a_limit_takes_the_photos_that_a_head_alone_takes_and_no_copy_is_held_out(cache: Path, tmp_path: Path) -> None:
    """Near copies that change sides change no choice: those that would come instead were never looked at."""
    dice, photos, used = np.random.default_rng(1), tmp_path / "photos", []
    for label in ("one", "other"):
        (photos / label).mkdir(parents=True)
        for i in range(20):
            picture = Image.fromarray(dice.integers(0, 256, (5, 5, 3), np.uint8)).resize((96, 96))
            picture.save(photos / label / f"{i}.png")
            picture.save(photos / label / f"{i}-copy.png", compress_level=1)  # other bytes
    for settings in ({}, LAST | {"epochs": 1}, {"train": "all", "epochs": 1}):
        run = rehead.tune(photos, cache=cache, out=tmp_path / "run", force=True, limit=40, report=False, **settings).run
        outputs, rows = read_outputs(run), catalog_of(run)
        used.append([{rows[i]["path"] for i in side} for side in (outputs.train.tolist(), outputs.held_out.tolist())])
    train, held_out = used[0]
    assert len(train) + len(held_out) == 40
    assert used[1:] == used[:1] * 2
    assert not {path.replace("-copy", "") for path in train} & {path.replace("-copy", "") for path in held_out}


def test_its_bundle_predicts_without_torch_and_names_the_layers(tuned: rehead.Tuned, folder: Path) -> None:
    assert bundles.read(tuned.bundle).facts["backbone"]["learned"] == ["conv_head"]
    photo = folder / "red" / "0.png"
    code = "import sys; sys.modules['torch'] = None; import rehead; "
    code += f"print(rehead.load({str(tuned.bundle)!r}).predict({str(photo)!r}).label)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "red", done.stderr


@pytest.mark.long
def test_activations_in_a_file_give_the_same_model(
    tuned: rehead.Tuned, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, let = [], []
    monkeypatch.setattr(activations, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(activations, "let_go", kept.append)
    monkeypatch.setattr(feed, "let_go", let.append)
    again = rehead.tune(folder, cache=cache, out=tmp_path / "run", **LAST, report=False)
    assert (again.bundle / "head.safetensors").read_bytes() == (tuned.bundle / "head.safetensors").read_bytes()
    assert graph(again) == graph(tuned)
    assert len(kept) == 2
    assert all(isinstance(view, np.memmap) for view in kept)
    assert {id(view) for view in kept} == {id(view) for view in let}


@pytest.mark.long
def test_the_head_to_begin_with_is_solved_without_the_photos_that_are_watched(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say what was there before, which epoch is kept and how sure answers are."""
    solved, watched = [], []

    def solve(task: str, pooled: np.ndarray, *rest: Any) -> Any:
        solved.append(len(pooled))
        return first_head(task, pooled, *rest)

    def train(model: Any, on: Any, *rest: Any) -> Any:
        watched.append((len(on.train), len(on.learn), len(on.watch)))
        return trained(model, on, *rest)

    monkeypatch.setattr(ground, "first_head", solve)
    monkeypatch.setattr(deeper, "trained", train)
    for settings in (LAST, {**LAST, "cut": "none"}):
        rehead.tune(folder, cache=cache, out=tmp_path / "run", force=True, **settings, report=False)
    for n_solved, (n_train, n_learn, n_watch) in zip(solved, watched, strict=True):
        assert n_solved == n_learn == n_train - n_watch < n_train


@pytest.mark.long
def test_norms_take_statistics_only_where_something_learns_and_each_photo_counts_alike(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the cut is: how much room the disk has is nothing that a model may depend on."""
    seen: list[tuple[set[str], list[int]]] = []

    def adapt(body: torch.nn.Module, learning: list[torch.nn.Module], batches: Any) -> None:
        norms = {name for name, m in body.named_modules() if any(m is part for of in learning for part in of.modules())}
        seen.append(({name for name in norms if "bn" in name}, [len(x) for x in batches]))

    monkeypatch.setattr("rehead.tuning.modes.adapt_norms", adapt)
    for cut in (None, "blocks.4"):
        asked: dict[str, Any] = LAST | {"epochs": 1, "batch_size": 13, "norm": "adapt", "cut": cut}
        rehead.tune(folder, cache=cache, out=tmp_path / str(cut), **asked, report=False)
    (own, sizes), (earlier, _) = seen
    assert own == earlier != set()
    assert max(sizes) - min(sizes) <= 1 < len(sizes)


@pytest.mark.long
def test_what_is_familiar_is_told_by_photos_of_all_classes(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(familiar, "MAX_BANK", 12)
    monkeypatch.setattr(familiar, "MIN_BANK", 5)
    made: list[Any] = []
    monkeypatch.setattr(outcome, "Solution", lambda **facts: made.append(facts) or Solution(**facts))
    tuned = rehead.tune(folder, cache=cache, out=tmp_path / "run", with_neighbours=True, **LAST, report=False)
    assert len(made[0]["bank"]) == 12
    assert {made[0]["catalog"].photos[i].label for i in made[0]["bank"]} == {"red", "blue"}
    bank = made[0]["familiar"].bank.astype(np.float32)
    photos = [folder / made[0]["catalog"].photos[i].path for i in made[0]["bank"]]
    shown = np.stack([rehead.load(tuned.bundle).features(photo) for photo in photos])
    np.testing.assert_allclose(bank, shown / np.linalg.norm(shown, axis=1, keepdims=True), atol=2e-3)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_from_another_cache(
    tuned: rehead.Tuned, folder: Path, tmp_path: Path
) -> None:
    again = rehead.tune(folder, cache=tmp_path / "cache", out=tmp_path / "run", **LAST, report=False)
    assert (again.bundle / "head.safetensors").read_bytes() == (tuned.bundle / "head.safetensors").read_bytes()
    assert graph(again) == graph(tuned)


def test_too_few_photos_to_train_from_are_told_before_anything_is_trained(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="1 photo is too few to learn and verify 2 classes"):
        rehead.tune(folder, cache=cache, train="all", limit=1, epochs=1, out=tmp_path / "run", report=False)


def test_all_layers_train_from_photos(folder: Path, cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(
        folder,
        cache=cache,
        out=tmp_path / "run",
        train="all",
        epochs=1,
        batch_size=16,
        limit=24,
        augment="crop",
        mixup=0.2,
        cutmix=1.0,
        erase=0.5,
        report=False,
    )
    assert tuned.images["used"] == 24
    assert "stem" in bundles.read(tuned.bundle).facts["backbone"]["learned"]
    assert "few for all layers: the highest rate is" in (tuned.run / "log.txt").read_text()


@pytest.mark.slow
def test_a_part_of_a_layer_of_another_network_learns_with_a_random_mlp_on_top(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    save_file(dict(rehead.backbone("resnet18", pretrained=False).network.state_dict()), tmp_path / "w.safetensors")
    tuned = rehead.tune(
        folder, cache=cache, out=tmp_path / "run", backbone="resnet18", weights=str(tmp_path / "w.safetensors"),
        train="layer4.1,head", head="mlp:16", warm_head=False, epochs=1, limit=16, views=1, norm="adapt",
    report=False)  # fmt: skip
    assert len(load_file(tuned.bundle / "head.safetensors")) == 4
    assert "random at first" in tuned.head_note
    assert bundles.read(tuned.bundle).facts["backbone"]["learned"] == ["layer4.1"]
    log = (tuned.run / "log.txt").read_text()
    assert re.search(r"layer4.0 +3,673,088 parameters +frozen", log)
    assert "Kept behind layer4.0: 16 photos" in log


@pytest.mark.slow
def test_bad_photos_are_skipped_when_training_from_photos(folder: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    (photos / "red" / "0.png").write_bytes((photos / "red" / "0.png").read_bytes()[:200])
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", train="last:1", cut="none", epochs=1, report=False)
    assert tuned.images == {"used": 23, "skipped": 1, "from_store": 0}


@pytest.mark.parametrize(
    ("setting", "value"), [("train", "blokcs.6"), ("train", "lora:8@blokcs.6"), ("cut", "blokcs.6")]
)
def test_a_layer_that_is_not_there_is_an_error_before_a_photo_is_read(
    setting: str, value: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnknownLayer, match=r"No layer is called 'blokcs\.6'") as error:
        rehead.tune(tmp_path / "no photos", cache=cache, out=tmp_path / "run", **{setting: value}, report=False)
    assert "blocks.6" in str(error.value)
    assert not (tmp_path / "run").exists()


STAGES = [
    Stage("stem", 10, 1, (32, 112, 112)), Stage("a", 10, 1, (16, 56, 56)), Stage("b", 10, 1, (8, 7, 7)),
    Stage("pool", 0, 0, (8,)), Stage("head", 10, 0, (2,)),
]  # fmt: skip


def test_the_cut_moves_to_where_activations_fit_or_nothing_is_kept(tmp_path: Path) -> None:
    def cut(gigabytes: float, **settings: object) -> str | None:
        recipe = Recipe.from_dict({"train": "b", "cache_limit_gb": gigabytes, **settings})
        return planned(recipe, STAGES, 1000, tmp_path).cut

    recipe = Recipe(train="b")
    large, small = (needed_bytes(stage, recipe, 1000) / 1e9 for stage in STAGES[:2])
    assert cut(small) == "a"
    assert cut(small / 2) is None
    assert cut(large, train="b,a") == "stem"
    assert cut(small, cut="none") is None
    assert cut(large, cut="stem") == "stem"
    assert planned(Recipe(train="all"), STAGES, 1000, tmp_path).cut is None
    moved = Recipe(train="b", cache_limit_gb=small / 2)
    last = described(STAGES, planned(moved, STAGES, 1000, tmp_path), moved, 1000)[-1]
    assert last.startswith(
        "Nothing is kept: each epoch reads the photos (205 MB behind a would be more than --cache-limit"
    )


@pytest.mark.parametrize("cut", ["none", "stem"])
def test_the_fit_is_decided_by_the_whole_frozen_network_wherever_it_is_cut(
    cut: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided_by = []

    def best_fit(job: Job, prefix: Prefix, recipe: Recipe) -> Prefix:
        decided_by.append(prefix.card.cut)
        return prefix

    monkeypatch.setattr("rehead.fitting._best_fit", best_fit)
    job = Job(scan(open_source(folder, cache=cache), seed=0, valid_fraction=0.2), cache)
    with_decided_fit(job, Recipe(train="last:1", cut=cut, fit="auto"))
    assert decided_by == ["pool"]


def test_a_head_alone_learns_from_the_same_features_where_nothing_is_to_be_kept(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    settings = {"cache": cache, "head": "prototype", "report": False}
    one, other = (rehead.tune(folder, out=tmp_path / str(cut), cut=cut, **settings) for cut in (None, "none"))
    assert graph(one) == graph(other)


def test_a_cut_behind_a_layer_that_learns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not below a, the first layer that learns"):
        planned(Recipe(train="a,b", cut="b"), STAGES, 10, tmp_path)
    with pytest.raises(UnknownLayer):
        planned(Recipe(train="c"), STAGES, 10, tmp_path)
    with pytest.raises(UnknownLayer) as error:
        planned(Recipe(train="b", cut="stm"), STAGES, 10, tmp_path)
    assert "'stem'" in error.value.fix


@pytest.mark.parametrize("setting", [{"head": "prototype"}, {"head": "auto"}])
def test_what_cannot_go_with_deeper_layers_is_refused(setting: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="--train last:1"):
        Recipe.from_dict({"train": "last:1", **setting})


def start(folder: Path, out: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "rehead",
        "tune",
        str(folder),
        "--train",
        "last:1",
        "--epochs",
        "2",
        "--batch-size",
        "8",
    ]
    return subprocess.Popen(
        [*command, "--out", str(out), "--json", *more],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "REHEAD_CACHE": str(cache)},
    )  # fmt: skip


def kill_when(process: subprocess.Popen[str], path: Path, deadline_s: float = 120) -> bool:
    """Kills the process as soon as the file is there; False when it ended first."""
    ends = time.monotonic() + deadline_s
    while time.monotonic() < ends and process.poll() is None:
        if path.exists():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.communicate()
    return process.returncode == -signal.SIGKILL


class Stopping(Silent):
    """A listener that wishes the job to end from the beginning of a phase on."""

    def __init__(self, when: str) -> None:
        self.when, self.wished = when, False

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self.wished = self.wished or name == self.when


@pytest.mark.parametrize(("when", "n_epochs"), [("Extracting", 2), ("Training", 1)])
@pytest.mark.long
def test_a_wish_to_stop_ends_what_is_under_way_and_what_comes_next_is_done_whole(
    when: str, n_epochs: int, folder: Path, cache: Path, tmp_path: Path
) -> None:
    listener = Stopping(when)
    tuned = rehead.tune(
        folder, cache=cache, out=tmp_path / "run", progress=listener, stop=lambda: listener.wished, **LAST, report=False
    )
    epochs = (tuned.run / "metrics.jsonl").read_text().splitlines()
    assert len(epochs) == n_epochs
    assert ("Stopped after 1 of" in (tuned.run / "log.txt").read_text()) == (when == "Training")
    assert ("% of the last by" in tuned.head_note) == (when == "Training")
    assert tuned.verdict.n_train < len(read_outputs(tuned.run).train)  # some were watched


class Interrupting(Silent):
    """A listener that ends the job when its second epoch is over and not yet kept, as Ctrl-C twice does."""

    def row(self, cells: Mapping[str, str]) -> None:
        if cells["epoch"].startswith("2 "):
            raise KeyboardInterrupt


def interrupted(photos: Path, run: Path, cache: Path, **settings: Any) -> None:
    """Leaves a run that can be taken up."""
    with pytest.raises(KeyboardInterrupt):
        rehead.tune(photos, cache=cache, out=run, progress=Interrupting(), **settings, report=False)
    assert (run / "checkpoint.safetensors").is_file()


@pytest.mark.long
def test_an_epoch_that_was_kept_is_not_learned_again(
    tuned: rehead.Tuned, folder: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    interrupted(folder, run, cache, **LAST)
    first, _ = (run / "metrics.jsonl").read_text().splitlines()  # with the seconds that it took
    again = rehead.tune(resume=run, cache=cache, report=False)
    kept, second = (run / "metrics.jsonl").read_text().splitlines()
    assert (kept, json.loads(second)["epoch"]) == (first, 2)
    assert graph(again) == graph(tuned)


@pytest.mark.slow
def test_a_killed_run_is_taken_up_and_ends_with_the_same_bits(
    tuned: rehead.Tuned, rehead: Program, folder: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert kill_when(start(folder, run, cache), run / "metrics.jsonl")  # the first epoch is over
    assert not (run / "verdict.json").exists()
    done = rehead("tune", "--resume", run, "--json", REHEAD_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert (run / "bundle" / "model.onnx").read_bytes() == graph(tuned)
    assert json.loads((run / "verdict.json").read_text())["alone"] == tuned.verdict.to_dict()["alone"]
    finished = rehead("tune", "--resume", run)
    assert finished.returncode == 2
    assert "is finished" in finished.stderr


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(
    tuned: rehead.Tuned, rehead: Program, folder: Path, tmp_path: Path
) -> None:
    dice, n_resumed, begun = random.Random(0), 0, time.monotonic()
    start(folder, tmp_path / "whole", tmp_path / "cache").communicate()
    took = time.monotonic() - begun
    for moment in range(20):
        run, cache = tmp_path / f"run{moment}", tmp_path / f"cache{moment // 5}"
        process = start(folder, run, cache)
        try:
            process.communicate(timeout=dice.uniform(0.1, 0.8) * took)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        again = ("tune", "--resume", run) if (run / "recipe.toml").exists() else None
        if again and not (run / "verdict.json").exists() and (run / "photos.json").exists():
            n_resumed += 1
            done = rehead(*again, REHEAD_CACHE=str(cache))
        elif not (run / "verdict.json").exists():
            done = rehead("tune", folder, "--train", "last:1", "--epochs", "2", "--batch-size", "8", "--out", run, "--force",
                          REHEAD_CACHE=str(cache))  # fmt: skip
        else:
            continue
        assert done.returncode == 0, (moment, done.stderr)
        assert (run / "bundle" / "model.onnx").read_bytes() == graph(tuned), moment
    assert n_resumed >= 3


@pytest.mark.slow
def test_a_run_goes_on_only_with_its_own_photos_and_recipe_unless_forced(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    interrupted(photos, tmp_path / "run", cache, **LAST)
    with pytest.raises(RunError) as error:
        rehead.tune(resume=tmp_path / "run", cache=cache, epochs=7, report=False)
    assert "--epochs is 2, not 7" in error.value.why
    (photos / "red" / "0.png").unlink()
    with pytest.raises(RunError) as error:
        rehead.tune(resume=tmp_path / "run", cache=cache, report=False)
    assert "1 are gone" in error.value.why
    tuned = rehead.tune(resume=tmp_path / "run", cache=cache, force=True, report=False)
    assert tuned.images["used"] == 23


class Grounds:
    """What trainings stood on: digests of the photos to learn from, and of those that are watched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[set[bytes], set[bytes]]] = []
        monkeypatch.setattr(deeper, "trained", self.trained)

    def trained(self, model: Any, on: Any, *rest: Any) -> Any:
        train = np.array(on.train)
        self.seen.append(tuple(set(on.job.catalog.digests(train[places].tolist())) for places in (on.learn, on.watch)))
        return trained(model, on, *rest)


@pytest.mark.long
def test_a_run_that_is_taken_up_keeps_its_cut_where_the_disk_has_no_more_room(
    tuned: rehead.Tuned, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(folder, tmp_path / "run", cache, **LAST)
    monkeypatch.setattr(plan, "free_bytes", lambda folder: 0)
    monkeypatch.setattr(cutting, "kept_bytes", lambda *_: 0)
    again = rehead.tune(resume=tmp_path / "run", cache=cache, report=False)
    assert graph(again) == graph(tuned)
    assert not (again.run / "footing.json").exists()


@pytest.mark.long
def test_activations_that_are_there_take_no_more_room(
    tuned: rehead.Tuned, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "free_bytes", lambda folder: 1e6)  # of the 3 MB that they take
    again = rehead.tune(folder, cache=cache, out=tmp_path / "run", **LAST, report=False)
    assert graph(again) == graph(tuned)
    assert "Kept behind blocks.6" in (again.run / "log.txt").read_text()


class StoppingSoon(Silent):
    """A listener that wishes the job to end when the first photos of a phase are done."""

    def __init__(self, when: str) -> None:
        self.when, self.phase_now, self.wished = when, "", False

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self.phase_now = name

    def advance(self, n: int = 1) -> None:
        self.wished = self.wished or (self.phase_now == self.when and n > 0)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "many", {"red": 90, "blue": 90})


@pytest.fixture
def empty(cache: Path, tmp_path: Path) -> Path:
    """A cache that has the networks alone."""
    shutil.copytree(cache / "prefixes", tmp_path / "cache" / "prefixes")
    return tmp_path / "cache"


@pytest.mark.long
def test_a_run_whose_extraction_was_ended_goes_on_with_the_same_photos(
    tuned: rehead.Tuned, many: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grounds, listener = Grounds(monkeypatch), StoppingSoon("Extracting")
    monkeypatch.setattr(StoppingSoon, "row", Interrupting.row)
    (many / "red" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(KeyboardInterrupt):
        rehead.tune(many, cache=empty, out=tmp_path / "run", progress=listener, stop=lambda: listener.wished, **LAST)
    again = rehead.tune(resume=tmp_path / "run", cache=empty, report=False)
    assert again.images["used"] < 170
    assert again.verdict.partial
    assert grounds.seen[0] == grounds.seen[1]


@pytest.mark.long
def test_views_that_were_left_out_stay_so_when_a_run_is_taken_up(
    tuned: rehead.Tuned, folder: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = StoppingSoon("Extracting crop-1")
    monkeypatch.setattr(StoppingSoon, "row", Interrupting.row)
    settings = {**LAST, "augment": "crop", "views": 3}
    with pytest.raises(KeyboardInterrupt):
        rehead.tune(
            folder, cache=empty, out=tmp_path / "run", progress=listener, stop=lambda: listener.wished, **settings
        )
    log = tmp_path / "run" / "log.txt"
    assert "The view crop-2 is not whole and is left out." in log.read_text()
    phases: list[str] = []
    monkeypatch.setattr(Silent, "phase", lambda self, name, *_: phases.append(name))
    rehead.tune(resume=tmp_path / "run", cache=empty, progress=Silent(), report=False)
    assert "Extracting" in phases
    assert not [name for name in phases if name.startswith("Extracting crop")]


@pytest.mark.long
def test_a_second_phase_has_the_photos_of_the_first(
    tuned: rehead.Tuned, many: Path, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And watches those that the first did not learn from, where extraction was ended."""
    monkeypatch.setitem(PRESETS, "balanced", {"train": "last:1", "epochs": 1, "views": 1, "norm": "adapt"})
    grounds, listener = Grounds(monkeypatch), StoppingSoon("Extracting")
    settings = {"train": "all", "first": "balanced", "epochs": 1, "batch_size": 8, "start_scale": 0.3}
    ended = rehead.tune(
        many, cache=empty, out=tmp_path / "run", progress=listener, stop=lambda: listener.wished, **settings,
        report=False,
    )  # fmt: skip
    assert ended.images["used"] < 170
    assert grounds.seen[0] == grounds.seen[1]
    assert grounds.seen[0][1]


@pytest.mark.long
def test_a_wish_to_stop_while_photos_are_checked_ends_with_those_that_were(
    many: Path, cache: Path, tmp_path: Path
) -> None:
    listener = StoppingSoon("Checking")
    ended = rehead.tune(
        many, cache=cache, out=tmp_path / "run", progress=listener, stop=lambda: listener.wished, train="last:1",
        cut="none", epochs=1, report=False,
    )  # fmt: skip
    assert 10 < ended.images["used"] < 170
    assert ended.verdict.partial


@pytest.mark.long
def test_the_budget_is_of_all_views_together(
    tuned: rehead.Tuned, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], {}
    monkeypatch.setattr(activations.time, "monotonic", lambda: now[0])

    def extracted(job: Any, order: Any, prefix: Any, recipe: Any, store: Any, view: str = "plain") -> Any:
        late_at = (25.1, 99.0, 100.1) if view == "plain" else (99.0, 100.1)
        asked[view] = [job.is_late() for now[0] in late_at]
        now[0] = 24.0
        return extract_missing(job, order, prefix, recipe, store, view)

    monkeypatch.setattr(activations, "extract_missing", extracted)
    settings = {**LAST, "augment": "crop", "views": 4, "budget_s": 100.0}
    rehead.tune(folder, cache=cache, out=tmp_path / "run", **settings, report=False)
    assert asked == {
        "plain": [True, True, True],
        "crop-1": [False, True],
        "crop-2": [False, True],
        "crop-3": [False, True],
    }


def test_a_first_phase_goes_with_the_layers_that_its_preset_trains() -> None:
    recipe = Recipe.from_preset("thorough", {"train": "last:2"})
    assert (recipe.train, recipe.first, recipe.lr) == ("last:2", None, 3e-4)
    with pytest.raises(RecipeError, match="--first balanced goes before --train all"):
        Recipe.from_preset("thorough", {"train": "last:2", "first": "balanced"})


def test_what_is_no_unfinished_run_is_refused(tuned: rehead.Tuned, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        rehead.tune(resume=tmp_path, cache=cache, report=False)
    with pytest.raises(RunError, match="is finished"):
        rehead.tune(resume=tuned.run, cache=cache, report=False)


def test_the_tuned_network_is_what_the_bundle_computes(tuned: rehead.Tuned, folder: Path, cache: Path) -> None:
    frozen = rehead.tune(folder, cache=cache, out=tuned.run.with_name("frozen"), limit=20, report=False)
    photo = str(folder / "red" / "0.png")
    deep, flat = rehead.load(tuned.bundle).features(photo), rehead.load(frozen.bundle).features(photo)
    assert deep.shape == flat.shape == (1280,)
    assert not np.allclose(deep, flat, atol=1e-3)


def test_nothing_of_torch_is_left_changed(tuned: rehead.Tuned) -> None:
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_a_cut_within_a_layer_does_not_change_which_layers_learn(tmp_path: Path) -> None:
    recipe = Recipe(backbone="resnet18", train="last:2", cut="layer3.0")
    with pytest.raises(
        RecipeError, match=r"--cut layer3\.0 takes a layer apart that --train last:2 counts as one"
    ) as error:
        cutting.check_layers(recipe, tmp_path)
    assert error.value.why == "Without it layer3, layer4 learn."
    assert (
        error.value.fix == "Name those behind the cut that are to learn: --train layer3.1,layer4; or leave --cut out."
    )
    with pytest.raises(RecipeError) as error:
        cutting.check_layers(Recipe(train="last:2", cut="blocks.6.0"), tmp_path)
    assert "--train conv_head; or" in error.value.fix
    cutting.check_layers(replace(recipe, train="last:1"), tmp_path)
    cutting.check_layers(replace(recipe, train="layer3.1,layer4"), tmp_path)
