"""Weights and bundles that were replaced, or moved, since a run was made with them."""

from __future__ import annotations

import errno
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch
from conftest import make_photos
from safetensors.torch import save_file

import rehead
from rehead import bundle as bundles
from rehead.auditing.examine import features_of_run
from rehead.errors import RecipeError, RunError, WeightsUnavailable
from rehead.fitting import chosen_prefix, prefix_of_run
from rehead.folds import cross_validate
from rehead.job import Job
from rehead.runs.earlier import read_earlier
from rehead.runs.finished import read_finished

SMALL = {"backbone": "test_resnet", "backbone_args": {"input_size": 64}, "head": "prototype", "report": False}


def weights(path: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """w.safetensors; `by_file`, a run on it whose photos are gone; `by_bundle`, one on the bundle of that run, `bundle`."""
    folder = tmp_path_factory.mktemp("made")
    photos = make_photos(folder / "photos", {"red": 12, "blue": 12})
    own = weights(folder / "w.safetensors", 0)
    first = rehead.tune(photos, weights=own, cache=cache, out=folder / "by_file", **SMALL)
    shutil.copytree(first.bundle, folder / "bundle")
    rehead.tune(
        photos, weights=folder / "bundle", head="prototype", cache=cache, out=folder / "by_bundle", report=False
    )
    shutil.rmtree(photos)
    return folder


@pytest.fixture
def green(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "green", {"green": 12})


def moved(made: Path, run: str, tmp_path: Path) -> Path:
    """A copy of the run that names weights in tmp_path, where there are none yet."""
    shutil.copytree(made / run, tmp_path / run)
    recipe = tmp_path / run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(f"{made}/", f"{tmp_path}/"))
    return tmp_path / run


@pytest.fixture(params=["by_file", "by_bundle"])
def replaced(request: pytest.FixtureRequest, made: Path, cache: Path, tmp_path: Path) -> Path:
    """A run at whose weights' place others stand now."""
    run = moved(made, request.param, tmp_path)
    other = weights(tmp_path / "w.safetensors", 1)
    if request.param == "by_bundle":
        photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
        shutil.copytree(
            rehead.tune(photos, weights=other, cache=cache, out=tmp_path / "o", **SMALL).bundle, tmp_path / "bundle"
        )
    return run


def test_another_network_never_speaks_for_a_run(replaced: Path, cache: Path, tmp_path: Path) -> None:
    run, place = read_finished(replaced, cache), read_finished(replaced, cache).run.recipe.weights
    told = re.escape(f"The weights at {place} are not those that {replaced} was made with.")
    with pytest.raises(RunError, match=told):
        features_of_run(Job(run.catalog, cache), run)
    with pytest.raises(RunError, match=told):
        cross_validate(replaced, cache=cache)
    photo = make_photos(tmp_path / "one", {"red": 1}) / "red" / "0.png"
    with pytest.raises(RunError, match=told):
        rehead.neighbours(replaced / "bundle", photo, cache=cache)


def test_nothing_is_learned_in_silence_on_another_network(
    replaced: Path, green: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"are not those that .* was made with") as error:
        rehead.tune(green, from_run=replaced, cache=cache, out=tmp_path / "new", report=False)
    assert "--weights" in error.value.fix
    place = read_earlier(replaced, cache).recipe.weights
    with pytest.raises(RecipeError, match="--weights is another than in the run"):
        rehead.tune(green, from_run=replaced, weights=place, cache=cache, out=tmp_path / "new", report=False)


@pytest.mark.parametrize("run", ["by_file", "by_bundle"])
def test_a_run_whose_weights_are_gone_says_so(run: str, made: Path, cache: Path, tmp_path: Path) -> None:
    gone = moved(made, run, tmp_path)
    with pytest.raises(RunError) as told:
        cross_validate(gone, cache=cache)
    assert told.value.what == f"The weights of the run {gone} are not at their place any more."
    assert "Bring them back" in told.value.fix


def test_weights_that_may_not_be_read_are_not_called_gone(
    made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, earlier = read_finished(made / "by_file", cache), read_earlier(made / "by_file", cache)
    closed = PermissionError(errno.EACCES, "Permission denied")  # root may read what it likes
    monkeypatch.setattr("rehead.nets.card.sha256_file", Mock(side_effect=closed))
    told = f"{made / 'w.safetensors'} cannot be read.\nPermission denied.\nCheck its permissions."
    with pytest.raises(WeightsUnavailable, match=re.escape(told)):
        earlier.recipe_with(None, {})
    with pytest.raises(WeightsUnavailable, match=re.escape(told)):
        prefix_of_run(Job(run.catalog, cache), earlier.recipe, earlier.bundle)


@pytest.mark.parametrize("run", ["by_file", "by_bundle"])
def test_weights_that_were_moved_are_the_same(run: str, made: Path, green: Path, cache: Path, tmp_path: Path) -> None:
    before = moved(made, run, tmp_path)
    with pytest.raises(RunError, match=r"The weights of the run .* are not at their place any more") as error:
        rehead.tune(green, from_run=before, cache=cache, out=tmp_path / "new", report=False)
    assert error.value.fix == "Bring them back, or name where they are now: --weights FILE, of a bundle its folder."
    place = made / ("w.safetensors" if run == "by_file" else "bundle")
    tuned = rehead.tune(green, from_run=before, weights=place, cache=cache, out=tmp_path / "new", report=False)
    assert tuned.images == {"used": 36, "skipped": 0, "from_store": 24}
    assert tuned.recipe.weights == str(place)


def test_weights_of_a_run_in_8_bits_are_to_be_at_their_place(made: Path, cache: Path, tmp_path: Path) -> None:
    before = read_earlier(moved(made, "by_file", tmp_path), cache)
    in_8_bits = replace(before, recipe=replace(before.recipe, quantize="int8"))
    with pytest.raises(RunError, match="are not at their place any more") as caught:
        in_8_bits.recipe_with(None, {})
    assert caught.value.fix == "Bring them back: in 8 bits nothing tells whether others are the same."
    weights(tmp_path / "w.safetensors", 0)
    assert in_8_bits.recipe_with(None, {}) == in_8_bits.recipe
    with pytest.raises(RecipeError, match="--weights is another than in the run"):
        in_8_bits.recipe_with(None, {"weights": made / "w.safetensors"})


def test_a_network_that_only_its_runtime_rounds_otherwise_is_no_other(made: Path, cache: Path) -> None:
    run = read_finished(made / "by_file", cache)
    job, bundle = Job(run.catalog, cache), bundles.read(made / "by_file" / "bundle")
    bundle = replace(bundle, facts={**bundle.facts, "backbone": {**bundle.facts["backbone"], "weights": "00"}})
    in_8_bits = replace(run.run.recipe, quantize="int8")
    with pytest.raises(RunError, match="or make another network in 8 bits") as caught:
        prefix_of_run(job, in_8_bits, bundle)
    assert "or made into 8 bits by another ONNX Runtime" in caught.value.why
    installed = replace(in_8_bits, backbone="efficientnet_lite0", weights=None, backbone_args={})
    assert prefix_of_run(job, installed, bundle).card == chosen_prefix(job, installed).card
