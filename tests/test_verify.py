"""A bundle on other photos: what is said of them, and of those it learned from."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import blake3
import numpy as np
import pytest
from conftest import make_photos
from safetensors.numpy import save_file

import rehead
from rehead.compare_bundles import compare
from rehead.errors import RecipeError, SourceError, TooManyBad

Program = Callable[..., "subprocess.CompletedProcess[str]"]
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def run(photos: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehead.tune(photos, cache=cache, out=tmp_path_factory.mktemp("run") / "run", report=False).run


def test_photos_that_the_bundle_learned_from_are_counted(run: Path, photos: Path, cache: Path) -> None:
    verdict = rehead.verify(run / "bundle", photos, cache=cache).verdict
    note = f"The bundle learned from {40 - 7} of these 40 photos: on new ones it will be right less often."
    assert verdict.notes == (note.replace("33", str(_n_train(run))),)
    assert verdict.headline.endswith(" on 40 photos")


def test_photos_that_a_limit_left_out_are_not_called_learned(photos: Path, cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(photos, limit=20, cache=cache, out=tmp_path / "run", report=False)
    n = tuned.verdict.n_train
    assert 0 < n < _n_train(tuned.run)
    (note,) = rehead.verify(tuned.bundle, photos, cache=cache).verdict.notes
    assert note == f"The bundle learned from {n} of these 40 photos: on new ones it will be right less often."


def _n_train(run: Path) -> int:
    return (run / "catalog.csv").read_text().count(",train,")


def test_a_bundle_that_was_carried_away_says_nothing_of_them(
    run: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    assert rehead.verify(tmp_path / "bundle", photos, cache=cache).verdict.notes == ()


def test_verify_says_what_it_found_and_what_it_leaves_aside(rehead: Program, run: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "data" / "train", {"red": 5, "blue": 5})
    make_photos(tmp_path / "data" / "val", {"red": 1, "blue": 2})
    done = rehead("verify", run / "bundle", "data", "--json")
    assert "3 photos (split) of the held-out sides; 10 of the training side are left out\n" in done.stderr


def test_photos_that_are_left_out_are_counted_and_copies_named(rehead: Program, run: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "data", {"red": 6, "blue": 6, "green": 5, "grey": 4})
    for i in range(3):
        shutil.copy(photos / "red" / "0.png", photos / "red" / f"copy{i}.png")
    (photos / "red" / "cut.png").write_bytes((photos / "red" / "0.png").read_bytes()[:300])
    done = rehead("verify", run / "bundle", "data", "--json")
    facts = json.loads(done.stdout)
    assert facts["images"] == {"used": 12, "skipped": 5 + 4 + 1, "from_store": 0}
    assert len(facts["skipped"]) == 1 + 2 + 3
    assert {"path": "red/copy2.png", "reason": "is a copy of red/0.png", "kind": "copy"} in facts["skipped"]
    assert {"path": "class 'grey'", "reason": "is not known to the bundle: 4 photos", "kind": "aside"} in facts[
        "skipped"
    ]
    assert "9 photos of unknown classes were left out: green, grey." in facts["verdict"]["notes"]
    assert "22 photos (folders); 3 copies counted once\n" in done.stderr
    for command in (("verify", run / "bundle"), ("compare", run / "bundle", run / "bundle")):
        said = rehead(*command, "data").stderr
        assert "3 copies counted once\n" in said
        assert "Skipped red/copy2.png: is a copy of red/0.png\n" in said


def test_a_note_names_the_first_classes_that_no_photo_shows_or_that_are_unknown(cache: Path, tmp_path: Path) -> None:
    labels = [f"{i // 2:02}" for i in range(24)]
    paths = sorted(str(path) for path in make_photos(tmp_path / "photos", {"red": 24}).glob("*/*.png"))
    bundle = rehead.tune((paths, labels), cache=cache, out=tmp_path / "run", report=False).bundle
    others = [*labels[:2], *(f"new{i}" for i in range(22))]
    notes = rehead.verify(bundle, (paths, others), cache=cache).verdict.notes
    assert "No photo shows 01, 02, 03 and 8 more." in notes
    assert "22 photos of unknown classes were left out: new0, new1, new10 and 19 more." in notes


def test_photos_that_cannot_be_read_are_listed_where_the_error_says(run: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 8, "blue": 8})
    for path in (photos / "red").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TooManyBad, match="8 of 16 photos cannot be read, which is more than 20%") as caught:
        rehead_verify(run / "bundle", photos, cache=cache)
    listed = cache / "skipped.csv"
    assert caught.value.why.endswith(f" ...; {listed} lists all 8.")
    assert len(listed.read_text().splitlines()) == 9


def test_where_no_photo_can_be_read_there_is_nothing_to_judge(run: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    for path in photos.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:300])
    for job in (
        lambda: rehead.verify(run / "bundle", photos, cache=cache, max_bad=1),
        lambda: compare(run / "bundle", run / "bundle", photos, cache=cache, max_bad=1),
    ):
        with pytest.raises(SourceError, match="None of 4 photos can be read") as caught:
            job()
        assert "0.png" in caught.value.why


@pytest.mark.parametrize("share", [20, -0.1, float("nan")])
def test_a_share_of_bad_photos_is_one(run: Path, photos: Path, cache: Path, share: float) -> None:
    said = "--max-bad must be between 0 and 1"
    with pytest.raises(RecipeError, match=said):
        rehead.verify(run / "bundle", photos, cache=cache, max_bad=share)
    with pytest.raises(RecipeError, match=said):
        compare(run / "bundle", run / "bundle", photos, cache=cache, max_bad=share)
    with pytest.raises(RecipeError, match=said):
        rehead.export(run / "bundle", "onnx-int8", photos=photos, cache=cache, max_bad=share)


def test_a_photo_with_two_unknown_labels_is_left_out_once(cache: Path, tmp_path: Path) -> None:
    labels = [*["red"] * 8, *["red;dark"] * 8, *["dark"] * 8]
    paths = sorted(str(path) for path in make_photos(tmp_path / "photos", {"red": 24}).glob("*/*.png"))
    tuned = rehead.tune((paths, labels), cache=cache, out=tmp_path / "run", task="multilabel", report=False)
    others = [*labels[:-3], "red;night;fog", "night", "fog;night"]
    notes = rehead.verify(tuned.bundle, (paths, others), cache=cache).verdict.notes
    assert "3 photos of unknown classes were left out: fog, night." in notes


def rehead_verify(*arguments: object, **options: object) -> object:
    return rehead.verify(*arguments, **options)  # type: ignore[arg-type]


def test_a_bundle_of_numbers_says_so_of_labels_that_are_words(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to(GOLDEN / "bundle-2-number")
    with pytest.raises(SourceError) as caught:
        rehead.verify(tmp_path / "bundle", photos, cache=tmp_path / "cache")
    assert "The bundle gives a number" in caught.value.fix
    assert "--task" not in caught.value.fix


def test_a_bundle_of_numbers_is_further_off_on_new_photos(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "bundle-2-number", tmp_path / "bundle")
    path = next(photos.glob("red/*.png"))
    digest = blake3.blake3(path.read_bytes()).hexdigest()
    (tmp_path / "catalog.csv").write_text(f"path,label,side,digest,group\nx.png,1,train,{digest},\n")
    none = {name: np.zeros(0, np.int64) for name in ("held_out", "apart")}
    none |= {name: np.zeros((0, 1), np.float32) for name in ("logits", "apart_logits", "distances")}
    save_file({"train": np.zeros(1, np.int64), **none}, tmp_path / "logits.safetensors")
    verdict = rehead.verify(tmp_path / "bundle", ([path], [1.5]), cache=tmp_path / "cache").verdict
    assert verdict.notes == ("The bundle learned from this photo: on new ones it will be further off.",)
