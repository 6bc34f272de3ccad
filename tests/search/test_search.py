"""What is left to the photos to decide: the backbone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

import rehead
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import RecipeError
from rehead.job import Job
from rehead.runs.folder import RunFolder
from rehead.search.backbone import with_best_backbone
from rehead.search.heats import entrants_of
from rehead.tuning.recipe import Recipe
from rehead.tuning.recipe import load as load_recipe

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Random weights of a tiny network."""
    save_file(
        dict(rehead.backbone("test_resnet", pretrained=False).network.state_dict()), tmp_path / "tiny.safetensors"
    )
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def hub(tmp_path: Path, tiny: Path) -> Path:
    """A hub's cache that has these weights."""
    folder = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    tiny.rename(snapshot / "model.safetensors")
    return folder.parent


@pytest.mark.slow
def test_the_winner_of_a_race_on_the_training_side_is_put_into_the_recipe(
    photos: Path, tiny: Path, cache: Path, tmp_path: Path
) -> None:
    catalog = scan(open_source(photos, cache=cache), seed=0, valid_fraction=0.2)
    entrants = entrants_of(["efficientnet_lite0", f"test_resnet={tiny}"])
    with RunFolder(tmp_path / "run", force=False) as run:
        run.create("photos", "auto")
        asked = Recipe(backbone="auto", train="last:2", budget_s=60.0)
        chosen = with_best_backbone(Job(catalog, cache), entrants, asked, run)
        race = json.loads((run.path / "race.json").read_text())
    assert race["n_train"] == len(catalog.on("train"))
    assert race["n_held_out"] == 0
    assert chosen.backbone == race["winner"]
    assert chosen.weights == (str(tiny) if chosen.backbone == "test_resnet" else None)
    assert chosen.budget_s == pytest.approx(60.0 - race["seconds"])
    assert replace(chosen, backbone="auto", weights=None, budget_s=60.0) == asked


@pytest.mark.long
def test_photos_are_raced_of_every_class_however_many_classes_there_are(
    photos: Path, tiny: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehead.search.backbone.N_RACED", 1)
    catalog = scan(open_source(photos, cache=cache), seed=0, valid_fraction=0.2)
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    entrants = entrants_of([f"test_resnet={tiny}", f"test_resnet={other}"])
    with RunFolder(tmp_path / "run", force=False) as run:
        run.create("photos", "auto")
        with_best_backbone(Job(catalog, cache), entrants, Recipe(backbone="auto"), run)
        race = json.loads((run.path / "race.json").read_text())
    assert race["n_train"] == 4 * len(catalog.classes)


def test_one_backbone_alone_needs_no_race(photos: Path, cache: Path, tmp_path: Path) -> None:
    catalog = scan(open_source(photos, cache=cache), seed=0, valid_fraction=0.2)
    run = RunFolder(tmp_path / "run", force=False)
    asked = Recipe(backbone="auto")
    chosen = with_best_backbone(Job(catalog, cache), entrants_of(["resnet18"]), asked, run)
    assert chosen == Recipe(backbone="resnet18")


@pytest.mark.slow
def test_the_backbone_is_the_one_that_wins_a_race_on_the_training_side(
    rehead: Program, photos: Path, hub: Path, tmp_path: Path
) -> None:
    done = rehead("tune", photos, "--backbone", "auto", "--out", tmp_path / "run", HF_HUB_CACHE=str(hub))
    assert done.returncode == 0, done.stderr
    race = json.loads((tmp_path / "run" / "race.json").read_text())
    assert {"efficientnet_lite0", "test_resnet"} <= {entry["label"] for entry in race["entries"]}
    assert race["n_held_out"] == 0
    recipe = load_recipe(tmp_path / "run" / "recipe.toml")
    assert recipe.backbone == race["winner"]
    assert race["recommendation"] in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ({"weights": "w.pth"}, "--weights"),
        ({"cut": "layer3"}, "--cut"),
        ({"backbone_args": {"mean": 0.5}}, "--backbone-arg"),
    ],
)
def test_what_is_of_one_backbone_cannot_go_with_auto(setting: dict[str, object], option: str) -> None:
    with pytest.raises(RecipeError, match=f"{option} is of one backbone"):
        Recipe.from_dict({"backbone": "auto", **setting})
