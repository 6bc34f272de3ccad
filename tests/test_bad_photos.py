"""Bad input: a clear error or a listed skip, never a traceback, and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import make_photos, noise

import rehead
from rehead.batches import IMAGENET
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import (
    ReheadError,
    RunError,
    SourceError,
    SplitError,
    TooManyBad,
    UnknownBackbone,
    UnsafeWeights,
    WeightsMismatch,
    WeightsUnavailable,
)
from rehead.features.samples import sample_pixels
from rehead.runs.contents import OURS

Program = Callable[..., "subprocess.CompletedProcess[str]"]


def skipped(tuned: rehead.Tuned) -> str:
    return (tuned.run / "skipped.csv").read_text(encoding="utf-8", errors="surrogateescape")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is very large, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_bad_files_are_skipped_and_listed_with_their_reason(photos: Path, cache: Path, tmp_path: Path) -> None:
    jpeg = tmp_path / "whole.jpg"
    noise(7, (200, 60, 60), 300).save(jpeg, quality=95)
    (photos / "red" / "truncated.jpg").write_bytes(jpeg.read_bytes()[:4000])
    (photos / "red" / "text.jpg").write_text("this is no image")
    (photos / "red" / "empty.png").write_bytes(b"")
    (photos / "red" / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (photos / "red" / "xl.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    (photos / "red" / "notes.txt").write_text("not a photo, and nobody thinks so")
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    listed = skipped(tuned)
    assert tuned.images["skipped"] == 5
    for name, reason in {
        "truncated.jpg": "cannot be decoded",
        "text.jpg": "is not an image",
        "xl.jxl": "is not an image",
        "empty.png": "is empty",
        "bomb.png": "decompression bomb",
    }.items():
        assert any(name in line and reason in line for line in listed.splitlines()), (name, listed)
    assert "notes.txt" not in listed


@pytest.mark.long
def test_where_features_of_all_that_can_be_read_are_shared_the_rest_is_skipped(
    photos: Path, cache: Path, tmp_path: Path
) -> None:
    noise(7, (200, 60, 60), 300).save(photos / "red" / "cut.jpg", quality=95)
    whole = (photos / "red" / "cut.jpg").read_bytes()
    (photos / "red" / "cut.jpg").write_bytes(whole[:4000])
    for name in ("mine", "hers"):
        shutil.copytree(cache / "prefixes", tmp_path / name / "prefixes")
        for agreed in (tmp_path / name / "prefixes").rglob("agreement.json"):
            agreed.unlink()  # so that the engine is compared, on photos that can be read
        tuned = rehead.tune(
            photos, cache=tmp_path / name, out=tmp_path / f"{name}-run", features=str(tmp_path / "team"), report=False
        )
        assert tuned.images["skipped"] == 1


def test_odd_but_good_files_count(photos: Path, cache: Path, tmp_path: Path) -> None:
    noise(8001, (200, 60, 60), 1).save(photos / "red" / "one pixel.png")
    noise(8002, (200, 60, 60)).save(photos / "red" / "really a png.jpg", format="PNG")
    noise(8003, (200, 60, 60)).save(photos / "red" / "🐈 new\nline.png")
    with open(os.fsencode(photos / "red") + b"/caf\xe9.png", "wb") as file:
        noise(8004, (200, 60, 60)).save(file, format="PNG")
    (photos / "red" / "folder.jpg").mkdir()
    noise(8005, (200, 60, 60)).save(photos / "red" / "folder.jpg" / "inside.png")
    (photos / ".ipynb_checkpoints").mkdir()
    noise(8006, (200, 60, 60)).save(photos / ".ipynb_checkpoints" / "x.png")
    (photos / "red" / "loop").symlink_to(photos / "red")
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.classes == ("blue", "red")
    assert tuned.images["used"] == 45
    assert (tuned.run / "catalog.csv").exists()


def test_too_many_bad_photos_stop_the_job_with_their_share(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 30, "blue": 30})
    for i in range(30):
        noise(9000 + i, (60, 60, 200)).save(photos / "blue" / f"broken{i}.png")
        whole = (photos / "blue" / f"broken{i}.png").read_bytes()
        (photos / "blue" / f"broken{i}.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="photos cannot be read") as error:
        rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    assert "--max-bad" in error.value.fix
    assert not (tmp_path / "run").exists()
    allowed = rehead.tune(photos, cache=cache, out=tmp_path / "run", max_bad=0.5, report=False)
    assert allowed.images["skipped"] == 30


@pytest.mark.parametrize("job", [rehead.tune, rehead.race])
def test_too_many_bad_photos_are_told_and_listed_where_they_leave_no_class(
    job: Callable[..., object], cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    for path in photos.glob("blue/*.png"):
        path.write_bytes(b"\x89PNG no more")
    with pytest.raises(TooManyBad, match=r"4 of 8 photos cannot be read, which is more than 20%"):
        job(photos, cache=cache, out=tmp_path / "run")
    listed = (cache / "skipped.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in listed[1:]] == [f"blue/{i}.png" for i in range(4)]


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("photos/blue", "There is only one class."),
        ("photos/blue and held out", "There is only one class."),
        ("held out", "No photo is held out, so nothing could be verified."),
        ("photos", "No photo is left to learn from."),
    ],
)
def test_an_error_says_of_bad_photos_that_may_be_its_cause(broken: str, what: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 1})
    held_out = make_photos(tmp_path / "held out", {"red": 3, "blue": 1})
    paths = sorted(path for folder in broken.split(" and ") for path in (tmp_path / folder).rglob("*.png"))
    for path in paths:
        path.write_bytes(b"\x89PNG no more")
    with pytest.raises(SplitError) as caught:
        scan(
            open_source(photos, cache=tmp_path, **({} if broken == "photos/blue" else {"test": held_out})),
            seed=0,
            valid_fraction=0.2,
        )
    assert caught.value.what == what
    n = "1 photo" if len(paths) == 1 else f"{len(paths)} photos"
    assert re.search(rf"\. {n} cannot be read, such as '[^']*0\.png', which [^.]*\.$", caught.value.why)
    assert caught.value.fix.startswith("If those are what is missing, mend them. ")


def test_what_the_reading_and_the_decoding_find_bad_is_summed(cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 15, "blue": 15})
    for path in sorted(photos.glob("red/*.png"))[:5]:
        path.write_text("this is no image")
    for path in sorted(photos.glob("blue/*.png"))[:5]:
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(
        TooManyBad, match=r"(?:[7-9]|10) of 30 photos cannot be read(?: so far)?, which is more than 20%"
    ):
        rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    run = rehead.tune(photos, cache=cache, out=tmp_path / "run", max_bad=0.34, report=False)
    assert run.images["skipped"] == 10
    with pytest.raises(TooManyBad, match="10 of 30 photos cannot be read, which is more than 20%"):
        rehead.verify(run.bundle, photos, cache=cache)


def test_where_no_photo_can_be_read_no_limit_is_blamed(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    for path in photos.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:300])
    catalog = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    card = SimpleNamespace(preprocess=IMAGENET)
    with pytest.raises(TooManyBad, match=r"None of 6 photos can be read\.") as error:
        sample_pixels(catalog, range(6), card)  # type: ignore[arg-type]
    assert len(error.value.skips) == 6


def test_what_is_passed_over_is_no_photo_that_cannot_be_read(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG no more")
    for i in range(4):
        shutil.copy(photos / "red" / "0.png", photos / f"loose{i}.png")
    catalog = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    assert [skip.path for skip in catalog.bad] == ["red/broken.png"]
    assert catalog.n_rows == 7
    assert sum(skip.kind == "aside" for skip in catalog.skipped) == 4


def test_a_companion_in_a_format_that_is_not_read_is_no_lost_photo(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    for path in [*photos.glob("*/*.png"), photos / "red" / "alone.png"]:
        path.with_suffix(".jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    (photos / "red" / "0.jpg").write_bytes(b"")
    catalog = scan(open_source(photos, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    assert {skip.path for skip in catalog.bad} == {"red/alone.jxl", "red/0.jpg"}
    assert catalog.n_rows == 8
    assert sum(skip.kind == "aside" for skip in catalog.skipped) == 6


def table_of(folder: Path, paths: list[Path]) -> Path:
    """A table beside the folder that names these photos by their folders."""
    table = folder.with_suffix(".csv")
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    return table


def test_what_lies_beside_held_out_photos_of_a_folder_is_no_bad_photo_of_a_table(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    held_out = make_photos(tmp_path / "held", {"red": 2, "blue": 2})
    for path in sorted(held_out.glob("*/*.png")):
        path.with_suffix(".xml").write_text("<annotation/>")
        path.with_suffix(".jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    table = table_of(photos, sorted(photos.glob("*/*.png")))
    catalog = scan(open_source(table, valid=held_out, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    assert catalog.bad == ()
    assert len(catalog.photos) == 10
    assert [skip.kind for skip in catalog.skipped] == ["aside"] * 4


def test_a_broken_photo_that_a_table_of_held_out_photos_names_is_listed(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 3})
    held_out = make_photos(tmp_path / "held", {"red": 2, "blue": 2})
    (held_out / "red" / "broken").write_bytes(b"")
    table = table_of(held_out, [*sorted(held_out.glob("*/*.png")), held_out / "red" / "broken"])
    catalog = scan(open_source(photos, valid=table, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    assert [Path(skip.path).name for skip in catalog.bad] == ["broken"]
    assert catalog.n_rows == 11


@pytest.mark.parametrize(
    ("counts", "words"),
    [({}, "photo"), ({"red": 5}, "only one class"), ({"red": 20, "blue": 1}, "'blue'")],
)
def test_photos_that_cannot_be_split_are_a_clear_error(counts: dict, words: str, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", counts)
    photos.mkdir(exist_ok=True)
    with pytest.raises((SourceError, SplitError), match=words):
        rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)


def test_a_missing_folder_is_a_clear_error_without_a_traceback(rehead: Program, tmp_path: Path) -> None:
    done = rehead("tune", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_output_that_exists_is_refused_and_left_whole(photos: Path, cache: Path, tmp_path: Path) -> None:
    run = rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False).run
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="there already"):
        rehead.tune(photos, cache=cache, out=run, report=False)
    with pytest.raises(ReheadError):
        rehead.tune(photos, cache=cache, out=run, force=True, limit=1, report=False)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    replaced = rehead.tune(photos, cache=cache, out=run, force=True, head="prototype", report=False)
    assert replaced.run == run
    assert json.loads((run / "run.json").read_text())["head"].startswith("prototype")
    assert {path.name for path in run.iterdir()} <= OURS
    (run / "notes.txt").write_text("of somebody")
    with pytest.raises(RunError, match=r"holds files that are not the run's: notes\.txt\."):
        rehead.tune(photos, cache=cache, out=run, force=True, report=False)
    assert (run / "notes.txt").read_text() == "of somebody"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="no run of rehead"):
        rehead.tune(photos, cache=cache, out=tmp_path / "mine", force=True, report=False)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_output_that_cannot_be_written_is_a_clear_error(photos: Path, cache: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        rehead.tune(photos, cache=cache, out="/proc/rehead/run", report=False)


def test_unknown_backbones_and_heads_name_the_nearest(photos: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownBackbone, match="resnet18"):
        rehead.tune(photos, cache=cache, backbone="resnet1888", out=tmp_path / "run", report=False)
    with pytest.raises(ReheadError, match="linear"):
        rehead.tune(photos, cache=cache, head="liner", out=tmp_path / "run", report=False)
    with pytest.raises(ReheadError, match="mlp:1000,256"):
        rehead.tune(photos, cache=cache, head="mlp:ten", out=tmp_path / "run", report=False)


class Dangerous:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


def test_weights_that_are_missing_corrupt_or_dangerous_are_refused(photos: Path, cache: Path, tmp_path: Path) -> None:
    def tune(weights: Path) -> None:
        rehead.tune(photos, cache=cache, backbone="resnet18", weights=str(weights), out=tmp_path / "run", report=False)

    with pytest.raises(WeightsUnavailable, match="no weights file"):
        tune(tmp_path / "gone.pth")
    (tmp_path / "corrupt.pth").write_bytes(b"\x80\x04 not a pickle at all")
    (tmp_path / "corrupt.safetensors").write_bytes(b"\x00" * 100)
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("corrupt.pth", "corrupt.safetensors", "empty.pth"):
        with pytest.raises((WeightsMismatch, UnsafeWeights)):
            tune(tmp_path / name)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Dangerous(tmp_path / "canary"), protocol=2))
    with pytest.raises((UnsafeWeights, WeightsMismatch)):
        tune(tmp_path / "evil.pth")
    assert not (tmp_path / "canary").exists()


@pytest.mark.long
def test_a_hub_that_cannot_be_reached_is_one_clear_error(rehead: Program, photos: Path) -> None:
    done = rehead("tune", photos, "--backbone", "resnet50", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "--weights FILE" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 6


def test_a_manifest_with_a_byte_order_mark_and_a_missing_file(photos: Path, cache: Path, tmp_path: Path) -> None:
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(photos.glob("*/*.png"))]
    manifest = tmp_path / "photos.csv"
    manifest.write_text("path,label\n" + "\n".join([*rows, "gone.png,red"]) + "\n", encoding="utf-8-sig")
    tuned = rehead.tune(manifest, cache=cache, out=tmp_path / "run", report=False)
    assert tuned.images == {"used": 40, "skipped": 1, "from_store": tuned.images["from_store"]}
    assert "gone.png" in skipped(tuned)


def test_predict_writes_a_row_for_each_file_and_3_for_bad_ones(rehead: Program, photos: Path, tmp_path: Path) -> None:
    tuned = rehead("tune", photos, "--json", "--out", tmp_path / "run")
    assert tuned.returncode == 0, tuned.stderr
    facts = json.loads(tuned.stdout)
    answered = {"run", "bundle", "recipe", "seconds", "images", "head", "int8_cosine", "report", "concerns", "verdict"}
    assert answered == set(facts)
    assert set(facts["verdict"]["top1"]) == {"value", "low", "high", "n"}
    assert set(facts["images"]) == {"used", "skipped", "from_store"}
    bundle = facts["bundle"]
    (tmp_path / "bad.png").write_text("no")
    done = rehead("predict", bundle, photos / "red", tmp_path / "bad.png", "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert len(rows) == 21
    assert [row.get("label") for row in rows] == ["red"] * 20 + [None]
    out = tmp_path / "named.csv"
    done = rehead("predict", bundle, f"{photos}/blue/*.png", "--format", "csv", "--top", "1", "--out", out)
    assert done.returncode == 0
    assert out.read_text().splitlines()[0] == "path,label1,probability1,doubts,error"
    assert len(out.read_text().splitlines()) == 21


@pytest.mark.slow
def test_the_cache_is_shown_and_cleared(rehead: Program, photos: Path, cache: Path, tmp_path: Path) -> None:
    own = {"REHEAD_CACHE": str(tmp_path / "own")}
    import shutil

    shutil.copytree(cache / "prefixes", tmp_path / "own" / "prefixes")
    assert rehead("tune", photos, "--head", "prototype", **own).returncode == 0
    assert "efficientnet_lite0" in rehead("cache", **own).stdout
    assert rehead("cache", "clear", "--older-than", "1h", **own).stdout.startswith("Freed 0 B")
    assert "Freed" in rehead("cache", "clear", "--backbone", "efficientnet*", **own).stdout
    assert json.loads(rehead("cache", "--json", **own).stdout)["stores"] == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A disk that not even root may write."""
    disk = tmp_path / "read_only"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a disk that is read-only cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_read_only_disk_is_a_clear_error_for_a_run_and_for_a_cache(
    rehead: Program, photos: Path, read_only: Path
) -> None:
    run = rehead("tune", photos, "--out", read_only / "run")
    assert (run.returncode, run.stdout) == (2, "")
    assert "cannot be written" in run.stderr
    assert "--out DIR" in run.stderr
    cache = rehead("tune", photos, "--cache", read_only / "cache")
    assert (cache.returncode, cache.stdout) == (2, "")
    assert f"The cache folder {read_only / 'cache'} cannot be written" in cache.stderr
    assert "--cache DIR" in cache.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_a_clear_error_and_keeps_the_features(photos: Path, cache: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(RunError, match="No space left"):
            rehead.tune(photos, cache=cache, out=disk / "run", report=False)
        assert list(disk.iterdir()) == []
        (disk / "most").write_bytes(bytes(2_900_000))
        with pytest.raises(RunError, match="No space left") as caught:
            rehead.tune(photos, cache=cache, out=disk / "run", train="last:1", epochs=1, report=False)
        assert re.match(r"\d\.\d MB were needed for checkpoint.safetensors; \d\.\d MB are free", caught.value.why)
        assert [path.name for path in disk.iterdir()] == ["most"]
    finally:
        subprocess.run(["umount", disk], check=True)
    again = rehead.tune(photos, cache=cache, out=tmp_path / "run", report=False)
    assert again.images["from_store"] == 40
