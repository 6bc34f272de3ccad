"""A run's head by k-fold: from kept features alone, against scikit-learn's folds by hand; and what cannot be folded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from conftest import make_photos, noise
from PIL import Image

import rehead
from rehead.data.catalog import Catalog
from rehead.errors import RecipeError, RunError, StoreError
from rehead.folds import _by_others, cross_validate
from rehead.job import Job
from rehead.runs.outputs import read_outputs
from rehead.tuning.head import Fitted
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import fit_task


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    photos = make_photos(folder / "photos", {"red": 20, "blue": 20})
    tuned = rehead.tune(photos, cache=cache, out=folder / "run", head="prototype", report=False)
    shutil.rmtree(photos)  # nothing but features is read from here on
    return tuned.run


def test_every_photo_is_judged_once_and_no_picture_is_read(run: Path, cache: Path) -> None:
    found = cross_validate(run / "bundle", folds=4, cache=cache)
    assert found.verdict.n == 40
    assert found.verdict.n_train == 30
    assert len(found.by_fold) == 4
    assert found.verdict.top1.value == pytest.approx(np.mean(found.by_fold), abs=0.02)
    assert found.verdict.headline.startswith("cross-validated accuracy")


def test_other_photos_may_be_named(run: Path, cache: Path, tmp_path: Path) -> None:
    same = make_photos(tmp_path / "again", {"red": 20, "blue": 20})
    assert cross_validate(run, same, cache=cache).verdict.n == 40
    noise(7_777, (200, 60, 60)).save(same / "red" / "new.png")
    with pytest.raises(StoreError, match=r"no features of 1 of 41 photos, such as red/new\.png"):
        cross_validate(run, same, cache=cache)


def test_a_photo_that_cannot_be_read_is_left_out(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    torn = photos / "red" / "0.png"
    torn.write_bytes(torn.read_bytes()[:300])
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", head="prototype", report=False)
    own = cross_validate(tuned.run, cache=cache).verdict
    named = cross_validate(tuned.run, photos, cache=cache).verdict
    assert own.n == named.n == 23
    assert named.notes == ("1 photo that cannot be read is left out, such as red/0.png.",)


def test_a_side_that_no_run_uses_is_left_out(cache: Path, tmp_path: Path) -> None:
    for seed, (side, n) in enumerate({"train": 8, "valid": 3, "test": 4}.items()):
        for label, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
            (tmp_path / "photos" / side / label).mkdir(parents=True)
            for i in range(n):
                noise(100 * seed + i, colour).save(tmp_path / "photos" / side / label / f"{i}.png")
    tuned = rehead.tune(tmp_path / "photos", cache=cache, out=tmp_path / "run", head="prototype", report=False)
    assert cross_validate(tuned.run, cache=cache).verdict.n == 24
    assert cross_validate(tuned.run, tmp_path / "photos", cache=cache).verdict.n == 24


def test_a_limited_run_is_judged_on_the_photos_that_it_used(cache: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("one", "other"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(30):
            picture = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((96, 96))
            picture.save(tmp_path / "photos" / label / f"{i}.png")
            picture.resize((80, 80)).save(tmp_path / "photos" / label / f"{i}-copy.png")
    tuned = rehead.tune(
        tmp_path / "photos", cache=cache, out=tmp_path / "run", head="prototype", limit=60, report=False
    )
    assert "went to the training side" in (tuned.run / "log.txt").read_text()
    found = cross_validate(tuned.run, cache=cache)
    assert found.verdict.n == tuned.images["used"]
    assert all(Path(mistake.path).is_file() for mistake in found.verdict.mistakes)


COLOURS = {"red": (200, 60, 60), "blue": (60, 60, 200), "red;dark": (90, 20, 20), "blue;dark": (20, 20, 90)}


def table(folder: Path, counts: dict[str, int], first: int = 0) -> Path:
    """A manifest of photos with several labels, as many of each kind."""
    folder.mkdir()
    lines = ["path,label"]
    for kind, n in counts.items():
        for i in range(n):
            name = f"{kind.replace(';', '-')}{i}.png"
            noise(first + 100 * len(lines) + i, COLOURS[re.sub("night|fog", "dark", kind)]).save(folder / name)
            lines.append(f"{name},{kind}")
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def several(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    """A run on photos with several labels."""
    folder = tmp_path_factory.mktemp("several")
    source = table(folder / "photos", {"red": 10, "blue": 10, "red;dark": 10, "blue;dark": 10})
    return rehead.tune(source, cache=cache, out=folder / "run", report=False)


def test_other_labels_than_the_runs_have_thresholds_of_their_own(
    several: rehead.Tuned, cache: Path, tmp_path: Path
) -> None:
    other = table(tmp_path / "other", {"red": 10, "blue": 10, "red;night": 10, "blue;fog": 10}, first=7)
    rehead.tune(other, cache=cache, out=tmp_path / "features", report=False)
    verdict = cross_validate(several.run, other, cache=cache).verdict
    assert [label.label for label in verdict.labels] == ["blue", "fog", "night", "red"]
    assert verdict.n == 40
    assert all(0 < label.threshold < 1 for label in verdict.labels)


def test_a_label_that_a_fold_cannot_learn_is_given_what_the_counts_say() -> None:
    random, classes = np.random.default_rng(0), ("all", "none", "some")
    catalog = Catalog("photos", "manifest", (), classes, lambda _: b"", task="multilabel")
    x, y = random.normal(size=(21, 4)).astype(np.float32), np.zeros((20, 3), np.float32)
    y[:, 0], y[:, 2] = 1, x[:20, 0] > 0
    logits, thresholds = _by_others(catalog, x[:20], y, np.arange(20) % 5, x[20:], Recipe(), "cpu")
    assert logits[0, :2] == pytest.approx([np.log(20.5 / 0.5), np.log(0.5 / 20.5)])
    assert (logits[0, 2] > 0) == (x[20, 0] > 0)
    assert thresholds[:2].tolist() == [0.5, 0.5]


def test_heads_of_folds_learn_on_the_device_of_the_run_where_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fit(*arguments: Any) -> Fitted:
        asked.append(arguments[6])
        return fit_task(*arguments[:6])

    monkeypatch.setattr("rehead.folds.fit_task", fit)
    catalog = Catalog("photos", "manifest", (), ("a", "b"), lambda _: b"")
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 2
    _by_others(catalog, x, y, np.arange(20) // 2 % 5, x, Recipe(), "cuda")
    assert asked == ["cuda"]
    monkeypatch.setattr("rehead.features.engines._has_nvidia", lambda: False)
    assert [Job(catalog, Path()).own_device(device) for device in ("auto", "cuda", "cpu")] == ["cpu"] * 3
    monkeypatch.setattr("rehead.features.engines._has_nvidia", lambda: True)
    assert [Job(catalog, Path()).own_device(device) for device in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_thresholds_are_not_those_of_the_photos_that_are_judged(
    several: rehead.Tuned, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[tuple[np.ndarray, np.ndarray]] = []

    def fit(task: str, x: np.ndarray, y: np.ndarray, n: int, inner: np.ndarray, recipe: Recipe, _: str) -> Fitted:
        learned.append((y, inner))
        return replace(fit_task(task, x, y, n, inner, recipe), thresholds=(0.1 * len(learned),) * n)

    monkeypatch.setattr("rehead.folds.fit_task", fit)
    verdict = cross_validate(several.run, cache=cache).verdict
    assert [label.threshold for label in verdict.labels] == pytest.approx([0.3] * 3)
    for y, inner in learned:  # each label stands in each fold that chooses a penalty, in proportion
        shown = np.array([y[inner == fold].sum(axis=0) for fold in range(5)])
        assert np.ptp(shown, axis=0).max() <= 2


def test_a_class_of_which_no_photo_can_be_read_is_named(run: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20, "green": 3})
    for photo in (photos / "green").iterdir():
        photo.write_bytes(photo.read_bytes()[:300])
    with pytest.raises(RunError) as error:
        cross_validate(run, photos, cache=cache)
    assert error.value.what == "40 photos are too few to learn and verify 3 classes."
    assert error.value.why == "There is none to learn from of 'green'."
    assert error.value.fix == "Mend those that cannot be read, or add others like them."


def test_a_bundle_apart_from_its_run_is_told_as_that(run: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    with pytest.raises(RunError, match="was carried away from its run") as error:
        cross_validate(tmp_path / "bundle", cache=cache)
    assert error.value.fix == "Name the run itself, in which it was made."


def test_what_cannot_be_folded_is_told(run: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--folds 1 leaves nothing to learn from"):
        cross_validate(run, folds=1, cache=cache)
    shutil.copytree(run, tmp_path / "deeper")
    recipe = tmp_path / "deeper" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('train = "head"', 'train = "last:1"').replace("prototype", "linear"))
    with pytest.raises(RunError, match="trained last:1, which folds would have to do again each"):
        cross_validate(tmp_path / "deeper", cache=cache)


def told_as_tuned(run: Path) -> Path:
    """A run of a prototype head, after it says that its last layer was tuned too."""
    recipe, facts = run / "recipe.toml", run / "bundle" / "rehead.json"
    recipe.write_text(recipe.read_text().replace('train = "head"', 'train = "last:1"').replace("prototype", "linear"))
    told = json.loads(facts.read_text())
    told["backbone"]["learned"] = ["conv_head"]
    facts.write_text(json.dumps(told))
    return run


@pytest.mark.long
def test_photos_that_the_layers_of_a_bundle_learned_from_are_not_folded(run: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"  # another may know the same graph as of layers that were not tuned

    def below_a_head(bundle: Path, photos: Path, name: str) -> Path:
        out = tmp_path / name
        return rehead.tune(photos, backbone=str(bundle), head="prototype", cache=cache, out=out, report=False).run

    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    first = told_as_tuned(shutil.copytree(run, tmp_path / "first"))
    second = below_a_head(first / "bundle", photos, "second")
    third = below_a_head(second / "bundle", photos, "third")
    n = len(read_outputs(first).train)
    for later in (second, third):
        with pytest.raises(
            RunError, match=f"The layers below the head of .* have learned from {n} of these 40 photos before"
        ) as error:
            cross_validate(later, cache=cache)
        assert error.value.why == "What its layers give for a photo has already learned from its label."
    other = make_photos(tmp_path / "other", {"green": 12, "grey": 12})
    below_a_head(first / "bundle", other, "features")
    assert cross_validate(second, other, cache=cache).verdict.notes == ()
    alone = below_a_head(shutil.copytree(first / "bundle", tmp_path / "alone"), photos, "fourth")
    assert cross_validate(alone, cache=cache).verdict.notes == (
        "Layers of the backbone were tuned before (conv_head); whether on these photos is not known.",
    )


def test_the_command_says_it_in_words(run: Path, rehead: Callable[..., CompletedProcess[str]]) -> None:
    done = rehead("verify", run / "bundle", "--folds", "3")
    assert done.returncode == 0, done.stderr
    assert "of 40 cross-validated photos" in done.stdout
    assert "Right in each fold: " in done.stdout
    none = rehead("verify", run / "bundle")
    assert none.returncode == 2
    assert "or cross-validate on the run's own: --folds 5" in none.stderr
