"""The main job end to end on small photos: what it promises of itself, of the store and of the bundle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos, noise
from extracting import N_MANY, extracting
from PIL import Image

import rehead
from rehead import bundle as bundles
from rehead import bundle_facts
from rehead.bundle import softmax
from rehead.bundle_head import read_head
from rehead.errors import BundleError, PhotoError, RunError
from rehead.features.cache import list_stores
from rehead.verdict.intervals import Interval


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("main") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def tuned(folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    return rehead.tune(folder, cache=cache, out=tmp_path_factory.mktemp("run") / "first", report=False)


def without(*libraries: str, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter where these libraries cannot be imported."""
    blocked = "".join(f"sys.modules[{library!r}] = None; " for library in libraries)
    return subprocess.run([sys.executable, "-c", f"import sys; {blocked}{code}"], capture_output=True, text=True)


def test_two_colours_are_told_apart_and_the_verdict_says_so(tuned: rehead.Tuned) -> None:
    assert isinstance(tuned.verdict.top1, Interval)
    assert tuned.verdict.top1.value == 1.0
    assert 0.5 < tuned.verdict.top1.low < 1.0
    assert tuned.classes == ("blue", "red")
    assert set(tuned.seconds) == {"scan", "prepare", "extract", "solve", "verify", "export", "total"}


def test_a_run_holds_recipe_catalog_verdict_and_bundle(tuned: rehead.Tuned) -> None:
    names = {path.name for path in tuned.run.iterdir()}
    written = {"catalog.csv", "copies.csv", "log.txt", "logits.safetensors", "photos.json", "recipe.toml", "run.json",
               "skipped.csv", "verdict.json"}  # fmt: skip
    assert names == {"bundle", *written}
    log = (tuned.run / "log.txt").read_text()
    assert "40 photos of 2 classes" in log
    assert "held-out accuracy 100.0%" in log
    verdict = json.loads((tuned.run / "verdict.json").read_text())
    assert set(verdict["top1"]) == {"value", "low", "high", "n"}
    assert rehead.Recipe.from_toml((tuned.run / "recipe.toml").read_text()) == tuned.recipe


def test_what_is_told_after_a_run_took_the_place_of_another_is_in_its_log(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    tuned = rehead.tune(folder, cache=cache, out=tmp_path / "run", force=True)
    assert tuned.report is not None
    assert " Auditing\n" in (tuned.run / "log.txt").read_text()


def test_same_photos_and_seed_give_the_same_head_bit_for_bit(tuned: rehead.Tuned, folder: Path, tmp_path: Path) -> None:
    again = rehead.tune(folder, cache=tmp_path / "cache", out=tmp_path / "run", report=False)
    assert (again.bundle / "head.safetensors").read_bytes() == (tuned.bundle / "head.safetensors").read_bytes()


@pytest.mark.long
def test_another_head_reads_the_store(folder: Path, cache: Path, tuned: rehead.Tuned, tmp_path: Path) -> None:
    for head in ("prototype", "mlp:16", "auto"):
        other = rehead.tune(
            folder, cache=cache, head=head, epochs=20, out=tmp_path / head.replace(":", ""), report=False
        )
        assert other.images["from_store"] == other.images["used"] == 40
        assert other.verdict.top1.value > 0.8


@pytest.mark.parametrize("head", ["linear", "prototype"])
def test_a_second_head_needs_no_torch(
    head: str, folder: Path, cache: Path, tuned: rehead.Tuned, tmp_path: Path
) -> None:
    arguments = f"cache={str(cache)!r}, out={str(tmp_path / 'r')!r}, head={head!r}, report=False"
    code = f"import rehead; rehead.tune({str(folder)!r}, {arguments})"
    done = without("torch", "timm", "torchvision", code=code)
    assert done.returncode == 0, done.stderr


def test_predicting_needs_no_torch_and_no_tuning_library(tuned: rehead.Tuned, folder: Path) -> None:
    photo = str(folder / "red" / "0.png")
    code = f"import rehead; assert rehead.load({str(tuned.bundle)!r}).predict({photo!r}).label == 'red'"
    done = without("torch", "timm", "sklearn", "scipy", "lmdb", "onnx", "safetensors", "blake3", "tomli_w", code=code)
    assert done.returncode == 0, done.stderr


def test_the_check_can_fail() -> None:
    assert without("csv", code="import json.tool").returncode == 0
    assert without("json", code="import json.tool").returncode != 0


@pytest.mark.parametrize(
    "module",
    ["rehead", "rehead.run", "rehead.predict", "rehead.bundle", "rehead.tuning.solve", "rehead.tuning.recipe",
     "rehead.features.store", "rehead.features.extract", "rehead.nets.card", "rehead.data.scan", "rehead.verify_bundle"],
)  # fmt: skip
def test_light_rooms_start_without_torch(module: str) -> None:
    assert without("torch", "timm", code=f"import {module}").returncode == 0


def test_a_model_takes_paths_bytes_images_arrays_and_lists(tuned: rehead.Tuned, folder: Path) -> None:
    model = rehead.load(tuned.bundle)
    path = folder / "blue" / "3.png"
    image = Image.open(path)
    image.load()
    kinds = [path, str(path), path.read_bytes(), image, np.asarray(image), np.asarray(image) / 255.0]
    found = model.predict(kinds)
    assert [p.label for p in found] == ["blue"] * 6
    assert len({p.probability for p in found[:5]}) == 1
    assert model.predict(path).label == "blue"
    assert model.features(path).shape == (1280,)
    assert model.features([path, path]).shape == (2, 1280)


def test_a_bad_picture_in_a_stream_does_not_stop_the_rest(tuned: rehead.Tuned, folder: Path) -> None:
    good = folder / "red" / "1.png"
    results = list(rehead.load(tuned.bundle).stream([good, b"no image", folder / "gone.png", good]))
    assert [isinstance(r, PhotoError) for r in results] == [False, True, True, False]


def test_the_bundle_agrees_with_the_network_in_pytorch(tuned: rehead.Tuned, folder: Path) -> None:
    import torch

    from rehead.nets.backbone import load_backbone
    from rehead.pixels import prepare

    backbone = load_backbone("efficientnet_lite0")
    preprocess = backbone.card.preprocess
    pixels = np.stack([prepare((folder / "red" / f"{i}.png").read_bytes(), preprocess) for i in range(8)])
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        features = backbone.prefix(images).numpy()
    model = rehead.load(tuned.bundle)
    wanted = softmax(read_head(tuned.bundle).logits(features) / model.bundle.temperature)
    assert np.abs(model.probabilities(pixels) - wanted).max() < 1e-4


@pytest.mark.long
def test_features_do_not_depend_on_the_photos_beside_them(tuned: rehead.Tuned, cache: Path, folder: Path) -> None:
    from rehead.exporting.prefixes import ready_prefix
    from rehead.features.engines import ENGINES, IN_BFLOAT16, has_bfloat16
    from rehead.pixels import prepare
    from rehead.progress import Silent

    prefix = ready_prefix("efficientnet_lite0", weights=None, arguments={}, cut="pool", cache=cache, progress=Silent())
    files = sorted(folder.glob("*/*.png"))[:8]
    pixels = np.stack([prepare(path.read_bytes(), prefix.card.preprocess) for path in files])
    reference = ENGINES["torch"](prefix, "cpu")(pixels)
    for name, make in ENGINES.items():
        if name == IN_BFLOAT16 and not has_bfloat16():
            continue
        engine = make(prefix, "cpu")
        together = engine(pixels)
        cosines = (
            (together * reference).sum(axis=1) / np.linalg.norm(together, axis=1) / np.linalg.norm(reference, axis=1)
        )
        off = np.abs(together - reference).max() / np.abs(reference).max()
        assert off < 1e-3 if engine.precision == "fp32" else cosines.mean() > 0.98, name
        if name != "torch":  # the reference is for comparison, engines are for the store
            assert np.array_equal(engine(pixels[5:6])[0], together[5]), name
            assert np.array_equal(engine(pixels[::-1].copy()), together[::-1]), name


@pytest.mark.parametrize("name", ["model.onnx", "head.safetensors", "README.md", "rehead.json"])
def test_a_bundle_that_lacks_a_file_is_refused(name: str, tuned: rehead.Tuned, tmp_path: Path) -> None:
    copy = shutil.copytree(tuned.bundle, tmp_path / "bundle")
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        rehead.load(copy)


def test_a_changed_bundle_is_refused(tuned: rehead.Tuned, tmp_path: Path) -> None:
    copy = shutil.copytree(tuned.bundle, tmp_path / "bundle")
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match="was changed after the bundle was written"):
        rehead.load(copy)


@pytest.mark.parametrize(
    ("change", "words"), [({"format": bundle_facts.FORMAT + 1}, "upgrade"), ({"surprise": 1}, "surprise")]
)
def test_a_newer_or_unknown_bundle_is_refused(change: dict, words: str, tuned: rehead.Tuned, tmp_path: Path) -> None:
    copy = shutil.copytree(tuned.bundle, tmp_path / "bundle")
    facts = json.loads((copy / "rehead.json").read_text())
    (copy / "rehead.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(BundleError, match=words):
        rehead.load(copy)


def test_a_bundle_is_verified_on_other_photos(tuned: rehead.Tuned, cache: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "other", {"red": 3, "green": 2})
    verified = rehead.verify(tuned.bundle, tmp_path / "other", cache=cache)
    assert verified.verdict.top1.n == 3
    assert any("blue" in note for note in verified.verdict.notes)
    assert any("green" in note for note in verified.verdict.notes)


def test_a_limit_finishes_the_job_with_part_of_the_photos(folder: Path, cache: Path, tmp_path: Path) -> None:
    part = rehead.tune(folder, cache=cache, limit=20, out=tmp_path / "run", report=False)
    assert part.images["used"] == 20
    assert part.verdict.partial


def test_too_small_a_limit_is_a_clear_error(folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="too few") as error:
        rehead.tune(folder, cache=cache, limit=1, out=tmp_path / "run", report=False)
    assert "--limit" in error.value.fix
    assert not (tmp_path / "run").exists()


def test_lists_tables_and_sequences_are_sources(cache: Path, tmp_path: Path, folder: Path) -> None:
    paths = sorted(folder.glob("*/*.png"))
    labels = [path.parent.name for path in paths]
    lists = rehead.tune(paths, labels, cache=cache, out=tmp_path / "lists", report=False)
    assert lists.images == {"used": 40, "skipped": 0, "from_store": 40}
    pairs = [(noise(i + 5000, (200, 60, 60) if i % 2 else (60, 60, 200)), i % 2) for i in range(40)]
    assert rehead.tune(pairs, cache=cache, out=tmp_path / "pairs", report=False).classes == ("0", "1")


def test_the_classifier_is_a_scikit_learn_estimator(cache: Path, folder: Path) -> None:
    from sklearn.model_selection import cross_val_score

    paths = sorted(map(str, folder.glob("*/*.png")))
    labels = [Path(path).parent.name for path in paths]
    classifier = rehead.Classifier(cache=str(cache))
    assert cross_val_score(classifier, paths, labels, cv=3).mean() > 0.9
    fitted = classifier.fit(paths, labels)
    assert fitted.predict_proba(paths[:4]).shape == (4, 2)
    assert fitted.score(paths, labels) == 1.0


def test_sigkill_during_extraction_loses_nothing(many: Path, cache: Path, tmp_path: Path) -> None:
    with extracting(many, tmp_path, cache) as killed:
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, "done before it could be killed"
    kept = sum(store.photos for store in list_stores(tmp_path / "own"))
    assert 0 < kept < N_MANY
    shutil.rmtree(tmp_path / "run")
    n = min(kept + 100, N_MANY)  # the first so many in the same order
    again = rehead.tune(many, limit=n, cache=tmp_path / "own", out=tmp_path / "run", report=False)
    assert again.images == {"used": n, "skipped": 0, "from_store": kept}


WRITING = """
import os, signal, sys, numpy as np
from pathlib import Path
from rehead import bundle as bundles, bundle_facts, durable
moment = [int(sys.argv[2])]
real = os.fsync
def killed(descriptor):
    moment[0] -= 1
    if moment[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = killed
head = bundles.Head("linear", ((np.ones((2, 3), np.float32), np.zeros(2, np.float32)),))
facts = dict.fromkeys(bundle_facts.KEYS - {"format", "head", "files", "variants", "neighbours"}, {})
preprocess = dict(height=8, width=8, mean=(.5, .5, .5), std=(.5, .5, .5))
facts |= {"classes": ["new", "model"], "preprocess": bundles.Preprocess(**preprocess).to_dict()}
facts |= {"task": "classification", "thresholds": [], "verdict": {"n_train": 1}}
facts |= dict.fromkeys(["calibration", "unsure", "unfamiliar"])
bundles.write(Path(sys.argv[1]), model=b"new" * 100_000, head=head, card="new", facts=facts)
"""


def test_sigkill_while_a_bundle_is_written_leaves_the_old_one_or_the_new_one(
    tuned: rehead.Tuned, tmp_path: Path
) -> None:
    """Killed at each flush to the disk in turn, until it comes to an end."""
    ended, moment, seen = False, 0, []
    while not ended:
        target = shutil.copytree(tuned.bundle, tmp_path / str(moment) / "bundle")
        done = subprocess.run([sys.executable, "-c", WRITING, str(target), str(moment)], capture_output=True)
        ended = done.returncode == 0
        assert ended or done.returncode == -signal.SIGKILL, done.stderr
        seen.append(bundles.read(target).classes[0])
        moment += 1
    n_old = seen.count("blue")
    assert seen == ["blue"] * n_old + ["new"] * (len(seen) - n_old)
    assert n_old >= 4  # a flush for each file, at least


def test_where_no_fit_can_be_told_from_another_the_networks_own_stays(cache: Path, tmp_path: Path) -> None:
    """Of one photo a class to learn from no fold can hold out any."""
    make_photos(tmp_path / "photos" / "train", {"red": 1, "blue": 1})
    make_photos(tmp_path / "photos" / "valid", {"red": 2, "blue": 2})
    photos, own = tmp_path / "photos", "squash"
    first = rehead.tune(photos, cache=cache, out=tmp_path / "first", fit=own, report=False)
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", backbone=first.bundle, fit="auto", report=False)
    said = f"--fit auto cannot tell them apart, as no class has photos in two folds: {own}, the network's own"
    assert said in (tuned.run / "log.txt").read_text()
    assert bundles.read(tuned.bundle).preprocess.fit == own
