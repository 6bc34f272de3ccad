"""Several labels a photo, and a number a photo, through the same commands as classes: from a table to a bundle and back."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos, noise
from PIL import Image, ImageDraw

import rehead
from rehead import bundle as bundles
from rehead.errors import BundleError, RecipeError
from rehead.verdict.judging import read_verdict
from rehead.verdict.multilabel import MultilabelVerdict
from rehead.verdict.regression import RegressionVerdict

Program = Callable[..., subprocess.CompletedProcess[str]]


def write(folder: Path, labels: list[str], draw: Callable[[ImageDraw.ImageDraw, int], None]) -> Path:
    """Grey photos with something drawn on each, and the manifest of their labels."""
    folder.mkdir()
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((f"{i}.png", label) for i, label in enumerate(labels))])
    for i in range(len(labels)):
        image = noise(i, (128, 128, 128))
        draw(ImageDraw.Draw(image), i)
        image.save(folder / f"{i}.png")
    return folder / "photos.csv"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 photos: "red" on every other one, "disc" on every other pair, so that every fourth has no label."""
    labels = [";".join(["red"] * (i % 2) + ["disc"] * (i // 2 % 2)) for i in range(80)]

    def draw(pen: ImageDraw.ImageDraw, i: int) -> None:
        if i % 2:
            pen.rectangle([4, 4, 60, 20], fill=(230, 30, 30))
        if i // 2 % 2:
            pen.ellipse([16, 24, 54, 62], fill=(250, 250, 250))

    return write(tmp_path_factory.mktemp("shapes") / "photos", labels, draw)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 photos of a red disc, and how wide it is in tenths."""
    wide = np.random.default_rng(0).uniform(3, 30, 80).round(1)

    def draw(pen: ImageDraw.ImageDraw, i: int) -> None:
        pen.ellipse([32 - wide[i], 32 - wide[i], 32 + wide[i], 32 + wide[i]], fill=(230, 30, 30))

    return write(tmp_path_factory.mktemp("sizes") / "photos", [str(value / 10) for value in wide], draw)


@pytest.fixture(scope="module")
def labelled(shapes: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    return rehead.tune(shapes, cache=cache, out=tmp_path_factory.mktemp("run") / "labels", report=False)


@pytest.fixture(scope="module")
def numbered(sizes: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    return rehead.tune(sizes, cache=cache, out=tmp_path_factory.mktemp("run") / "numbers", report=False)


def test_labels_are_learned_and_the_verdict_says_so(labelled: rehead.Tuned) -> None:
    verdict = labelled.verdict
    assert isinstance(verdict, MultilabelVerdict)
    assert labelled.classes == ("disc", "red")
    assert verdict.mean_ap is not None
    assert verdict.mean_ap.value > 0.95
    assert verdict.exact.value > 0.8 > verdict.majority.value
    log = (labelled.run / "log.txt").read_text()
    assert "80 photos with 2 labels, several a photo (manifest, multilabel)" in log
    assert "held-out mAP" in log
    assert json.loads((labelled.run / "verdict.json").read_text())["task"] == "multilabel"


def test_numbers_are_learned_and_the_verdict_says_so(numbered: rehead.Tuned) -> None:
    verdict = numbered.verdict
    assert isinstance(verdict, RegressionVerdict)
    assert verdict.r2 is not None
    assert verdict.r2.value > 0.8
    assert verdict.mae.high < verdict.baseline.low
    log = (numbered.run / "log.txt").read_text()
    assert "80 photos with a number from 0.3" in log
    assert "held-out mean error" in log


def test_a_prediction_names_the_labels_over_their_thresholds(labelled: rehead.Tuned, shapes: Path) -> None:
    model = rehead.load(labelled.bundle)
    assert model.task == "multilabel"
    photos = [str(shapes.parent / f"{i}.png") for i in range(40)]
    found = model.predict(photos)
    truth = [frozenset(["red"] * (i % 2) + ["disc"] * (i // 2 % 2)) for i in range(40)]
    assert np.mean([frozenset(p.labels) == wanted for p, wanted in zip(found, truth, strict=True)]) > 0.9
    for prediction in found:
        assert {label for label, _ in prediction.top} == {"disc", "red"}
        limits = dict(zip(model.classes, model.bundle.thresholds, strict=True))
        assert set(prediction.labels) == {x for x, p in prediction.top if np.float32(p) >= np.float32(limits[x])}


def test_a_prediction_is_a_number(numbered: rehead.Tuned, sizes: Path) -> None:
    model = rehead.load(numbered.bundle)
    found = [model.predict(str(sizes.parent / f"{i}.png")).value for i in range(10)]
    streamed = list(model.stream([str(sizes.parent / f"{i}.png") for i in range(10)]))
    assert found == [p.value for p in streamed if isinstance(p, rehead.Prediction)]
    assert model.predict([]) == []
    assert (model.predict(str(sizes.parent / "0.png")).labels, model.classes) == ((), ())


@pytest.mark.parametrize("which", ["labels", "numbers"])
def test_a_second_head_and_a_prediction_need_no_torch(
    which: str, labelled: rehead.Tuned, numbered: rehead.Tuned, shapes: Path, sizes: Path, cache: Path, tmp_path: Path
) -> None:
    source = shapes if which == "labels" else sizes
    code = "import sys; sys.modules['torch'] = sys.modules['timm'] = sys.modules['torchvision'] = None; import rehead; "
    code += f"t = rehead.tune({str(source)!r}, cache={str(cache)!r}, out={str(tmp_path / 'r')!r}, report=False); "
    code += f"print(rehead.load(t.bundle).predict({str(source.parent / '3.png')!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = labelled if which == "labels" else numbered
    assert (tmp_path / "r" / "bundle" / "head.safetensors").read_bytes() == (
        again.bundle / "head.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("which", ["labels", "numbers"])
def test_a_bundle_is_verified_on_the_photos_it_comes_from(
    which: str, labelled: rehead.Tuned, numbered: rehead.Tuned, shapes: Path, sizes: Path, cache: Path
) -> None:
    tuned, source = (labelled, shapes) if which == "labels" else (numbered, sizes)
    verified = rehead.verify(tuned.bundle, source, cache=cache)
    assert type(verified.verdict) is type(tuned.verdict)
    assert verified.verdict.n == 80


def test_photos_with_a_label_that_the_bundle_does_not_know_are_left_out(
    labelled: rehead.Tuned, cache: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", ["red", "red;star", "", "disc"], lambda pen, i: None)
    verified = rehead.verify(labelled.bundle, other, cache=cache)
    assert verified.verdict.n == 3
    assert any("star" in note for note in verified.verdict.notes)


def test_an_mlp_learns_labels_and_numbers(shapes: Path, sizes: Path, cache: Path, tmp_path: Path) -> None:
    labels = rehead.tune(
        shapes, cache=cache, head="mlp:32", epochs=15, class_weight="balanced", out=tmp_path / "l", report=False
    )
    numbers = rehead.tune(sizes, cache=cache, head="mlp:32", epochs=15, out=tmp_path / "n", report=False)
    assert isinstance(labels.verdict, MultilabelVerdict)
    assert labels.verdict.mean_ap is not None
    assert labels.verdict.mean_ap.value > 0.8
    assert isinstance(numbers.verdict, RegressionVerdict)
    assert numbers.verdict.mae.value < numbers.verdict.baseline.value


@pytest.mark.slow
def test_deeper_layers_learn_labels(labelled: rehead.Tuned, shapes: Path, cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(
        shapes,
        cache=cache,
        train="last:1",
        epochs=2,
        batch_size=8,
        views=1,
        mixup=0.2,
        out=tmp_path / "r",
        report=False,
    )
    assert bundles.read(tuned.bundle).facts["backbone"]["learned"] == ["conv_head"]
    assert isinstance(tuned.verdict, MultilabelVerdict)
    assert tuned.verdict.mean_ap is not None
    assert tuned.verdict.mean_ap.value > 0.8
    alone, head = tuned.verdict.alone, labelled.verdict.mean_ap
    assert alone.first == pytest.approx(head.value, abs=0.02)  # the same but for the engine and half precision
    assert alone.second == tuned.verdict.mean_ap.value
    assert read_verdict(json.loads((tuned.run / "verdict.json").read_text())) == tuned.verdict
    facts = json.loads((tuned.run / "metrics.jsonl").read_text().splitlines()[0])
    assert facts["watch_loss"] > 0
    assert "watch_right" not in facts


@pytest.mark.slow
def test_a_random_head_and_layers_learn_labels_from_the_photos(shapes: Path, cache: Path, tmp_path: Path) -> None:
    """Slow: a network run for every photo and epoch."""
    tuned = rehead.tune(
        shapes, cache=cache, train="last:1", cut="none", warm_head=False, class_weight="balanced", epochs=3,
        batch_size=8, out=tmp_path / "run",
    report=False)  # fmt: skip
    assert isinstance(tuned.verdict, MultilabelVerdict)
    assert tuned.verdict.mean_ap is not None
    assert tuned.verdict.mean_ap.value > 0.8


@pytest.mark.slow
def test_deeper_layers_learn_numbers(numbered: rehead.Tuned, sizes: Path, cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(
        sizes, cache=cache, train="last:1", epochs=2, batch_size=8, views=1, out=tmp_path / "run", report=False
    )
    assert isinstance(tuned.verdict, RegressionVerdict)
    assert tuned.verdict.r2 is not None
    assert tuned.verdict.r2.value > 0.5
    alone, head = tuned.verdict.alone, numbered.verdict.mae
    assert alone.first == pytest.approx(head.value, rel=0.02)  # the same but for the engine and half precision
    assert alone.second == pytest.approx(tuned.verdict.mae.value)
    assert read_verdict(json.loads((tuned.run / "verdict.json").read_text())) == tuned.verdict
    assert "squared error" in (tuned.run / "curves.svg").read_text()
    model = rehead.load(tuned.bundle)
    assert 0 < model.predict(str(sizes.parent / "0.png")).value < 4  # in the table's unit, not in deviations


@pytest.mark.slow
def test_the_command_line_shows_and_writes_labels(
    rehead: Program, labelled: object, shapes: Path, tmp_path: Path
) -> None:
    bundle = labelled.bundle
    done = rehead("predict", bundle, shapes.parent / "3.png", shapes.parent / "0.png", shapes)
    assert done.returncode == 3
    both, none, bad = done.stdout.splitlines()
    assert "red" in both.split("[")[0]
    assert "disc" in both.split("[")[0]
    assert "(none)" in none
    assert "error:" in bad
    rows = list(
        csv.DictReader(rehead("predict", bundle, shapes.parent / "1.png", "--format", "csv").stdout.splitlines())
    )
    assert rows[0]["labels"] == "red"
    row = json.loads(rehead("predict", bundle, shapes.parent / "1.png", "--format", "jsonl").stdout)
    assert (row["labels"], set(row["probabilities"])) == (["red"], {"disc", "red"})
    verified = rehead("verify", bundle, shapes)
    assert "mAP" in verified.stdout
    assert "exactly the right labels on" in verified.stdout


@pytest.mark.long
def test_the_command_line_shows_and_writes_numbers(rehead: Program, numbered: object, sizes: Path) -> None:
    bundle = numbered.bundle
    photo = sizes.parent / "0.png"
    table = rehead("predict", bundle, photo).stdout
    (row,) = csv.DictReader(rehead("predict", bundle, photo, "--format", "csv").stdout.splitlines())
    value = json.loads(rehead("predict", bundle, photo, "--format", "jsonl").stdout)["value"]
    assert float(table.split()[-1]) == pytest.approx(value, rel=1e-4)
    assert float(row["value"]) == pytest.approx(value, rel=1e-6)
    verified = rehead("verify", bundle, sizes, "--json")
    assert json.loads(verified.stdout)["verdict"]["mae"]["n"] == 80
    assert "Off by" in rehead("verify", bundle, sizes).stdout


def test_folders_named_by_numbers_are_numbers_when_that_is_said(cache: Path, tmp_path: Path, rehead: Program) -> None:
    make_photos(tmp_path / "photos", {"red": 16, "blue": 16})
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "1.5")
    (tmp_path / "photos" / "blue").rename(tmp_path / "photos" / "4")
    done = rehead(
        "tune", tmp_path / "photos", "--task", "regression", "--precision", "0.99", "--out", tmp_path / "run", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert "with a number from 1.5 to 4 (folders, regression)" in done.stderr
    assert "--precision has no effect: it is for classes, not for several labels or numbers.\n" in done.stderr
    assert json.loads(done.stdout)["verdict"]["r2"]["value"] > 0.8
    shown = rehead("runs", "show", tmp_path / "run")
    assert "Off by" in shown.stdout
    assert "off by" in rehead("runs", "--folder", tmp_path).stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head": "prototype"}, "--head prototype is for classes"),
        ({"class_weight": "balanced"}, "--class-weight is for classes"),
        ({"train": "last:1", "sampling": "balanced"}, "--sampling balanced is for classes"),
    ],
)
def test_what_is_for_classes_is_refused_before_anything_is_computed(
    settings: dict[str, str], words: str, sizes: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=words):
        rehead.tune(sizes, cache=cache, out=tmp_path / "run", **settings, report=False)
    assert not (tmp_path / "run").exists()


def test_a_task_that_is_none_is_refused(sizes: Path, cache: Path) -> None:
    with pytest.raises(RecipeError, match="--task cannot be 'regresion'"):
        rehead.tune(sizes, cache=cache, task="regresion", report=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "poetry"}, "The task in"),
        ({"thresholds": [0.5]}, "are not 2 numbers"),
        ({"classes": []}, "at least one"),
    ],
)
def test_a_bundle_whose_parts_do_not_fit_is_refused(
    change: dict[str, object], words: str, labelled: rehead.Tuned, tmp_path: Path
) -> None:
    import shutil

    copy = shutil.copytree(labelled.bundle, tmp_path / "bundle")
    facts = json.loads((copy / "rehead.json").read_text())
    (copy / "rehead.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(BundleError, match=words):
        rehead.load(copy)


def test_cards_say_what_is_learned(labelled: rehead.Tuned, numbered: rehead.Tuned) -> None:
    card = (labelled.bundle / "README.md").read_text()
    assert "Gives a photo any number of 2 labels" in card
    assert 'predict("photo.jpg").labels' in card
    card = (numbered.bundle / "README.md").read_text()
    assert "Gives a photo a number" in card
    assert "mean absolute error" in card


def _is_wide(path: Path) -> bool:
    with Image.open(path) as image:
        return image.width > image.height


@pytest.mark.realdata
def test_real_photos_with_two_labels_each(data: Path, cache: Path, tmp_path: Path) -> None:
    photos = [path for kind in ("cat", "dog") for path in sorted((data / "dogscats" / kind).glob("*.jpg"))[:60]]
    labels = [[path.parent.name, *(["wide"] if _is_wide(path) else [])] for path in photos]
    tuned = rehead.tune(([str(path) for path in photos], labels), cache=cache, out=tmp_path / "run", report=False)
    assert isinstance(tuned.verdict, MultilabelVerdict)
    by_label = {
        facts.label: facts.average_precision and facts.average_precision.value for facts in tuned.verdict.labels
    }
    assert by_label["cat"] is not None
    assert by_label["cat"] > 0.9
    assert rehead.load(tuned.bundle).predict(str(photos[0])).top[0][1] > 0.5
