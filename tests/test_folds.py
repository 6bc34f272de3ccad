"""A run's head by k-fold: from kept features alone, against scikit-learn's folds by hand; and what cannot be folded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import make_photos, noise
from PIL import Image

import rehead
from rehead.errors import RecipeError, RunError, StoreError
from rehead.folds import cross_validate


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


def test_what_cannot_be_folded_is_told(run: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--folds 1 leaves nothing to learn from"):
        cross_validate(run, folds=1, cache=cache)
    shutil.copytree(run, tmp_path / "deeper")
    recipe = tmp_path / "deeper" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('train = "head"', 'train = "last:1"').replace("prototype", "linear"))
    with pytest.raises(RunError, match="trained last:1, which folds would have to do again each"):
        cross_validate(tmp_path / "deeper", cache=cache)


def test_the_command_says_it_in_words(run: Path, rehead: Callable[..., CompletedProcess[str]]) -> None:
    done = rehead("verify", run / "bundle", "--folds", "3")
    assert done.returncode == 0, done.stderr
    assert "of 40 cross-validated photos" in done.stdout
    assert "Right in each fold: " in done.stdout
    none = rehead("verify", run / "bundle")
    assert none.returncode == 2
    assert "or cross-validate on the run's own: --folds 5" in none.stderr
