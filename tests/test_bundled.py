"""A bundle as a backbone: carried away from its run, without its photos, and in a process that has no PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from test_folds import told_as_tuned
from test_main_job import without

import rehead
from rehead import bundle as bundles
from rehead.bundle_head import read_head
from rehead.bundled import check_bundled
from rehead.durable import sha256_file
from rehead.errors import BundleError, RecipeError, RunError
from rehead.exporting.prefixes import ready_prefix
from rehead.progress import Silent
from rehead.runs.finished import read_finished
from rehead.runs.outputs import read_outputs
from rehead.tuning.recipe import Recipe
from rehead.verdict.metrics import Verdict, judge


@pytest.fixture(scope="module")
def away(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without its run."""
    folder = tmp_path_factory.mktemp("away")
    photos = make_photos(folder / "photos", {"red": 12, "blue": 12})
    tuned = rehead.tune(photos, cache=cache, out=folder / "run", head="prototype", report=False)
    shutil.move(tuned.bundle, folder / "bundle")
    shutil.rmtree(folder / "run")
    return folder / "bundle"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("own") / "photos", {"green": 14, "grey": 14})


@pytest.fixture(scope="module")
def again(away: Path, photos: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    return rehead.tune(photos, from_run=away, cache=cache, out=tmp_path_factory.mktemp("again") / "run", report=False)


def test_its_head_is_the_one_that_the_backbone_itself_gives(
    again: rehead.Tuned, photos: Path, cache: Path, tmp_path: Path
) -> None:
    own = rehead.tune(photos, cache=cache, out=tmp_path / "own", report=False)
    assert again.classes == own.classes == ("green", "grey")
    for ours, theirs in zip(read_head(again.bundle).layers, read_head(own.bundle).layers, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.abs(a - b).max() < 1e-5
    assert rehead.load(again.bundle).predict(str(photos / "green" / "0.png")).label == "green"


def test_the_new_bundle_says_where_its_network_is_from_and_no_path(again: rehead.Tuned, away: Path) -> None:
    facts = bundles.read(again.bundle).facts
    assert facts["backbone"]["name"] == "efficientnet_lite0"
    assert facts["backbone"]["origin"].startswith("a bundle, and before that: installed package")
    assert facts["recipe"]["weights"] == "bundle"
    assert str(away.parent) not in (again.bundle / "rehead.json").read_text()
    assert again.recipe.weights == str(away)  # the run can be taken up from anywhere


@pytest.mark.usefixtures("again")
@pytest.mark.parametrize("way", ["backbone", "weights"])
def test_a_bundle_can_be_named_as_backbone_and_as_weights(
    way: str, away: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    asked = os.path.relpath(away)
    tuned = rehead.tune(photos, **{way: asked}, head="prototype", cache=cache, out=tmp_path / "run", report=False)
    assert tuned.recipe.weights == str(away)
    assert tuned.images["from_store"] == 28  # the same network: its features are kept


def test_no_pytorch_is_needed(away: Path, photos: Path, tmp_path: Path) -> None:
    arguments = f"from_run={str(away)!r}, cache={str(tmp_path / 'cache')!r}, out={str(tmp_path / 'r')!r}"
    code = f"import rehead; rehead.tune({str(photos)!r}, {arguments})"  # the report is left out, as jinja2 is not there
    done = without(
        "torch", "timm", "torchvision", "cleanlab", "jinja2", "markupsafe", "captum", "matplotlib", code=code
    )
    assert done.returncode == 0, done.stderr
    assert rehead.load(tmp_path / "r" / "bundle").classes == ("green", "grey")


def test_layers_that_were_tuned_are_still_named(away: Path, photos: Path, cache: Path, tmp_path: Path) -> None:
    tuned = shutil.copytree(away, tmp_path / "tuned")
    facts = json.loads((tuned / "rehead.json").read_text())
    facts["backbone"]["learned"] = ["blocks6"]
    (tuned / "rehead.json").write_text(json.dumps(facts))
    found = rehead.tune(
        photos, from_run=tuned, head="prototype", cache=tmp_path / "c", out=tmp_path / "r", report=False
    )
    assert bundles.read(found.bundle).facts["backbone"]["learned"] == ["blocks6"]


@pytest.mark.long
def test_a_verdict_says_that_layers_learned_from_its_photos_before(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def tuned_on(photos: Path, name: str, **settings: object) -> rehead.Tuned:
        return rehead.tune(photos, **{"cache": cache, "out": tmp_path / name, "report": False, **settings})

    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    first = tuned_on(photos, "first", head="prototype", seed=1)
    told_as_tuned(first.run)
    second = tuned_on(photos, "second", backbone=str(first.bundle))
    learned, apart, held_out = (
        {read_finished(run, cache).catalog.photos[i].digest for i in rows}
        for run, rows in (
            (first.run, read_outputs(first.run).train),
            (second.run, read_outputs(second.run).apart),
            (second.run, read_outputs(second.run).held_out),
        )
    )
    assert learned & held_out
    assert learned & apart
    assert second.verdict.notes[-2:] == (
        f"Layers of the backbone were tuned before (conv_head), on {len(learned & held_out)} of these {len(held_out)} "
        "held-out photos too: on new ones it will be right less often.",
        f"They were tuned on {len(learned & apart)} of the {len(apart)} photos that its probabilities are calibrated on: "
        "it will be surer of itself than it may be.",
    )
    other = make_photos(tmp_path / "other", {"green": 14, "grey": 14})
    assert not [note for note in tuned_on(other, "third", backbone=str(first.bundle)).verdict.notes if "tuned" in note]
    alone = shutil.copytree(first.bundle, tmp_path / "alone")
    assert tuned_on(other, "fourth", from_run=alone).verdict.notes[-1] == (
        "Layers of the backbone were tuned before (conv_head); whether on these photos is not known."
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": "last:1"}, "--train last:1 needs the network"),
        ({"recipe": "balanced"}, "needs the network efficientnet_lite0 itself"),
        ({"recipe": "auto"}, "--recipe auto needs the network"),
        ({"cut": "stem"}, "--cut stem needs the network"),
        ({"backbone_args": {"mean": 0.5}}, "--backbone-arg needs the network"),
        ({"engine": "torch"}, "--engine torch runs networks"),
        ({"device": "cuda"}, "--device cuda runs networks"),
        ({"device": "mps", "head": "mlp:8"}, "--device mps runs networks"),
        ({"weights": "/nowhere.pth"}, "has weights of its own, and --weights says /nowhere.pth"),
        ({"backbone": "resnet50"}, "it holds efficientnet_lite0, and --backbone says resnet50"),
    ],
)
def test_what_needs_the_network_itself_is_refused(
    settings: dict[str, object], words: str, away: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=words):
        rehead.tune(photos, from_run=away, cache=cache, out=tmp_path / "run", report=False, **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ({"train": "all"}, "Train a head (--train head)"),
        ({"cut": "stem"}, "Take --cut pool"),  # also where an earlier run brought it
        ({"backbone_args": {"mean": 0.5}}, "Leave --backbone-arg out"),
    ],
)
def test_the_option_that_a_bundle_cannot_do_is_the_one_to_change(setting: dict[str, Any], fix: str, away: Path) -> None:
    with pytest.raises(RecipeError) as error:
        check_bundled(Recipe(weights=str(away), **setting))
    assert error.value.fix == f"{fix}, or name the backbone instead of the bundle."


def test_presets_are_to_be_left_out_as_a_bundle_is_not_trained(away: Path) -> None:
    with pytest.raises(RecipeError, match="A graph can be run and cannot be trained") as error:
        check_bundled(Recipe(weights=str(away)), searches=True)
    assert error.value.fix == "Leave --recipe out, or name the backbone instead of the bundle."


def test_two_bundles_are_not_taken_for_one(away: Path, photos: Path, cache: Path, tmp_path: Path) -> None:
    other = shutil.copytree(away, tmp_path / "other")
    with pytest.raises(RecipeError, match=f"it holds efficientnet_lite0, and --backbone says {other}"):
        rehead.tune(photos, from_run=away, backbone=str(other), cache=cache, out=tmp_path / "run", report=False)


def test_a_damaged_bundle_is_no_backbone(away: Path, photos: Path, cache: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(away, tmp_path / "damaged")
    with (damaged / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="was changed after the bundle was written"):
        rehead.tune(photos, from_run=damaged, cache=cache, out=tmp_path / "run", report=False)


def test_a_run_that_lost_a_part_is_no_backbone_but_an_error(
    away: Path, photos: Path, cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(away, tmp_path / "run" / "bundle")
    (tmp_path / "run" / "recipe.toml").write_text("format = 1\n")
    with pytest.raises(RunError, match="are not known"):
        rehead.tune(photos, from_run=tmp_path / "run", cache=cache, out=tmp_path / "new", report=False)


def test_the_graph_of_the_prefix_alone_gives_the_same_features(away: Path, tmp_path: Path) -> None:
    from rehead.exporting.graph import prefix_in
    from rehead.runners import open_session

    (tmp_path / "prefix.onnx").write_bytes(prefix_in(away / "model.onnx"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    found = open_session(tmp_path / "prefix.onnx").run(None, {"pixels": pixels})
    assert len(found) == 1
    np.testing.assert_array_equal(found[0], open_session(away / "model.onnx").run(["features"], {"pixels": pixels})[0])


def test_what_a_bundle_says_of_its_preprocessing_now_counts_and_its_graph_is_kept(
    away: Path, cache: Path, tmp_path: Path
) -> None:
    bundle, written = shutil.copytree(away, tmp_path / "bundle"), set()
    for fit in ("pad", "squash"):
        facts = json.loads((bundle / "rehead.json").read_text())
        facts["preprocess"]["fit"] = fit
        facts["backbone"]["learned"] = [fit]
        (bundle / "rehead.json").write_text(json.dumps(facts))
        prefix = ready_prefix("any", weights=bundle, arguments={}, cut="pool", cache=cache, progress=Silent())
        assert (prefix.card.preprocess.fit, prefix.card.learned) == (fit, (fit,))
        written.add((prefix.onnx, prefix.onnx.stat().st_mtime_ns))
    assert len(written) == 1


def test_a_bundle_whose_model_is_no_graph_is_no_backbone_and_says_so(away: Path, cache: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(away, tmp_path / "bundle")
    (bundle / "model.onnx").write_bytes(b"no graph")
    facts = json.loads((bundle / "rehead.json").read_text())
    facts["files"]["model.onnx"] = sha256_file(bundle / "model.onnx")
    (bundle / "rehead.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"model\.onnx is no ONNX graph"):
        ready_prefix("any", weights=bundle, arguments={}, cut="pool", cache=cache, progress=Silent())


def test_a_library_that_is_not_there_is_told_with_the_extra_that_brings_it() -> None:
    done = without("blake3", code="import rehead.cli.commands as c, sys; sys.argv = ['rehead', 'tune', 'x']; c.main()")
    assert done.returncode == 2
    assert "needs the library 'blake3', which is not installed" in done.stderr
    assert 'pip install "rehead[head]"' in done.stderr


def test_every_library_of_an_extra_is_known_by_it() -> None:
    from rehead.errors import EXTRA_BY_LIBRARY

    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    called = {"sklearn": "scikit-learn"}
    for library, extra in EXTRA_BY_LIBRARY.items():
        if library in ("markupsafe", "starlette"):  # come with jinja2 and fastapi
            continue
        name = called.get(library, library).replace("_", "-")
        assert any(wanted.startswith(name) for wanted in extras[extra]), f"{library} in {extra}"


@pytest.mark.long
def test_a_bundle_of_thousands_of_classes_is_written_and_read(away: Path, tmp_path: Path) -> None:
    k, random = 5000, np.random.default_rng(0)
    classes, labels = [f"species {i}" for i in range(k)], random.integers(0, k, 9000)
    logits = random.normal(size=(len(labels), k)).astype(np.float32)
    paths = [f"{i}.jpg" for i in range(len(labels))]
    verdict = judge(logits, labels, classes=classes, paths=paths, side="drawn", n_train=1)
    assert verdict.confusion.sum() == len(labels)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict
    old = bundles.read(away)
    facts = {name: value for name, value in old.facts.items() if name in bundles.KEYS}
    facts |= {"classes": classes, "verdict": verdict.to_dict()}
    for name in ("format", "head", "files", "variants", "neighbours"):
        del facts[name]
    written = bundles.write(tmp_path / "many", model=old.model.read_bytes(), head=read_head(away), card="", facts=facts)
    assert len(written.classes) == k
    assert (tmp_path / "many" / "rehead.json").stat().st_size < 8_000_000
