"""New classes beside those of an earlier run: from kept features, with its files or without, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from bucket import in_memory
from conftest import DATA, make_photos, noise
from PIL import Image

import rehead
from rehead import bundle as bundles
from rehead.bundle_facts import Task
from rehead.data.catalog import Catalog
from rehead.data.joining import why_gone
from rehead.data.rows import Photo, Source
from rehead.data.sources import open_source
from rehead.data.split import side_of
from rehead.data.targets import classes_of
from rehead.errors import BundleError, PhotoError, RecipeError, RunError, SourceError
from rehead.extraction import left_out
from rehead.job import Job
from rehead.progress import Silent
from rehead.runs.earlier import read_earlier
from rehead.runs.finished import read_finished
from rehead.runs.origins import access, asked_of, full_path, line_of, place_of
from rehead.runs.resume import Asked
from rehead.tuning.recipe import Recipe
from rehead.variants.photos import photos_of

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    """A run on red and blue photos that are not there any more."""
    folder = tmp_path_factory.mktemp("first")
    photos = make_photos(folder / "photos", {"red": 12, "blue": 12})
    tuned = rehead.tune(photos, cache=cache, out=folder / "run", head="prototype", seed=1, report=False)
    shutil.rmtree(photos)
    return tuned


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return greens(tmp_path_factory.mktemp("green") / "more", 3000)


def greens(folder: Path, seed: int) -> Path:
    """12 photos of a class that no earlier run has."""
    (folder / "green").mkdir(parents=True)
    for i in range(12):
        noise(seed + i, (60, 200, 60)).save(folder / "green" / f"{i}.png")
    return folder


@pytest.fixture
def empty_cache(cache: Path, first: rehead.Tuned, tmp_path: Path) -> Path:
    """A cache that has the network and no features."""
    shutil.copytree(cache / "prefixes", tmp_path / "empty" / "prefixes")
    return tmp_path / "empty"


def run_with(photos: Path, out: Path, cache: Path, **settings: object) -> rehead.Tuned:
    return rehead.tune(photos, out=out, cache=cache, **{"head": "prototype", **settings}, report=False)


def test_a_class_is_added_without_the_earlier_files(first: rehead.Tuned, cache: Path, tmp_path: Path) -> None:
    green = greens(tmp_path / "new", 4000)
    tuned = rehead.tune(green, from_run=first.bundle, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.classes == ("blue", "green", "red")
    assert tuned.images == {"used": 36, "skipped": 0, "from_store": 24}
    assert (tuned.recipe.head, tuned.recipe.seed) == ("prototype", 1)
    held_out = {facts.label: facts.n for facts in tuned.verdict.classes}
    earlier = {facts.label: facts.n for facts in first.verdict.classes}
    assert {label: held_out[label] for label in earlier} == earlier
    assert held_out["green"] > 0
    assert rehead.load(tuned.bundle).predict(str(green / "green" / "0.png")).label == "green"


def test_it_is_the_run_that_all_photos_at_once_would_have_given(
    first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    tuned = rehead.tune(green, from_run=first.run, cache=cache, out=tmp_path / "run", report=False)
    together = make_photos(tmp_path / "together", {"red": 12, "blue": 12})
    shutil.copytree(green / "green", together / "green")
    at_once = run_with(together, tmp_path / "at_once", cache, seed=1)
    assert tuned.verdict.top1 == at_once.verdict.top1
    assert tuned.verdict.log_loss.value == pytest.approx(at_once.verdict.log_loss.value, rel=1e-4)


def test_the_program_adds_a_class_and_says_what_it_has(
    rehead: Program, first: object, green: Path, tmp_path: Path
) -> None:
    done = rehead("tune", "--from", first.bundle, green, "--head", "linear", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "24 photos of" in done.stderr
    assert "and 12 new ones" in done.stderr
    assert re.search(r"Photos +36, \d\d from the store", done.stdout)
    assert "linear" in done.stdout


def test_a_third_run_goes_on_from_the_second(first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path) -> None:
    second = rehead.tune(green, from_run=first.bundle, cache=cache, out=tmp_path / "second", report=False)
    third = make_photos(tmp_path / "third", {"red": 16})
    tuned = rehead.tune(third, from_run=second.bundle, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.classes == ("blue", "green", "red")
    assert tuned.images["used"] == 40


def test_the_same_photo_under_another_label_is_a_correction(
    first: rehead.Tuned, cache: Path, rehead: Program, tmp_path: Path
) -> None:
    again = make_photos(tmp_path / "again", {"red": 2, "blue": 1})
    (again / "red" / "0.png").rename(again / "blue" / "corrected.png")
    done = rehead("tune", "--from", first.run, again, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "3 of those named now were there before and count once" in done.stderr
    assert "1 of them has another label now, which counts: blue/corrected.png was red and is blue" in done.stderr
    rows = [line.split(",") for line in (tmp_path / "run" / "catalog.csv").read_text().splitlines()[1:]]
    assert len(rows) == 24
    assert [row[1] for row in rows if row[0] == "blue/corrected.png"] == ["blue"]


def test_a_run_on_files_with_a_carriage_return_in_their_names_is_read_again(
    green: Path, cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    (photos / "red" / "0.png").rename(photos / "red" / "0\r.png")
    (photos / "red" / "no\rphoto.png").write_bytes(b"\x89PNG no more")
    before = run_with(photos, tmp_path / "before", cache)
    run = read_finished(before.run, cache)
    assert "red/0\r.png" in run.catalog.columns.paths
    assert [skip.path for skip in run.catalog.bad] == ["red/no\rphoto.png"]
    tuned = rehead.tune(green, from_run=before.run, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.images["used"] == 36


def test_features_that_are_missing_are_computed_from_the_earlier_files(
    green: Path, cache: Path, empty_cache: Path, tmp_path: Path
) -> None:
    before = run_with(make_photos(tmp_path / "photos", {"red": 12, "blue": 12}), tmp_path / "before", cache)
    tuned = rehead.tune(green, from_run=before.run, cache=empty_cache, out=tmp_path / "run", report=False)
    assert tuned.images == {"used": 36, "skipped": 0, "from_store": 0}


@pytest.mark.parametrize(("n", "told"), [(8, "8 earlier photos are left out"), (1, "1 earlier photo is left out")])
def test_photos_of_which_nothing_is_left_are_left_out_and_named(
    n: int, told: str, green: Path, cache: Path, empty_cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    before = run_with(photos, tmp_path / "before", cache)
    for i in range(n):
        (photos / "red" / f"{i}.png").unlink()
    Image.new("RGB", (9, 9)).save(photos / "red" / "8.png")
    tuned = rehead.tune(green, from_run=before.run, cache=empty_cache, out=tmp_path / "run", report=False)
    assert tuned.images == {"used": 35 - n, "skipped": 1 + n, "from_store": 0}
    skipped = (tuned.run / "skipped.csv").read_text()
    assert skipped.count("is not there any more, and no features of it are kept") == n
    assert "8.png,is another picture than it was in the earlier run" in skipped
    assert told in (tuned.run / "log.txt").read_text()


def test_a_class_of_which_nothing_is_left_is_an_error_that_says_what_to_do(
    first: rehead.Tuned, green: Path, empty_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError) as error:
        rehead.tune(green, from_run=first.bundle, cache=empty_cache, out=tmp_path / "run", report=False)
    assert error.value.what == "Nothing is left to learn 'blue', 'red' from."
    assert error.value.why.startswith("24 earlier photos cannot be had, such as ")
    assert error.value.why.endswith(".png: it is not there any more, and no features of it are kept.")
    assert "--cache" in error.value.fix
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "old", "new", "lost"),
    [
        ("classification", ["a", "b"], ["b"], ["a"]),
        ("multilabel", ["blue;red;round", "round"], ["blue;red", "round"], []),
        ("multilabel", ["blue;red"], ["blue", "round", ""], ["red"]),
        ("regression", ["3.5", "4"], ["5", "6.5"], []),
    ],
)
def test_of_photos_that_are_gone_only_a_class_that_no_other_has_is_missed(
    task: Task, old: list[str], new: list[str], lost: list[str], tmp_path: Path
) -> None:
    photos = [Photo(f"{i}.png", label, "train", bytes([i] * 32)) for i, label in enumerate([*old, *new])]
    catalog = Catalog(
        "photos", "manifest", photos, classes_of([*old, *new], task), lambda _: b"", task=task,
        is_gone=lambda photo: photo in photos[: len(old)],
    )  # fmt: skip
    job, order = Job(catalog, tmp_path), range(len(photos))
    if lost:
        with pytest.raises(RunError) as error:
            left_out(job, order, order)
        assert error.value.what == f"Nothing is left to learn {', '.join(map(repr, lost))} from."
    else:
        assert [*left_out(job, order, order)] == [*range(len(old))]


def test_a_run_does_not_take_the_place_of_one_it_begins_from(
    first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    before = shutil.copytree(first.run, tmp_path / "before")
    link = tmp_path / "link"
    link.symlink_to(before)
    for out in (before, link):
        with pytest.raises(RunError, match="cannot be replaced by a run that begins from it") as error:
            rehead.tune(green, from_run=before / "bundle", out=out, force=True, cache=cache, report=False)
        assert error.value.fix == "Name another folder: --out DIR"
    second = rehead.tune(green, from_run=before, out=tmp_path / "second", cache=cache, report=False).run
    with pytest.raises(RunError, match="cannot be replaced by a run that begins from it"):
        rehead.tune(green, from_run=second, out=before, force=True, cache=cache, report=False)
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.parametrize("names", ["one", "one two"])
def test_runs_that_name_each_other_as_the_one_before_end(names: str, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in names.split()]
    for run, before in zip(runs, [*runs[1:], runs[0]], strict=True):
        run.mkdir()
        asked = Asked(str(make_photos(run / "photos", {"red": 1, "blue": 1})), "auto", None, None, from_run=str(before))
        (run / "photos.json").write_text(json.dumps(asked.to_dict()))
    read, is_gone = access(runs[0], tmp_path / "cache")
    assert is_gone(Photo(str(tmp_path / "gone.png"), "red", "train", bytes(32)))
    assert [run for run, _ in line_of(runs[0])] == runs
    kept = runs[-1] / "photos" / "red" / "0.png"
    assert read(Photo(str(kept), "red", "train", blake3.blake3(kept.read_bytes()).digest())) == kept.read_bytes()


@pytest.mark.slow
def test_photos_in_an_archive_are_read_from_it(green: Path, cache: Path, empty_cache: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    before = run_with(Path(archive), tmp_path / "before", cache)
    tuned = rehead.tune(green, from_run=before.run, cache=empty_cache, out=tmp_path / "run", report=False)
    assert tuned.images["used"] == 36


def test_photos_without_a_label_in_an_archive_are_there_where_the_run_took_several_labels(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3})
    (photos / "labels.csv").write_text("path,label\nred/0.png,defect\nred/1.png,\nred/2.png,defect\n")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    run, digest = tmp_path / "run", blake3.blake3((photos / "red" / "1.png").read_bytes()).digest()
    run.mkdir()
    (run / "photos.json").write_text(json.dumps(Asked.of(archive, "auto", None, None).to_dict()))
    (run / "recipe.toml").write_text(Recipe(task="multilabel").to_toml())
    read, is_gone = access(run, tmp_path / "cache")
    photo = Photo(full_path(place_of(run), "red/1.png"), "", "train", digest)
    assert not is_gone(photo)
    assert read(photo) == (photos / "red" / "1.png").read_bytes()


def recorded(run: Path, *asked: object, **besides: object) -> Path:
    """A run, as far as it says where its photos came from."""
    run.mkdir()
    (run / "photos.json").write_text(json.dumps(Asked.of(*asked, **besides).to_dict()))
    return run


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Red and blue photos in an archive."""
    folder = make_photos(tmp_path / "packed", {"red": 2, "blue": 2})
    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_photos_in_an_archive_are_gone_where_the_run_is_that_says_which_it_was_and_it_is_named(
    packed: Path, tmp_path: Path
) -> None:
    first = recorded(tmp_path / "first", packed, "auto", None, None)
    second = recorded(tmp_path / "second", make_photos(tmp_path / "more", {"grey": 1}), "auto", None, None, first)
    inside, beside = (Photo(str(place / "red" / "0.png"), "red", "train", bytes(32)) for place in (packed, tmp_path))
    far = replace(inside, path="s3://bucket/red/0.png")
    assert [access(second, tmp_path)[1](photo) for photo in (inside, far, beside)] == [False, True, True]
    shutil.rmtree(first)
    read, is_gone = access(second, tmp_path)
    assert all(map(is_gone, (inside, far, beside)))
    missed = f"cannot be found: the run {first}, which says where it is, is not there any more"
    assert [why_gone(read, photo) for photo in (inside, far, beside)] == [missed, missed, "is not there any more"]


@pytest.mark.parametrize("gone", ["valid", "test", "valid test"])
def test_photos_in_an_archive_are_not_gone_where_a_folder_beside_it_is(gone: str, packed: Path, tmp_path: Path) -> None:
    sides = [make_photos(tmp_path / side, {"red": 1, "blue": 1}) for side in ("valid", "test")]
    archives = [Path(shutil.make_archive(str(folder), "zip", folder)) for folder in sides]
    run = recorded(tmp_path / "run", packed, "auto", *archives)
    photos = [
        Photo(str(packed / name), "red", "train", bytes(32))
        for name in ("red/0.png", "valid/red/0.png", "test/red/0.png")
    ]
    assert not any(map(access(run, tmp_path)[1], photos))
    for side in gone.split():
        (tmp_path / f"{side}.zip").unlink()
    is_gone = access(run, tmp_path)[1]
    assert [is_gone(photo) for photo in photos] == [False, "valid" in gone, "test" in gone]


def test_a_source_that_is_there_and_cannot_be_read_costs_its_own_photos_and_is_asked_once(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = recorded(tmp_path / "far", "nosuchstore://bucket/photos", "auto", None, None)
    other = Path(shutil.copy(packed, tmp_path / "other.zip"))
    run = recorded(tmp_path / "run", other, "auto", None, None, far)
    last = recorded(tmp_path / "last", packed, "auto", None, None, run)
    packed.write_bytes(packed.read_bytes()[:-90])
    digest = blake3.blake3((tmp_path / "packed" / "red" / "0.png").read_bytes()).digest()
    names = [packed, other, tmp_path, "nosuchstore://bucket/photos", "nosuchstore://elsewhere"]
    broken, whole, beside, *there = (Photo(f"{name}/red/0.png", "red", "train", digest) for name in names)
    opened: list[object] = []

    def counted_open(source: object, **settings: Any) -> Source:
        opened.append(source)
        return open_source(source, **settings)

    monkeypatch.setattr("rehead.runs.origins.open_source", counted_open)
    read, is_gone = access(last, tmp_path)
    assert [is_gone(photo) for photo in (broken, whole, beside, *there)] == [True, False, True, True, True]
    assert blake3.blake3(read(whole)).digest() == digest
    assert why_gone(read, beside) == "is not there any more"
    said = "Nothing here reads nosuchstore:// addresses."
    with pytest.raises(PhotoError, match=f"^cannot be read: {said}$"):
        read(there[0])
    for photo, what in [(broken, "is truncated, broken, or no archive"), (there[0], said)]:
        with pytest.raises(SourceError, match=what):
            why_gone(read, photo)
    with pytest.raises(SourceError):
        why_gone(read, there[1])
    assert opened == [str(packed), str(other), "nosuchstore://bucket/photos"]


@pytest.mark.parametrize("is_far", [False, True])
@pytest.mark.parametrize("beside", [None, "near", "far"])
def test_a_folder_that_was_emptied_is_gone_wherever_it_is_and_whatever_is_held_out_beside_it(
    is_far: bool, beside: str | None, tmp_path: Path
) -> None:
    import fsspec

    kept = make_photos(tmp_path / "kept", {"red": 1, "blue": 1})
    far = in_memory(kept)
    (tmp_path / "emptied").mkdir()
    fsspec.filesystem("memory").makedirs(f"/{tmp_path.name}/emptied")
    emptied = far.replace("kept", "emptied") if is_far else str(tmp_path / "emptied")
    test = {None: None, "near": kept, "far": far}[beside]
    read, is_gone = access(recorded(tmp_path / "run", emptied, "auto", None, test), tmp_path)
    photo = Photo(f"{emptied}/red/0.png", "red", "train", bytes(32))
    assert is_gone(photo)
    assert why_gone(read, photo) == "is not there any more"


@pytest.mark.parametrize("broken", ["main", "test"])
def test_a_source_and_what_is_held_out_beside_it_are_there_each_by_itself(
    broken: str, packed: Path, tmp_path: Path
) -> None:
    held_out = Path(shutil.copy(packed, tmp_path / "held.zip"))
    run = recorded(tmp_path / "run", packed, "auto", None, held_out)
    damaged = packed if broken == "main" else held_out
    damaged.write_bytes(damaged.read_bytes()[:-90])
    read, is_gone = access(run, tmp_path)
    photos = [Photo(str(packed / name), "red", "train", bytes(32)) for name in ("red/0.png", "held/red/0.png")]
    assert [is_gone(photo) for photo in photos] == [broken == "main", True]
    with pytest.raises(SourceError, match="is truncated, broken, or no archive"):
        why_gone(read, photos[1])


@pytest.mark.parametrize(("named", "has_test"), [("labels.csv", False), ("labels.csv", True), (".", False)])
def test_photos_of_a_table_are_gone_where_the_table_alone_is_left(named: str, has_test: bool, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    rows = [f"{path.relative_to(photos)},{path.parent.name}\n" for path in sorted(photos.rglob("*.png"))]
    (photos / "labels.csv").write_text("path,label\n" + "".join(rows))
    test = photos / "test.csv" if has_test else None
    if test is not None:
        test.write_text("path,label\n" + rows[0])
    run = recorded(tmp_path / "run", photos / named, "auto", None, test)
    for line in rows[has_test:]:
        (photos / line.split(",")[0]).unlink()
    photo = Photo(str(photos / rows[-1].split(",")[0]), "red", "train", bytes(32))
    read, is_gone = access(run, tmp_path)
    assert is_gone(photo)
    assert why_gone(read, photo) == "is not there any more"


def test_a_table_that_cannot_be_taken_is_there(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 1})
    (photos / "labels.csv").write_text("path,label\nred/0.png,red\n")
    run = recorded(tmp_path / "run", photos, "auto", None, None)
    (photos / "red" / "0.png").rename(photos / "0.png")
    (photos / "labels.csv").write_bytes("path,label\nred/0.png,löwe\n".encode("latin-1"))
    with pytest.raises(SourceError, match="UTF-8"):
        why_gone(access(run, tmp_path)[0], Photo(str(photos / "red" / "0.png"), "red", "train", bytes(32)))


def run_on_a_damaged_archive(tmp_path: Path, cache: Path) -> rehead.Tuned:
    """A run whose photos were whole."""
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    archive = Path(shutil.make_archive(str(photos), "zip", photos))
    before = run_with(archive, tmp_path / "before", cache)
    archive.write_bytes(archive.read_bytes()[:-90])
    return before


def test_a_job_goes_on_without_an_archive_that_cannot_be_read_where_it_needs_none_of_its_bytes(
    green: Path, cache: Path, empty_cache: Path, tmp_path: Path
) -> None:
    before = run_on_a_damaged_archive(tmp_path, cache)
    tuned = rehead.tune(green, from_run=before.run, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.images["used"] == 36
    for settings in ({"fit": "pad", "cache": cache}, {"cache": empty_cache}):
        with pytest.raises(SourceError, match="is truncated, broken, or no archive"):
            rehead.tune(green, from_run=before.run, out=tmp_path / "not", report=False, **settings)
    with pytest.raises(SourceError, match="is truncated, broken, or no archive"):
        photos_of(bundles.read(before.bundle), None, "auto", cache, Silent())


@pytest.mark.slow
def test_an_archive_that_cannot_be_read_leaves_empty_tiles_in_a_report(cache: Path, tmp_path: Path) -> None:
    before = run_on_a_damaged_archive(tmp_path, cache)
    from test_begin import Notes

    notes = Notes()
    assert rehead.report(before.run, cache=cache, progress=notes).path.is_file()
    assert "24 photos of 24 cannot be read any more: empty tiles stand for them." in notes.notes


def test_a_run_that_is_missing_is_named_where_its_photos_are(
    green: Path, cache: Path, empty_cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    archive = Path(shutil.make_archive(str(photos), "zip", photos))
    first = run_with(archive, tmp_path / "first", cache)
    second = rehead.tune(green, from_run=first.run, cache=cache, out=tmp_path / "second", report=False)
    shutil.rmtree(first.run)
    missed = f"cannot be found: the run {first.run}, which says where it is, is not there any more"
    with pytest.raises(RecipeError, match="--fit is another") as refused:
        rehead.tune(green, from_run=second.run, cache=cache, out=tmp_path / "run", fit="pad", report=False)
    assert refused.value.why.endswith(f": it {missed}.")
    with pytest.raises(RunError, match="Nothing is left to learn 'blue', 'red' from") as lacking:
        rehead.tune(green, from_run=second.run, cache=empty_cache, out=tmp_path / "run", report=False)
    assert missed in lacking.value.why
    with pytest.raises(RunError, match="held out cannot be had") as unjudged:
        photos_of(bundles.read(second.bundle), None, "auto", cache, Silent())
    assert missed in unjudged.value.why


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"train": "last:1", "head": "linear"}, "--train is another"), ({"fit": "pad"}, "--fit is another")],
)
def test_another_prefix_needs_the_earlier_files(
    setting: dict[str, str], words: str, first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        rehead.tune(green, from_run=first.bundle, cache=cache, out=tmp_path / "run", **setting, report=False)
    assert error.value.why.startswith("24 of 24 cannot be had, such as ")
    assert error.value.why.endswith(".png: it is not there any more.")


def test_another_fit_is_taken_where_the_files_are(green: Path, cache: Path, tmp_path: Path) -> None:
    before = run_with(make_photos(tmp_path / "photos", {"red": 12, "blue": 12}), tmp_path / "before", cache)
    tuned = rehead.tune(green, from_run=before.run, cache=cache, out=tmp_path / "run", fit="squash", report=False)
    assert bundles.read(tuned.bundle).preprocess.fit == "squash"
    assert tuned.images["used"] == 36


@pytest.mark.parametrize(
    ("setting", "words"), [({"valid_fraction": 0.5}, r"--valid-fraction is 0\.2 in"), ({"seed": 7}, "--seed is 1 in")]
)
def test_other_sides_than_the_run_drew_are_refused(
    setting: dict[str, float], words: str, first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=words):
        rehead.tune(green, from_run=first.bundle, cache=cache, out=tmp_path / "run", **setting, report=False)


def test_where_no_side_is_drawn_any_seed_will_do(first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path) -> None:
    from test_begin import begin

    held_out = greens(tmp_path / "held_out", 4000)
    found = begin(tmp_path / "run", cache, source=green, from_run=first.run, valid=held_out, settings={"seed": 7})
    assert found.recipe.seed == 7
    assert len(found.catalog.on("valid")) == len(read_finished(first.run, cache).catalog.on("valid")) + 12


def test_beside_sides_that_were_given_new_photos_are_drawn_by_the_seed_that_is_told(
    cache: Path, tmp_path: Path
) -> None:
    from test_begin import begin

    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    held_out = make_photos(tmp_path / "held_out", {"blue": 2, "red": 2})
    before = rehead.tune(
        photos, valid=held_out, cache=cache, out=tmp_path / "before", head="prototype", seed=1, report=False
    )
    more = greens(tmp_path / "more", 3000)
    found = begin(tmp_path / "run", cache, source=more, from_run=before.run, settings={"seed": 7}).catalog
    new = [photo for photo in found.photos if photo.label == "green"]
    assert {photo.digest: photo.side for photo in new} == {
        photo.digest: side_of(photo.digest, seed=7, valid_fraction=0.2) for photo in new
    }
    assert any(side_of(p.digest, seed=1, valid_fraction=0.2) != p.side for p in new)


@pytest.mark.slow
def test_only_the_photos_that_a_limit_let_in_are_learned_again(
    green: Path, cache: Path, empty_cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    before = run_with(photos, tmp_path / "before", empty_cache, limit=16)
    shutil.rmtree(photos)
    tuned = rehead.tune(green, from_run=before.run, cache=empty_cache, out=tmp_path / "run", report=False)
    assert tuned.images == {"used": 28, "skipped": 0, "from_store": 16}
    assert not tuned.verdict.partial


def with_copies(folder: Path, *held_out: str, n: int = 10) -> Path:
    """Photos of two classes, n of each on the side train or, where no sides are held out, without any; and a near copy of each
    for every such side, or one."""
    random = np.random.default_rng(0)
    for label in ("one", "other"):
        for side in ("train", *held_out) if held_out else ("",):
            (folder / side / label).mkdir(parents=True)
        for i in range(n):
            picture = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((96, 96))
            picture.save(folder / ("train" if held_out else "") / label / f"{i}.png")
            for smaller, side in enumerate(held_out or ("",)):
                picture.resize((80 - smaller, 80 - smaller)).save(folder / side / label / f"{i}-copy.png")
    return folder


def side_by_digest(run: Path) -> dict[str, str]:
    with (run / "catalog.csv").open(newline="") as file:
        return {row["digest"]: row["side"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("held_out", [["valid"], ["valid", "test"]])
def test_sides_that_were_given_stay_as_they_are(held_out: list[str], green: Path, cache: Path, tmp_path: Path) -> None:
    before = run_with(with_copies(tmp_path / "photos", *held_out), tmp_path / "before", cache)
    tuned = rehead.tune(green, from_run=before.run, cache=cache, out=tmp_path / "run", report=False)
    sides, earlier = side_by_digest(tuned.run), side_by_digest(before.run)
    assert {digest: sides[digest] for digest in earlier} == earlier
    assert {side for digest, side in sides.items() if digest not in earlier} == {"train", held_out[-1]}
    assert tuned.verdict.side == before.verdict.side == held_out[-1]
    assert {facts.label for facts in tuned.verdict.classes if facts.n} == {"green", "one", "other"}
    assert read_earlier(before.run, cache).recipe_with(None, {"valid_fraction": 0.4}).valid_fraction == 0.4


@pytest.mark.slow
def test_of_a_limited_run_whose_near_copies_changed_sides_the_photos_that_it_used_are_learned_again(
    green: Path, cache: Path, tmp_path: Path
) -> None:
    before = run_with(with_copies(tmp_path / "photos", n=30), tmp_path / "before", cache, limit=60)
    assert "went to the training side" in (before.run / "log.txt").read_text()
    rows = list(side_by_digest(before.run))
    used = {rows[i] for i in read_finished(before.run, cache).outputs.used}
    tuned = rehead.tune(green, from_run=before.run, cache=cache, out=tmp_path / "run", report=False)
    assert len(used) == 60
    assert used <= set(side_by_digest(tuned.run))
    assert len(side_by_digest(tuned.run)) == 72


@pytest.mark.slow
def test_a_fit_that_was_chosen_is_kept(green: Path, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    before = run_with(photos, tmp_path / "before", cache, fit="auto")
    shutil.rmtree(photos)
    tuned = rehead.tune(green, from_run=before.run, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.recipe.fit == bundles.read(before.bundle).preprocess.fit
    assert tuned.images["from_store"] >= 24


def test_what_is_no_finished_run_is_refused(first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        rehead.tune(green, from_run=tmp_path, cache=cache, report=False)
    shutil.copy(first.run / "recipe.toml", tmp_path)
    with pytest.raises(RunError, match="is not finished"):
        rehead.tune(green, from_run=tmp_path, cache=cache, report=False)
    (shutil.copytree(first.run, tmp_path / "copy") / "catalog.csv").write_text(
        "path,label,side,digest,group\na,b,c,xy,\n"
    )
    with pytest.raises(RunError, match="cannot be read"):
        rehead.tune(green, from_run=tmp_path / "copy", cache=cache, report=False)


def test_a_finished_run_whose_bundle_was_moved_out_says_so_whatever_is_asked_of_it(
    first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(first.run, tmp_path / "run"))
    (run / "bundle").rename(tmp_path / "pets")
    for ask in (
        lambda: rehead.tune(green, from_run=run, cache=cache, report=False),
        lambda: rehead.tune(resume=run, cache=cache, report=False),
        lambda: read_finished(run, cache),
    ):
        with pytest.raises(RunError) as caught:
            ask()
        assert caught.value.what == f"The bundle of the run {run} is not there any more."
        assert caught.value.fix == f"Bring it back to {run / 'bundle'}, or tune again."


def test_an_interrupted_run_goes_on_from_the_earlier_one_where_that_is_now(
    first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    from test_begin import begin, taken_up

    before, run = shutil.copytree(first.run, tmp_path / "before"), tmp_path / "run"
    begin(run, cache, source=green, from_run=before)
    moved = before.rename(tmp_path / "moved")
    kept = (run / "photos.json").read_bytes()
    with pytest.raises(RunError) as caught:
        taken_up(run, cache)
    assert caught.value.what == f"There is no folder {before}."
    assert caught.value.fix == "Name where that is now: --from DIR"
    assert (run / "photos.json").read_bytes() == kept
    for named in ({"from_run": moved / "bundle"}, {}):
        assert len(taken_up(run, cache, **named).catalog.photos) == 36
        assert asked_of(run).from_run == str(moved)


def test_an_interrupted_run_does_not_go_on_from_another_than_it_came_from(
    first: rehead.Tuned, green: Path, cache: Path, tmp_path: Path
) -> None:
    from test_begin import begin, taken_up

    other = run_with(make_photos(tmp_path / "photos", {"red": 4, "blue": 6}), tmp_path / "other", cache)
    begin(tmp_path / "run", cache, source=green, from_run=first.run)
    with pytest.raises(RunError, match="The photos are not those that the run"):
        taken_up(tmp_path / "run", cache, from_run=other.run)
    begin(tmp_path / "alone", cache, source=tmp_path / "photos")
    with pytest.raises(RecipeError, match="--seed is 1 in the run"):
        taken_up(tmp_path / "run", cache, settings={"seed": 7}, force=True)
    with pytest.raises(RunError, match="came from no other") as caught:
        taken_up(tmp_path / "alone", cache, from_run=first.run)
    assert "Leave --from out" in caught.value.fix


@pytest.mark.slow
def test_layers_are_trained_again_on_all_photos_from_kept_activations_and_an_interrupted_run_is_taken_up(
    green: Path, cache: Path, tmp_path: Path
) -> None:
    from test_deeper import LAST, interrupted

    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    before = rehead.tune(
        photos, cache=cache, out=tmp_path / "before", train="last:1", epochs=1, batch_size=8, report=False
    )
    shutil.rmtree(photos)
    run = tmp_path / "run"
    interrupted(green, run, cache, from_run=before.bundle, **LAST)
    tuned = rehead.tune(resume=run, cache=cache, report=False)
    assert bundles.read(tuned.bundle).facts["backbone"]["learned"] == ["conv_head"]
    assert tuned.classes == ("blue", "green", "red")
    assert tuned.images["used"] == 36
    assert tuned.images["from_store"] >= 24


@pytest.mark.slow
def test_activations_are_all_that_is_left_of_photos_also_where_they_go_beyond_the_limit(
    green: Path, cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 12, "blue": 12})
    layers = {"train": "last:1", "epochs": 1, "batch_size": 8, "cache": cache, "report": False}
    before = rehead.tune(photos, out=tmp_path / "before", **layers)
    shutil.rmtree(photos)
    tuned = rehead.tune(green, from_run=before.run, out=tmp_path / "run", cache_limit_gb=0.001, **layers)
    assert tuned.images["used"] == 36
    log = (tuned.run / "log.txt").read_text()
    assert "Cut behind blocks.6, whatever --cache-limit says: nothing else is left of 24 earlier photos" in log


SMALL_LAYERS: dict[str, Any] = {
    "backbone": "test_resnet", "backbone_args": {"input_size": 64}, "train": "last:1", "epochs": 1, "batch_size": 8,
    "report": False,
}  # fmt: skip


@pytest.mark.long
def test_one_photo_that_is_gone_does_not_set_the_limit_aside(green: Path, cache: Path, tmp_path: Path) -> None:
    photos, settings = weighed(make_photos(tmp_path / "photos", {"red": 12, "blue": 12}), tmp_path)
    before = rehead.tune(photos, out=tmp_path / "before", cache=cache, **settings)
    (photos / "red" / "0.png").unlink()
    tuned = rehead.tune(green, from_run=before.run, out=tmp_path / "run", cache=cache, cache_limit_gb=1e-5, **settings)
    assert tuned.images["used"] == 35
    told = r"What is left of 1 earlier photo is kept behind (\S+): --cut \1 keeps them"
    said = re.search(told, (tuned.run / "log.txt").read_text())
    assert said
    settings |= {"cut": said[1]}
    kept = rehead.tune(green, from_run=before.run, out=tmp_path / "kept", cache=cache, **settings)
    assert kept.images["used"] == 36


@pytest.mark.long
def test_the_cut_behind_which_photos_are_kept_stays_where_the_limit_is_raised(
    green: Path, empty_cache: Path, tmp_path: Path
) -> None:
    photos, settings = weighed(make_photos(tmp_path / "photos", {"red": 12, "blue": 12}), tmp_path)
    before = rehead.tune(photos, out=tmp_path / "before", cache=empty_cache, cut="layer1", **settings)
    recipe = before.run / "recipe.toml"
    recipe.write_text(re.sub(r"^cut = .*\n", "", recipe.read_text(), flags=re.MULTILINE))  # as where the limit moved it
    shutil.rmtree(photos)
    tuned = rehead.tune(
        green, from_run=before.run, out=tmp_path / "run", cache=empty_cache, cache_limit_gb=1.0, **settings
    )
    assert tuned.images["used"] == 36
    log = (tuned.run / "log.txt").read_text()
    assert "Cut behind layer1, whatever --cache-limit says: nothing else is left of 24 earlier photos" in log
    assert "would be more than --cache-limit" not in log


@pytest.mark.parametrize("cut", ["none", "layer1", "layer3.0"])
@pytest.mark.long
def test_a_cut_that_would_lose_the_photos_that_are_kept_behind_another_is_refused(
    cut: str, empty_cache: Path, tmp_path: Path
) -> None:
    photos, settings = weighed(make_photos(tmp_path / "photos", {"red": 12, "blue": 12}), tmp_path)
    before = rehead.tune(photos, out=tmp_path / "before", cache=empty_cache, **settings)
    shutil.rmtree(photos)
    settings |= {"from_run": before.run, "out": tmp_path / "run", "cache": empty_cache}
    new = make_photos(tmp_path / "new", {"blue": 12, "red": 12})
    with pytest.raises(RecipeError) as error:
        rehead.tune(new, cut=cut, **settings)
    assert error.value.what == f"--cut {cut} would leave out 24 earlier photos, of which no file is there."
    named = re.match(r"Name --cut (\S+),", error.value.fix)
    assert named
    assert rehead.tune(new, cut=named[1], **settings).images["used"] == 48


def test_where_the_disk_has_no_room_photos_that_are_gone_are_not_kept_at_any_price(
    green: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, settings = weighed(make_photos(tmp_path / "photos", {"red": 12, "blue": 12}), tmp_path)
    before = rehead.tune(photos, out=tmp_path / "before", cache=cache, **settings)
    shutil.rmtree(photos)
    monkeypatch.setattr("rehead.cutting.free_bytes", lambda _: 0)
    with pytest.raises(RunError, match="Nothing is left to learn 'blue', 'red' from"):
        rehead.tune(green, from_run=before.run, out=tmp_path / "run", cache=cache, cache_limit_gb=1e-5, **settings)


def weighed(photos: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The photos, and settings of a small network with weights of its own, whose last layer learns."""
    from test_replaced_weights import weights

    return photos, {**SMALL_LAYERS, "weights": weights(folder / "w.safetensors", 0)}


@pytest.mark.realdata
@pytest.mark.slow
def test_flowers_are_added_to_cats_and_dogs(cache: Path, tmp_path: Path) -> None:
    def linked(name: str, folders: dict[str, Path], n: int) -> Path:
        for label, folder in folders.items():
            (tmp_path / name / label).mkdir(parents=True)
            for path in sorted(folder.glob("*.jpg"))[:n]:
                (tmp_path / name / label / path.name).symlink_to(path)
        return tmp_path / name

    pets = linked("pets", {name: DATA / "dogscats" / name for name in ("cat", "dog")}, 40)
    before = rehead.tune(pets, cache=cache, out=tmp_path / "before", report=False)
    shutil.rmtree(pets)
    flowers = linked("flowers", {name: DATA / "flowers" / name for name in ("daisy", "rose")}, 30)
    tuned = rehead.tune(flowers, from_run=before.bundle, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.classes == ("cat", "daisy", "dog", "rose")
    assert tuned.images["from_store"] >= 80
    assert tuned.verdict.top1.value >= 0.85


@pytest.mark.parametrize(("preset", "settings"), [("quick", {}), ("balanced", {}), (None, {"train": "last:1"})])
def test_a_first_phase_goes_with_the_layers_that_the_run_trained(
    first: rehead.Tuned, cache: Path, preset: str | None, settings: dict[str, str]
) -> None:
    earlier = replace(read_earlier(first.run, cache), recipe=Recipe.from_preset("thorough", {}), photos=())
    assert earlier.recipe_with(None, {}).first == "balanced"
    assert earlier.recipe_with(preset, settings).first is None


@pytest.mark.parametrize(
    ("own", "settings"),
    [
        ({"train": "last:1"}, {"lr": "auto"}),
        ({"train": "all"}, {"first": "balanced"}),
        ({"head": "mlp:9"}, {"lr": "auto"}),
    ],
)
def test_settings_are_judged_beside_those_of_the_run(
    own: dict[str, str], settings: dict[str, str], first: rehead.Tuned, cache: Path
) -> None:
    earlier = replace(read_earlier(first.run, cache), recipe=Recipe.from_dict(own), photos=())
    assert earlier.recipe_with(None, settings) == Recipe.from_dict({**own, **settings})


def test_a_preset_that_needs_the_earlier_files_is_named_in_place_of_its_settings(
    first: rehead.Tuned, cache: Path
) -> None:
    earlier = read_earlier(first.run, cache)
    earlier = replace(earlier, recipe=replace(earlier.recipe, head="linear"))
    with pytest.raises(RecipeError) as error:
        earlier.recipe_with("thorough", {})
    assert error.value.what.startswith("--train of --recipe thorough is another than in the run")
    assert error.value.fix == "Bring them back to their place, or leave --recipe out."
    with pytest.raises(RecipeError) as error:
        earlier.recipe_with(None, {"backbone_args": {"input_size": 64}})
    assert error.value.what.startswith("--backbone-arg is another than in the run")
    assert error.value.fix == "Bring them back to their place, or leave --backbone-arg out."


def test_a_seed_is_told_to_its_last_digit(first: rehead.Tuned, green: Path, cache: Path) -> None:
    earlier = read_earlier(first.run, cache)
    earlier = replace(earlier, recipe=replace(earlier.recipe, seed=20240131))
    with pytest.raises(RecipeError, match="--seed is 20240131 in the run"):
        earlier.check_dice({"seed": 7}, open_source(green, layout="auto", valid=None, test=None, cache=cache))
