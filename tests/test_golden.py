"""Every released format has a small folder here that must open for ever, with the same answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rehead
from rehead import bundle as bundles
from rehead.bundle_head import read_head
from rehead.errors import BundleError

GOLDEN = Path(__file__).parent / "golden"


def red() -> np.ndarray:
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[..., 0] = 200
    return picture


def test_a_bundle_of_format_1_opens_and_gives_the_same_answers() -> None:
    model = rehead.load(GOLDEN / "bundle-1")
    assert model.classes == ("blue", "red")
    prediction = model.predict(red())
    assert prediction.label == "red"
    assert prediction.probability == pytest.approx(0.76208, abs=1e-5)
    np.testing.assert_allclose(model.features(red()), [0, 0, 0, 0.46075], atol=1e-5)


def test_its_head_on_its_features_gives_its_probabilities(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "bundle-1", tmp_path / "elsewhere")
    model, head = rehead.load(tmp_path / "elsewhere"), read_head(tmp_path / "elsewhere")
    probabilities = bundles.softmax(head.logits(model.features([red()])))
    assert probabilities[0, 1] == pytest.approx(model.predict(red()).probability, abs=1e-6)


def test_bundles_of_format_2_open_and_give_the_same_answers() -> None:
    several = rehead.load(GOLDEN / "bundle-2").predict(red())
    assert several.labels == ("red", "round")
    assert dict(several.top) == pytest.approx({"red": 0.75626, "blue": 0.29271, "round": 0.25379}, abs=1e-5)
    number = rehead.load(GOLDEN / "bundle-2-number").predict(red())
    assert number.value == pytest.approx(11.843, abs=1e-3)


def test_a_bundle_of_format_3_says_what_it_doubts() -> None:
    model = rehead.load(GOLDEN / "bundle-3")
    assert (model.bundle.temperature, model.bundle.unsure_below, model.bundle.unfamiliar_above) == (2.0, 0.8, 0.1)
    known, other = model.predict([red(), 255 - red()])
    assert (known.label, known.unsure, known.unfamiliar) == ("red", True, False)
    assert known.probability == pytest.approx(0.64154, abs=1e-5)
    assert known.distance == pytest.approx(0, abs=1e-3)
    assert (other.unfamiliar, other.doubts) == (True, "unsure, unfamiliar")
    assert (model.bundle.facts["variants"], model.bundle.facts["neighbours"]) == ({}, None)


def test_a_bundle_of_format_4_names_its_variants_and_shows_what_it_knows() -> None:
    bundle = rehead.load(GOLDEN / "bundle-4").bundle
    assert bundle.facts["format"] == 4
    assert bundle.variants["copy"].files == (GOLDEN / "bundle-4" / "model-copy.onnx",)
    assert bundle.variants["copy"].measured == {"agreement": 1.0}
    assert bundle.facts["neighbours"]["labels"] == ["red"] * 3
    assert rehead.load(GOLDEN / "bundle-4").predict(red()).probability == pytest.approx(0.64154, abs=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"variants": {"copy": {"files": ["../model-copy.onnx"], "measured": {}}}},
        {"variants": {"copy": {"files": ["rehead.json"], "measured": {}}}},
        {"variants": {"../copy": {"files": ["model-copy.onnx"], "measured": {}}}},
        {"variants": {"copy": {"files": ["other.onnx"], "measured": {}}}},
        {"variants": {"copy": ["model-copy.onnx"]}},
        {"variants": {"copy": {"files": ["model-copy.onnx"]}}},
        {"variants": {"copy": {"files": ["model-copy.onnx"], "measured": None}}},
        {"variants": {"copy": {"files": [], "measured": {}}}},
        {"variants": {"copy": {"files": {"model-copy.onnx": 1}, "measured": {}}}},
        {"neighbours": {"file": "neighbours.jpg", "tile": 0, "columns": 3, "labels": []}},
        {"neighbours": {"file": "model-copy.onnx", "tile": 8, "columns": 3, "labels": []}},
    ],
)
def test_what_is_no_variant_and_no_sheet_of_photos_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    folder = shutil.copytree(GOLDEN / "bundle-4", tmp_path / "bundle")
    facts = json.loads((folder / "rehead.json").read_text())
    (folder / "rehead.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(BundleError):
        rehead.load(folder)


@pytest.mark.parametrize("way", ["gone", "changed"])
def test_a_variant_that_is_not_whole_costs_the_original_nothing(tmp_path: Path, way: str) -> None:
    folder = shutil.copytree(GOLDEN / "bundle-4", tmp_path / "bundle")
    if way == "gone":
        (folder / "model-copy.onnx").unlink()
    else:
        (folder / "model-copy.onnx").write_bytes(b"other")
    assert rehead.load(folder).predict(red()).label == "red"
    with pytest.raises(BundleError, match=r"model-copy\.onnx") as error:
        rehead.load(folder, variant="copy")
    assert "rehead export" in error.value.fix
    (tmp_path / "new").write_bytes(b"new")
    bundle = bundles.add_variant(bundles.read(folder), "other", {"new.bin": tmp_path / "new"}, {})
    assert (list(bundle.variants), list(bundle.lost)) == (["other"], [])


def test_a_variant_that_was_added_meanwhile_stays_and_one_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "bundle-4", tmp_path / "bundle")
    (tmp_path / "new").write_bytes(b"new")
    before = bundles.read(folder)
    bundles.add_variant(before, "one", {"one.bin": tmp_path / "new"}, {})
    assert set(bundles.add_variant(before, "two", {"two.bin": tmp_path / "new"}, {}).variants) == {"copy", "one", "two"}
    shutil.rmtree(folder)
    shutil.copytree(GOLDEN / "bundle-1", folder)
    with pytest.raises(BundleError, match="was replaced meanwhile"):
        bundles.add_variant(before, "three", {"three.bin": tmp_path / "new"}, {})


def test_a_variant_takes_the_place_of_its_namesake(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "bundle-4", tmp_path / "bundle")
    (tmp_path / "new").write_bytes(b"new")
    bundle = bundles.add_variant(bundles.read(folder), "copy", {"new.bin": tmp_path / "new"}, {})
    assert [file.name for file in bundle.variants["copy"].files] == ["new.bin"]
    assert not (folder / "model-copy.onnx").exists()
    assert bundles.read(folder).facts == bundle.facts


def test_a_variant_leaves_what_else_is_in_the_folder_and_who_may_read_it(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "bundle-4", tmp_path / "bundle")
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "objects" / "one").write_bytes(b"object")
    (folder / "LICENSE").write_text("MIT")
    (folder / "gone").symlink_to("nothing")
    (tmp_path / "shared.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (tmp_path / "shared.onnx").chmod(0o600)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("../shared.onnx")
    (folder / "rehead.json").chmod(0o600)
    (folder / "LICENSE").chmod(0o444)
    folder.chmod(0o700)
    (tmp_path / "new").write_bytes(b"new")
    before = {path: (path.lstat().st_mode, path.is_symlink() and path.readlink()) for path in folder.rglob("*")}
    bundles.add_variant(bundles.read(folder), "one", {"one.bin": tmp_path / "new"}, {})
    after = {path: (path.lstat().st_mode, path.is_symlink() and path.readlink()) for path in folder.rglob("*")}
    assert after.pop(folder / "one.bin") == (0o100600, False)
    assert after == before
    assert (folder / ".git" / "objects" / "one").read_bytes() == b"object"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_older_bundles_do_not_say_what_they_doubt() -> None:
    for name in ("bundle-1", "bundle-2", "bundle-2-number"):
        prediction = rehead.load(GOLDEN / name).predict(red())
        assert (prediction.unsure, prediction.unfamiliar, prediction.doubts) == (None, None, "")


def test_opening_a_bundle_leaves_nothing_in_the_users_home(tmp_path: Path) -> None:
    code = f"import rehead; rehead.load({str(GOLDEN / 'bundle-1')!r})"
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **home}, check=True)
    assert list(tmp_path.rglob("*")) == []
