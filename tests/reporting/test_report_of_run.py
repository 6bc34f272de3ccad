"""The report at the end of a job and again later: what it stands on, photos that are gone, runs that are no runs."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from conftest import make_photos
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

import rehead as package
from rehead.auditing.examine import read_audit
from rehead.auditing.findings import Audit
from rehead.cli.commands import app
from rehead.cli.ending import guarded
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import RunError
from rehead.reporting.job import _heat, report
from rehead.runs.finished import read_finished
from rehead.runs.outputs import read_outputs
from rehead.verdict.judging import read_verdict
from rehead.verdict.metrics import Verdict


def structured(seed: int) -> Image.Image:
    """A picture whose hash tells it from others: smooth shapes, not noise."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 40, of which many are there a second time at another size and quality."""
    folder = make_photos(tmp_path_factory.mktemp("reported") / "photos", {"red": 30, "blue": 30})
    for i in range(10):
        for seed, label, tint in ((i, "red", (90, -40, -40)), (100 + i, "blue", (-40, -40, 90))):
            picture = Image.fromarray(np.clip(np.asarray(structured(seed)).astype(int) + tint, 0, 255).astype(np.uint8))
            picture.save(folder / label / f"once{i}.png")
            picture.resize((80, 80)).save(folder / label / f"again{i}.jpg", quality=80)
    return folder


@pytest.fixture(scope="module")
def tuned(photos: Path, cache: Path) -> package.Tuned:
    return package.tune(photos, cache=cache, out=photos.parent / "run", report=True)


def test_a_job_ends_with_a_report_and_what_it_stands_on(tuned: package.Tuned) -> None:
    assert tuned.report == tuned.run / "report.html"
    html = tuned.report.read_text(encoding="utf-8")
    assert html.index("photos it never saw") < html.index("How it was made")
    assert tuned.report.stat().st_size < 8_000_000
    audit = Audit.from_dict(json.loads((tuned.run / "audit.json").read_text()))
    assert audit.n == tuned.images["used"]
    verdict = read_verdict(json.loads((tuned.run / "verdict.json").read_text()))
    assert isinstance(verdict, Verdict)
    assert verdict == tuned.verdict
    assert verdict.growth is not None
    assert verdict.growth.points[-1].n == verdict.n_train
    outputs = read_outputs(tuned.run)
    assert len(outputs.held_out) == verdict.n
    assert (outputs.apart_logits.shape, len(outputs.apart)) == ((verdict.n_train, 2), verdict.n_train)


def test_no_large_photo_is_decoded_at_full_size_to_show_where_the_model_looks(
    tuned: package.Tuned, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif, file, sizes = Image.Exif(), io.BytesIO(), []
    exif[0x0112] = 6
    structured(0).resize((4000, 2000)).save(file, "JPEG", exif=exif)
    load = JpegImageFile.load

    def seen(image: JpegImageFile) -> object:
        sizes.append(image.size)
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", seen)
    heat = _heat(read_finished(tuned.run, cache))
    assert heat is not None
    height, width = heat(file.getvalue(), 0).shape
    assert height == 2 * width
    assert max(sizes) < (2000, 2000)


def test_near_copies_stand_on_one_side(tuned: package.Tuned) -> None:
    audit = Audit.from_dict(json.loads((tuned.run / "audit.json").read_text()))
    twice = [group for group in audit.copies if any("again" in path for path in group.paths)]
    assert len(twice) >= 15
    assert audit.leaks.n == 0
    assert all(len(set(group.sides)) == 1 for group in twice)


def test_the_page_is_written_again_without_the_photos_and_says_so(
    tuned: package.Tuned, photos: Path, cache: Path, tmp_path: Path
) -> None:
    moved = photos.rename(photos.with_name("elsewhere"))
    try:
        again = report(tuned.run, out=tmp_path / "again.html", cache=cache)
    finally:
        moved.rename(photos)
    assert again.path == tmp_path / "again.html"
    html = again.path.read_text(encoding="utf-8")
    assert "cannot be read any more" in html
    assert "data:image/webp" not in html
    assert again.verdict == tuned.verdict


def test_the_command_that_repeats_it_is_that_of_a_table_with_photos_held_out(
    tuned: package.Tuned, cache: Path, tmp_path: Path
) -> None:
    assert '<code id="command">rehead tune photos</code>' in tuned.report.read_text(encoding="utf-8")
    run = shutil.copytree(tuned.run, tmp_path / "run")
    asked = json.loads((run / "photos.json").read_text())
    (run / "photos.json").write_text(json.dumps(asked | {"source": "/data/a/photos.csv", "valid": "/data/held"}))
    html = report(run, cache=cache).path.read_text(encoding="utf-8")
    assert '<code id="command">rehead tune a/photos.csv --valid held</code>' in html


def test_an_audit_that_does_not_say_what_it_judged_is_made_anew(
    tuned: package.Tuned, cache: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tuned.run, tmp_path / "run")
    audit = json.loads((run / "audit.json").read_text())
    assert audit.pop("n_judged") == audit["n"]
    (run / "audit.json").write_text(json.dumps(audit))
    assert read_audit(read_finished(run, cache)) is None


@pytest.mark.long
def test_a_report_that_was_interrupted_is_whole_the_next_time(
    tuned: package.Tuned, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(tuned.run, tmp_path / "run")
    verdict = json.loads((run / "verdict.json").read_text())
    (run / "verdict.json").write_text(json.dumps(verdict | {"growth": None}))
    (run / "audit.json").unlink()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rehead.auditing.examine.grown", interrupted)
        with pytest.raises(KeyboardInterrupt):
            report(run, cache=cache)
    assert report(run, cache=cache).verdict == tuned.verdict


@pytest.fixture(scope="module")
def untold(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[package.Tuned, Path]:
    """A run without a report, on sides that are given; a copy, bytes of two classes, a class nobody learns, an empty file."""
    folder = tmp_path_factory.mktemp("untold") / "photos"
    for n, (side, label) in enumerate((s, c) for s in ("train", "val") for c in ("red", "blue")):
        (folder / side / label).mkdir(parents=True)
        for i in range(8):
            tint = np.array((90, -40, -40) if label == "red" else (-40, -40, 90))
            picture = np.clip(np.asarray(structured(1000 + 10 * n + i)).astype(int) + tint, 0, 255)
            Image.fromarray(picture.astype(np.uint8)).save(folder / side / label / f"{i}.png")
    red, blue = folder / "train" / "red", folder / "train" / "blue"
    shutil.copy(red / "0.png", red / "copy.png")
    shutil.copy(red / "1.png", blue / "both.png")
    (red / "empty.png").touch()
    (folder / "val" / "green").mkdir()
    structured(2000).save(folder / "val" / "green" / "0.png")
    tuned = package.tune(folder, cache=cache, out=folder.parent / "run", report=False, tie_copies=False)
    return tuned, folder


def test_photos_that_are_gone_took_part_and_are_looked_at_once_they_are_back(
    untold: tuple[package.Tuned, Path], cache: Path
) -> None:
    tuned, folder = untold
    moved = folder.rename(folder.with_name("away"))
    try:
        away = report(tuned.run, cache=cache).audit
    finally:
        moved.rename(folder)
    assert away is not None
    assert [broken.path for broken in away.broken] == ["train/red/empty.png"]
    assert f"{away.n} photos could not be looked at: their features alone were kept." in away.notes
    back = report(tuned.run, cache=cache).audit
    assert back is not None
    assert not any("could not be looked at" in note for note in back.notes)


def test_a_report_that_comes_later_knows_what_the_job_knew(untold: tuple[package.Tuned, Path], cache: Path) -> None:
    tuned, folder = untold
    later = read_finished(tuned.run, cache).catalog
    now = scan(open_source(folder, cache=cache), seed=0, valid_fraction=0.2)
    assert later.same == now.same
    assert {tuple(sorted(photo.path for photo in group)) for group in later.same} == {
        ("train/red/0.png", "train/red/copy.png"),
        ("train/blue/both.png", "train/red/1.png"),
    }
    assert [skip.path for skip in later.bad] == ["train/red/empty.png"]
    assert {skip.path: skip.kind for skip in later.skipped}["val/green/0.png"] == "aside"
    assert later.file(later.photos[0]) == str(folder / later.photos[0].path)


def test_what_more_photos_would_bring_is_left_out_where_dense_heads_would_learn_for_minutes(
    tuned: package.Tuned, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(tuned.run, tmp_path / "run")
    (run / "audit.json").unlink()
    verdict = json.loads((run / "verdict.json").read_text())
    (run / "verdict.json").write_text(json.dumps(verdict | {"growth": None}))
    monkeypatch.setattr("rehead.auditing.examine.multiplied", lambda *_: 1e13)
    monkeypatch.setattr("rehead.job.Job.own_device", lambda *_: "cpu")
    found = report(run, cache=cache).verdict
    assert isinstance(found, Verdict)
    assert found.growth is None


def test_without_features_there_is_a_page_too(tuned: package.Tuned, photos: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tuned.run, tmp_path / "run")
    (run / "audit.json").unlink()
    moved = photos.rename(photos.with_name("elsewhere"))
    try:
        found = report(run, cache=tmp_path / "empty")
    finally:
        moved.rename(photos)
    assert "photos it never saw" in found.path.read_text(encoding="utf-8")


def test_what_is_no_finished_run_is_told(
    tuned: package.Tuned, tmp_path: Path, rehead: Callable[..., CompletedProcess[str]]
) -> None:
    with pytest.raises(RunError, match="is no run of rehead"):
        report(tmp_path)
    with pytest.raises(RunError, match=r"does not end in \.html"):
        report(tuned.run, out=tmp_path / "cat.jpg")
    with pytest.raises(RunError, match="cannot be written"):
        report(tuned.run, out=tuned.run / "run.json" / "a.html")
    run = shutil.copytree(tuned.run, tmp_path / "run")
    (run / "logits.safetensors").write_bytes(b"damaged")
    told = rehead("report", run)
    assert told.returncode == 2
    assert "gave for its photos cannot be read" in told.stderr


@pytest.mark.parametrize("option", ["--json", "--force"])
def test_a_report_that_fails_as_nobody_thought_costs_no_word_of_the_run(
    option: str,
    photos: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("class 3 has no photo")

    monkeypatch.setattr("rehead.reporting.job.report", fails)
    run = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv", ["rehead", "tune", str(photos), "--out", str(run), "--cache", str(cache), "--limit", "20", option]
    )
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # Typer replaces both
    assert guarded(app) == 1
    told = capfd.readouterr()
    if option == "--json":
        facts = json.loads(told.out)
        assert (facts["run"], facts["report"]) == (str(run), None)
    else:
        assert f"Bundle    {run / 'bundle'}" in told.out
        assert f"The run is whole; `rehead report {run}` tries again." in told.err
    assert "Error: rehead failed in a way it should not: ValueError: class 3 has no photo" in told.err
    assert "--debug" in told.err
    assert "No report was written: ValueError: class 3 has no photo." in (run / "log.txt").read_text()
