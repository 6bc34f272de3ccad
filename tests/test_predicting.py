"""`rehead predict` and a loaded bundle: every photo gets its row, and every mistake words that help."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import noise
from PIL import Image
from safetensors.numpy import save

import rehead as package
from rehead.bundle import write
from rehead.bundle_facts import MAX_FACTS_BYTES
from rehead.bundle_head import read_head
from rehead.cli.named import found
from rehead.cli.predictions import TASK_WRITERS, predict_to
from rehead.durable import sha256_file
from rehead.errors import BackboneError, BundleError, PhotoError
from rehead.progress import Silent

Program = Callable[..., subprocess.CompletedProcess[str]]
GOLDEN = Path(__file__).parent / "golden"
BUNDLE = GOLDEN / "bundle-1"
RED = (200, 60, 60)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    noise(1, RED).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def predict(rehead: Program, *arguments: str | Path, code: int = 0) -> list[dict[str, str]]:
    """Rows as `--format csv` gives them."""
    done = rehead("predict", BUNDLE, *arguments, "--format", "csv")
    assert done.returncode == code, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "failed in a way it should not" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["label", "probability"])
def test_an_answer_that_is_a_number_says_where_it_is_when_asked_for_a_label(name: str) -> None:
    one = package.Prediction(value=3.5)
    with pytest.raises(AttributeError, match="This model gives a photo a number, no label: read its value"):
        getattr(one, name)


@pytest.mark.parametrize(
    ("value", "text"), [(1_198_234.0, "1198234"), (0.10000000149011612, "0.1"), (-2.5e-12, "-2.5e-12")]
)
def test_a_number_is_written_with_the_figures_it_has(value: float, text: str) -> None:
    for form, row in (("table", f"1.jpg  {text}"), ("csv", f"1.jpg,{text},,")):
        written = io.StringIO()
        TASK_WRITERS["regression"][form](written, 1)("1.jpg", package.Prediction(value=value))
        assert written.getvalue().splitlines()[-1] == row


def test_how_many_are_done_and_left_is_told_where_no_rows_run_over_the_screen(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(6):
        noise(i, RED).save(tmp_path / f"photos/{i}.png")
    (tmp_path / "photos/broken.png").write_bytes(b"no picture")
    told: list[tuple[str, int | None] | int] = []

    class Told(Silent):
        def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
            told.append((name, total))

        def advance(self, n: int = 1) -> None:
            told.append(n)

    predict_to(BUNDLE, [str(tmp_path / "photos")], top=1, form="csv", out=tmp_path / "rows.csv", progress=Told())
    assert told == [("Predicting", 7), *[1] * 7]


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_damaged_picture_that_pillow_opened_is_told_as_other_photos_are(form: str) -> None:
    with io.BytesIO() as file:
        noise(1, RED, 300).save(file, form)
        whole = file.getvalue()
    at = whole.rfind(b"IDAT")  # of a PNG Pillow reads all but the first such part when it decodes
    damaged = whole[: len(whole) // 2] if form == "JPEG" else whole[:at] + b"\0\0\0\0" + whole[at + 4 :]
    model = package.load(BUNDLE)
    with Image.open(io.BytesIO(damaged)) as image, pytest.raises(PhotoError, match="cannot be decoded: "):
        model.predict(image)
    with Image.open(io.BytesIO(damaged)) as image:
        said = list(model.stream([image, noise(1, RED)]))
    assert [isinstance(one, PhotoError) for one in said] == [True, False]


def test_a_photo_that_a_disk_gives_no_reason_for_is_told_in_what_words_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_path: object) -> bytes:
        raise OSError("the disk is asleep")

    monkeypatch.setattr("rehead.predict._bytes_of", fail)
    with pytest.raises(PhotoError, match=r"^a\.png cannot be read: the disk is asleep"):
        package.load(BUNDLE).predict("a.png")


def test_out_goes_through_what_is_no_regular_file(rehead: Program, red: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)  # so that a writer need not wait for one
    try:
        assert rehead("predict", BUNDLE, red, "--out", "pipe").returncode == 0
        assert (tmp_path / "pipe").is_fifo()
        assert b"red" in os.read(reader, 1000)
    finally:
        os.close(reader)


def test_out_spares_the_bundle_and_the_photos(rehead: Program, red: Path, tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / "own")
    before = red.read_bytes()
    for out, patterns in (("red.png", ["red.png"]), ("./red.png", ["."]), ("red.png", ["r*.png"])):
        said = refused(rehead("predict", "own", *patterns, "--out", out))
        assert "is one of the photos" in said
        assert "--out red.csv" in said
    assert "lies in the bundle" in refused(rehead("predict", "own", red, "--out", "own/model.onnx"))
    assert "--out has an empty name" in refused(rehead("predict", "own", red, "--out", ""))
    assert red.read_bytes() == before
    (tmp_path / "named.csv").write_text("old")
    done = rehead("predict", "own", "red.png", "--out", "named.csv")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "1 row written to named.csv."
    assert (tmp_path / "named.csv").read_text().startswith("path,label1,probability1")
    assert rehead("predict", "own", "red.png", "--out", "named.csv", "--format", "jsonl").returncode == 0
    done = rehead("predict", "own", "red.png", "--out", "named.parquet")
    assert (done.returncode, "Rows are not written as .parquet" in done.stderr) == (2, True)
    assert (tmp_path / "named.csv").read_text().startswith("{")
    assert "red.png" in (tmp_path / "named.csv").read_text()


def test_two_stars_go_into_no_link_that_leads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / "pf", tmp_path / "pf" / "deep" / "er", tmp_path / "pf" / ".hidden"):
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"")
    (tmp_path / "pf" / "self").symlink_to(".")
    names = ["pf/1.png", "pf/deep/er/1.png"]
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/1.png", "pf/**/1.png", "pf/**", "*/**/*.png", "**/**/1.png"):
        assert [path for path, _ in found([pattern])] == names, pattern
    assert [path for path, _ in found([f"{tmp_path}/**/1.png"])] == [f"{tmp_path}/{name}" for name in names]


def test_a_name_too_long_for_the_system_keeps_its_place() -> None:
    assert list(found(["n" * 300])) == [("n" * 300, None)]  # that it cannot be read is said of it


def test_out_replaces_what_a_link_leads_to_and_not_the_link(rehead: Program, red: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.csv").write_text("old")
    (tmp_path / "link").symlink_to("elsewhere/kept.csv")
    assert rehead("predict", BUNDLE, red, "--out", "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert "red.png" in (tmp_path / "elsewhere" / "kept.csv").read_text()


def test_what_names_no_picture_is_a_row_and_the_rest_goes_on(rehead: Program, red: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    rows = predict(rehead, "empty", "no*.png", "red.png", code=3)
    assert [(row["path"], row["error"]) for row in rows] == [
        ("empty", "holds no picture"),
        ("no*.png", "matches no file"),
        ("red.png", ""),
    ]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows list any folder")
def test_a_folder_that_cannot_be_listed_is_a_row(rehead: Program, red: Path, tmp_path: Path) -> None:
    for name in ("closed", "open/closed"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name).chmod(0)
    shutil.copy(red, tmp_path / "open" / "red.png")
    rows = predict(rehead, "closed", "open", code=3)
    assert {row["path"]: row["error"] for row in rows} == {
        "closed": "cannot be listed: Permission denied",
        "open/red.png": "",
        "open/closed": "cannot be listed: Permission denied",
    }


def test_where_nothing_was_found_it_is_an_error(rehead: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = rehead("predict", BUNDLE, "empty", "no*.png", "--out", "named.csv")
    assert "There is nothing to predict: empty holds no picture; no*.png matches no file." in refused(done)
    assert not (tmp_path / "named.csv").exists()


def test_content_says_what_in_a_folder_is_a_picture(rehead: Program, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = noise(1, RED)
    for name, form in (("no_ending", "PNG"), ("jpeg.txt", "JPEG"), ("a.ppm", "PPM"), ("b.png", "PNG")):
        picture.save(folder / name, form)
    (folder / "notes.txt").write_text("words")
    (folder / "broken.jpg").write_text("no picture")
    rows = predict(rehead, "photos", code=3)
    assert {Path(row["path"]).name: row["error"] for row in rows} == {
        "no_ending": "", "jpeg.txt": "", "a.ppm": "", "b.png": "", "broken.jpg": "is not an image that can be read",
    }  # fmt: skip


def test_an_empty_argument_is_an_error(rehead: Program, red: Path) -> None:
    assert "A photo's name is empty." in refused(rehead("predict", BUNDLE, "red.png", ""))
    assert "The folder of photos has an empty name." in refused(rehead("tune", ""))


def test_an_out_that_cannot_be_written_is_an_error_with_advice(rehead: Program, red: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "folder is a folder" in refused(rehead("predict", BUNDLE, red, "--out", "folder"))
    said = refused(rehead("predict", BUNDLE, red, "--out", "red.png/named.csv"))
    assert "The predictions cannot be written to red.png/named.csv." in said
    assert "Name a file that you may write to: --out FILE" in said


def test_a_full_device_is_an_error_and_stays_a_device(rehead: Program, red: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"  # never the machine's own: a mistake here would replace it where root runs the tests
    try:
        os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        full.open("w").close()
    except OSError:
        pytest.skip("root alone may make a device")
    assert f"The disk of {full} is full." in refused(rehead("predict", BUNDLE, red, "--out", full))
    assert full.is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
def test_standard_output_on_a_full_disk_is_an_error(red: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rehead", "predict", BUNDLE, red], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert "Standard output cannot be written." in refused(done)


def test_a_full_disk_under_out_leaves_the_old_file(red: Path, tmp_path: Path) -> None:
    (tmp_path / "named.csv").write_text("old")
    done = subprocess.run(
        [sys.executable, "-m", "rehead", "predict", BUNDLE, *[red] * 400, "--out", "named.csv"],
        cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert f"The disk of {tmp_path} is full" in refused(done) or os.strerror(errno.EFBIG) in done.stderr
    assert (tmp_path / "named.csv").read_text() == "old"
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names are Unicode there")
@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_a_name_that_is_no_unicode_is_the_same_escaped_everywhere(rehead: Program, red: Path, form: str) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy(red, red.parent / odd)
    shown = rehead("predict", BUNDLE, odd, "--format", form).stdout
    rehead("predict", BUNDLE, odd, "--format", form, "--out", "named")
    written = (red.parent / "named").read_text(encoding="utf-8")  # which raises for what is no UTF-8
    assert written == shown
    assert (json.loads(shown)["path"] if form == "jsonl" else shown).count("caf\\xe9.png") == 1


def test_what_is_no_regular_file_is_a_row_and_is_not_waited_for(rehead: Program, red: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    rows = predict(rehead, "pipe.png", "red.png", code=3)
    assert [row["error"] for row in rows] == ["is not a regular file", ""]
    with pytest.raises(PhotoError, match=r"pipe\.png is not a regular file"):
        package.load(BUNDLE).predict(str(tmp_path / "pipe.png"))


def changed(tmp_path: Path, **facts: object) -> Path:
    """A bundle whose `rehead.json` somebody edited."""
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    path = tmp_path / "bundle" / "rehead.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    return tmp_path / "bundle"


def test_a_bundle_that_names_more_classes_than_its_model_is_refused(rehead: Program, red: Path, tmp_path: Path) -> None:
    bundle = changed(tmp_path, classes=["blue", "green", "red"])
    said = refused(rehead("predict", bundle, red))
    assert "model.onnx does not fit rehead.json: it gives 2 probabilities, and there are 3 classes." in said


def test_a_bundle_with_another_size_than_its_model_is_refused(rehead: Program, red: Path, tmp_path: Path) -> None:
    preprocess = json.loads((BUNDLE / "rehead.json").read_text())["preprocess"]
    bundle = changed(tmp_path, preprocess={**preprocess, "width": 100})
    said = refused(rehead("predict", bundle, red))
    assert "model.onnx does not fit rehead.json: it takes photos of 16 x 16 pixels, not 16 x 100." in said


@pytest.mark.parametrize("size", ["16", None, [16]])
def test_a_size_that_is_no_number_is_refused(tmp_path: Path, size: object) -> None:
    preprocess = json.loads((BUNDLE / "rehead.json").read_text())["preprocess"]
    with pytest.raises(BundleError, match=r"The preprocessing in .*rehead\.json is not as a bundle's must be"):
        package.load(changed(tmp_path, preprocess={**preprocess, "width": size}))


@pytest.mark.parametrize(
    "odd", [{"mean": ["a", 1, 2]}, {"mean": [float("nan"), 0, 0]}, {"std": [1, 1, 10**400]}, {"crop_pct": True}]
)
def test_preprocessing_of_no_finite_numbers_is_refused(tmp_path: Path, odd: dict[str, object]) -> None:
    preprocess = json.loads((BUNDLE / "rehead.json").read_text())["preprocess"]
    with pytest.raises(BundleError, match="crop_pct, mean and std must be numbers, and finite"):
        package.load(changed(tmp_path, preprocess={**preprocess, **odd}))


@pytest.mark.parametrize("name", ["unsure", "unfamiliar"])
def test_a_threshold_that_is_no_number_is_refused(tmp_path: Path, name: str) -> None:
    shutil.copytree(GOLDEN / "bundle-3", tmp_path / "bundle")
    path = tmp_path / "bundle" / "rehead.json"
    facts = json.loads(path.read_text())
    facts[name]["threshold"] = float("nan")
    path.write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=rf"The threshold of {name} in .*rehead\.json is nan"):
        package.load(path.parent)


@pytest.mark.parametrize(
    ("verdict", "what"), [(None, "no table is verdict"), ({"n_train": "16"}, "the verdict has no n_train")]
)
def test_a_bundle_without_a_verdict_is_refused(rehead: Program, tmp_path: Path, verdict: object, what: str) -> None:
    said = refused(rehead("verify", changed(tmp_path, verdict=verdict), tmp_path))
    assert f"rehead.json is not as a bundle's must be: {what}." in said


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_facts_that_are_no_regular_file_are_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = changed(tmp_path) / "rehead.json"
    path.unlink()
    make = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind]
    make(path)
    with pytest.raises(BundleError, match=r"rehead\.json is not a regular file"):
        package.load(path.parent)


def test_facts_that_are_too_large_are_refused(tmp_path: Path) -> None:
    bundle = changed(tmp_path)
    os.truncate(bundle / "rehead.json", MAX_FACTS_BYTES + 1)
    with pytest.raises(BundleError, match="is too large to be a bundle's"):
        package.load(bundle)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows read any file")
@pytest.mark.parametrize("name", ["model.onnx", "rehead.json"])
def test_a_file_of_a_bundle_that_may_not_be_read_is_named(
    rehead: Program, red: Path, tmp_path: Path, name: str
) -> None:
    bundle = changed(tmp_path)
    (bundle / name).chmod(0)
    assert f"{bundle / name} cannot be read.\n  Permission denied." in refused(rehead("predict", bundle, red))


def test_all_files_of_a_bundle_may_be_read_by_the_same_people(tmp_path: Path) -> None:
    head = read_head(BUNDLE)
    facts = json.loads((BUNDLE / "rehead.json").read_text())
    about = {key: facts[key] for key in facts if key not in ("format", "head", "files")}
    model = (BUNDLE / "model.onnx").read_bytes()
    about |= {"task": "classification", "thresholds": [], "calibration": None, "unsure": None, "unfamiliar": None}
    written = write(tmp_path / "bundle", model=model, head=head, card="", facts=about)
    assert len({path.stat().st_mode for path in written.folder.iterdir()}) == 1


W, B = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"weight": W, "bias": B}, "not layers.0.weight, layers.0.bias and so on"),
        ({}, "It holds nothing"),
        ({"layers.0.weight": W.astype(np.float16), "layers.0.bias": B}, "float16 (2, 4), float32 (2,)"),
        ({"layers.0.weight": W[0], "layers.0.bias": B}, "no dense layers of float32 with 2 outputs"),
        ({"layers.0.weight": W, "layers.0.bias": B[:1]}, "no dense layers"),
        ({"layers.0.weight": W[:1], "layers.0.bias": B[:1]}, "no dense layers"),
        ({"layers.0.weight": W, "layers.0.bias": B, "layers.1.weight": W, "layers.1.bias": B}, "no dense layers"),
    ],
)
def test_a_head_that_is_none_of_its_bundle_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], why: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_head(with_head_file(tmp_path, save(tensors)))
    assert "head.safetensors is not the head of its bundle" in caught.value.what
    assert why in caught.value.why


def test_a_head_that_cannot_be_read_or_is_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"head\.safetensors is not the head of its bundle"):
        read_head(with_head_file(tmp_path / "a", b"no tensors"))
    with pytest.raises(BundleError, match="is of kind None with the activation None"):
        read_head(with_head_file(tmp_path / "b", save({}), head={}))
    with pytest.raises(BundleError, match="with the activation 'gelu'"):
        read_head(with_head_file(tmp_path / "c", save({}), head={"kind": "linear", "activation": "gelu"}))


def with_head_file(tmp_path: Path, data: bytes, **facts: object) -> Path:
    """A bundle whose head somebody exchanged, and named its digest."""
    bundle = changed(tmp_path, **facts)
    (bundle / "head.safetensors").write_bytes(data)
    about = json.loads((bundle / "rehead.json").read_text())
    about["files"]["head.safetensors"] = sha256_file(bundle / "head.safetensors")
    (bundle / "rehead.json").write_text(json.dumps(about))
    return bundle


@pytest.mark.parametrize("name", ["input_size", "mean", "crop_pct"])
def test_a_backbone_argument_that_is_no_number_is_an_error(name: str) -> None:
    with pytest.raises(BackboneError, match=f"The preprocessing cannot be {name}=abc"):
        package.backbone(pretrained=False, **{name: "abc"})


def test_an_interpolation_that_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(BackboneError) as caught:
        package.backbone(interpolation="bicubi")
    assert (caught.value.what, caught.value.why) == (
        "The preprocessing cannot be interpolation=bicubi.",
        "There is no interpolation 'bicubi'.",
    )
    assert "bicubic" in caught.value.fix


@pytest.mark.parametrize(("name", "width"), [("bundle-1", 2), ("bundle-2", 3), ("bundle-2-number", 1)])
def test_no_pictures_have_features_of_the_usual_width(name: str, width: int) -> None:
    model = package.load(GOLDEN / name)
    assert model.features([]).shape == (0, *model.features([noise(1, RED)]).shape[1:])
    assert model.predict([]) == []
    assert model.predict([], tta=True) == []
    assert model.logits(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, width)


def test_the_file_that_is_not_there_or_is_no_picture_is_named(red: Path, tmp_path: Path) -> None:
    model = package.load(BUNDLE)
    with pytest.raises(PhotoError, match="nothere"):
        model.predict([str(red), "nothere.jpg"])
    (tmp_path / "broken.jpg").write_text("no picture")
    with pytest.raises(PhotoError, match=r"broken\.jpg is not an image that can be read"):
        model.predict([str(red), tmp_path / "broken.jpg"])


def test_a_reader_that_has_enough_is_no_mistake(red: Path) -> None:
    command = [sys.executable, "-m", "rehead", "predict", str(BUNDLE), *[str(red)] * 400]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert (program.stderr.read(), program.wait(timeout=60)) == (b"", 0)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    model = package.load(BUNDLE)
    (tmp_path / "no.jpg").write_text("no picture")
    for path, words in ((tmp_path / "gone.jpg", "is not there"), (tmp_path, "is a folder"), (tmp_path / "no.jpg", "")):
        with pytest.raises(PhotoError, match=re.escape(f"{path} {words}")):
            model.predict(path)


def test_of_what_is_no_image_the_beginning_is_read_and_one_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = package.load(BUNDLE)
    for name, beginning in (("film.mp4", b"\0\0\0\x20ftypisom"), ("endless.png", b"\x89PNG\r\n\x1a\n")):
        (tmp_path / name).write_bytes(beginning)
        os.truncate(tmp_path / name, 100 << 20)
    monkeypatch.setattr("rehead.data.photo_bytes.MOST_BYTES", 50 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(PhotoError, match=r"film\.mp4 is not an image that can be read"):
            model.predict(tmp_path / "film.mp4")
        [told] = model.stream([tmp_path / "endless.png"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20
    assert isinstance(told, PhotoError)
    assert "more than any photo" in told.what


def test_a_bundle_with_a_class_twice_is_refused(rehead: Program, red: Path, tmp_path: Path) -> None:
    said = refused(rehead("predict", changed(tmp_path, classes=["red", "red"]), red))
    assert "hold a name twice: 'red'" in said


def test_a_bundle_with_a_class_that_is_no_text_is_refused(rehead: Program, red: Path, tmp_path: Path) -> None:
    said = refused(rehead("predict", changed(tmp_path, classes=["blue", "\ud800"]), red))
    assert "hold a name that is no text" in said
