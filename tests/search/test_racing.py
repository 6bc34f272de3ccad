"""Backbones compared on the same photos: from Python and from the command line, with some that cannot run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from PIL import Image
from safetensors.torch import save_file

import rehead
from rehead.cli.arguments import backbone_arguments
from rehead.cli.races import arguments_by_name, command
from rehead.errors import BackboneError, RecipeError, RunError, TooManyBad, UnknownBackbone
from rehead.search import heats
from rehead.search.heats import Entry, entrants_of

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("race") / "photos", {"red": 25, "blue": 25})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny network."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(dict(rehead.backbone("test_resnet", pretrained=False).network.state_dict()), path)
    return path


@pytest.fixture(scope="module")
def raced(folder: Path, weights: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> rehead.Race:
    return rehead.race(
        folder,
        backbones=["efficientnet_lite0", f"test_resnet={weights}", "resnet18=gone.pth"],
        cache=cache,
        out=tmp_path_factory.mktemp("out") / "race",
    )


def test_each_has_its_accuracy_rate_and_size(raced: rehead.Race) -> None:
    for entry in raced.entries[:2]:
        assert entry.by_folds is not None
        assert entry.by_folds.n == raced.n_train
        assert entry.held_out is not None
        assert entry.held_out.n == raced.n_held_out
        assert entry.images_per_s is not None
        assert entry.n_photos == raced.n_train + raced.n_held_out == 50
    large, small = raced.entries[:2]
    assert large.network_bytes is not None
    assert small.network_bytes is not None
    assert large.network_bytes > 10e6 > small.network_bytes
    assert large.feature_bytes == 1000 * (100 + 4096)  # 1,280 numbers of two bytes: a page of their own


def test_one_that_cannot_be_had_is_a_row_with_its_reason(raced: rehead.Race) -> None:
    entry = raced.entries[2]
    assert entry.reason == "There is no weights file gone.pth."
    assert entry.by_folds is None


def test_a_name_that_no_backbone_has_is_an_error_before_photos_are_read(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownBackbone, match="No backbone is called 'efficientnet_lite9'"):
        rehead.race(tmp_path / "no photos", backbones=["efficientnet_lite0", "efficientnet_lite9"], cache=cache)


def test_arguments_of_a_backbone_that_does_not_race_are_an_error_before_photos_are_read(
    cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        rehead.race(
            tmp_path / "no photos", backbones=["efficientnet_lite0"], arguments={"efficientnet_l0": {}}, cache=cache
        )
    assert caught.value.what == "--backbone-arg efficientnet_l0:... is of a backbone that does not race."
    assert caught.value.fix == "Did you mean 'efficientnet_lite0'?"


def test_the_folder_holds_what_was_found(raced: rehead.Race) -> None:
    assert raced.run is not None
    facts = json.loads((raced.run / "race.json").read_text())
    assert facts["winner"] == raced.best.label
    assert [entry["label"] for entry in facts["entries"]] == ["efficientnet_lite0", "test_resnet", "resnet18"]
    assert raced.recommendation in (raced.run / "log.txt").read_text()
    assert "<svg" in (raced.run / "race.svg").read_text()


@pytest.mark.slow
def test_a_race_is_replaced_only_when_forced(raced: rehead.Race, folder: Path, cache: Path) -> None:
    with pytest.raises(RunError, match="there already"):
        rehead.race(folder, backbones=["efficientnet_lite0"], cache=cache, out=raced.run)
    again = rehead.race(folder, backbones=["efficientnet_lite0"], cache=cache, out=raced.run, force=True)
    assert "the only one" in again.recommendation


def test_it_is_an_error_when_none_can_run(folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="None of the backbones can run") as error:
        rehead.race(
            folder,
            backbones=["resnet50=gone.pth", f"test_resnet={tmp_path}/no.pth"],
            cache=cache,
            out=tmp_path / "race",
        )
    assert "There is no weights file" in error.value.why
    assert not (tmp_path / "race").exists()


@pytest.mark.parametrize(
    ("labels", "kind"), [(["0.5", "1.5", "7"], "a number a photo"), (["a;b", "a", "b"], "several labels a photo")]
)
def test_what_is_no_class_is_refused_before_anything_is_extracted(
    folder: Path, cache: Path, tmp_path: Path, labels: list[str], kind: str
) -> None:
    photos = sorted(str(path) for path in folder.glob("*/*.png"))
    source = (photos, [labels[i % 3] for i in range(len(photos))])
    with pytest.raises(RecipeError, match=f"A race is for classes, and what is learned here is {kind}"):
        rehead.race(source, backbones=["efficientnet_lite0"], cache=cache, out=tmp_path / "race")
    assert not (tmp_path / "race").exists()


@pytest.mark.parametrize(
    ("n_each", "limit", "why"),
    [(25, 1, "There is none to learn from of 'red'"), (1, None, "No class has two to learn from")],
)
def test_photos_that_cannot_be_compared_are_refused_before_anything_is_extracted(
    folder: Path, weights: Path, tmp_path: Path, n_each: int, limit: int | None, why: str
) -> None:
    photos = sorted(str(path) for path in folder.glob("*/*.png"))
    blue, red = photos[:25], photos[25:]
    learned = [*blue[:n_each], *red[:n_each]], ["blue"] * n_each + ["red"] * n_each
    with pytest.raises(RunError, match="Photos are too few to compare backbones on 2 classes") as error:
        rehead.race(
            learned, valid=([blue[-1], red[-1]], ["blue", "red"]), backbones=[f"test_resnet={weights}"],
            limit=limit, cache=tmp_path / "cache", out=tmp_path / "race",
        )  # fmt: skip
    assert why in error.value.why
    assert not list((tmp_path / "cache").glob("**/data.mdb"))


@pytest.mark.parametrize(
    ("is_stopped", "fix"),
    [(True, "Let it run longer."), (False, "Raise --limit or --budget, or name fewer backbones.")],
)
def test_what_ended_a_race_too_early_is_named(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stopped: bool, fix: str
) -> None:
    monkeypatch.setattr(
        heats, "_extracted", lambda _, order, runner, share: replace(runner, there=frozenset(order[:1]))
    )
    with pytest.raises(RunError, match="Photos are too few to compare backbones on 2 classes: 1") as error:
        rehead.race(
            folder, backbones=["efficientnet_lite0"], stop=lambda: is_stopped, cache=cache, out=tmp_path / "race"
        )
    assert error.value.fix == fix


def test_a_race_counts_photos_that_cannot_be_read_as_a_job_does(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 3, "blue": 1})
    for i in range(4):
        (photos / f"loose{i}.png").write_bytes(b"no photo of a class")
    held_out = make_photos(tmp_path / "held out", {"red": 1, "blue": 1})
    broken = photos / "red" / "1.png"
    broken.write_bytes(b"\x89PNG no more")

    def race(max_bad: float) -> None:
        rehead.race(
            photos, valid=held_out, backbones=["efficientnet_lite0"], max_bad=max_bad, limit=1,
            cache=tmp_path / "cache", out=tmp_path / "race",
        )  # fmt: skip

    with pytest.raises(TooManyBad, match=r"1 of 6 photos cannot be read, which is more than 16%"):
        race(0.16)
    with pytest.raises(RunError, match="Photos are too few to compare"):
        race(0.17)


@pytest.mark.long
def test_near_copies_of_a_photo_are_raced_on_one_side(weights: Path, cache: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(30):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            picture = small.resize((96, 96), Image.Resampling.BICUBIC)
            picture.save(tmp_path / "photos" / label / f"{i}.png")
            if i % 2:
                picture.save(tmp_path / "photos" / label / f"{i}-again.jpg", quality=90)
    own: dict[str, Any] = {"backbones": [f"test_resnet={weights}"], "cache": cache}
    torn = rehead.race(tmp_path / "photos", tie_copies=False, out=tmp_path / "torn", **own)
    raced = rehead.race(tmp_path / "photos", out=tmp_path / "tied", **own)
    assert 0 < raced.n_held_out < torn.n_held_out


@pytest.mark.long
def test_numbers_may_be_said_to_be_classes(folder: Path, cache: Path, tmp_path: Path) -> None:
    photos = sorted(str(path) for path in folder.glob("*/*.png"))
    source = (photos, ["0.5" if "red" in path else "7.5" for path in photos])
    raced = rehead.race(
        source, backbones=["efficientnet_lite0"], cache=cache, out=tmp_path / "race", task="classification"
    )
    assert raced.best.by_folds is not None


def test_settings_of_one_backbone_are_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match="no setting 'backbone'"):
        rehead.race(folder, backbone="resnet18")


def test_a_name_that_comes_twice_is_told_apart_by_its_file() -> None:
    labels = [e.label for e in entrants_of(["a", "b=x/1.pth", " b=x/2.pth", "a"])]
    assert labels == ["a", "b=1.pth", "b=2.pth"]
    labels = [e.label for e in entrants_of(["b", "b=x/w.pth", "b=y/w.pth", "b=z.pth", "a=x/w.pth"])]
    assert labels == ["b", "b=x/w.pth", "b=y/w.pth", "b=z.pth", "a"]


@pytest.mark.slow
def test_the_command_prints_a_table_and_what_to_type(
    rehead: Program, folder: Path, weights: Path, tmp_path: Path
) -> None:
    done = rehead("race", folder, "--backbones", f"test_resnet={weights}", "--backbone-arg", "test_resnet:mean=0.5")
    assert done.returncode == 0, done.stderr
    assert re.search(r"test_resnet \* +\d", done.stdout)
    assert f"--backbone test_resnet --weights {weights} --backbone-arg mean=0.5" in done.stdout
    assert (tmp_path / "runs" / "photos-race-1" / "race.svg").is_file()


@pytest.mark.slow
def test_json_is_all_that_goes_to_standard_output(rehead: Program, folder: Path, weights: Path) -> None:
    done = rehead("race", folder, "--backbones", f"test_resnet={weights}", "--json")
    facts = json.loads(done.stdout)
    assert facts["winner"] == "test_resnet"
    assert facts["entries"][0]["held_out"]["n"] == facts["n_held_out"]


def test_what_is_typed_wrong_for_a_backbone_ends_the_race(folder: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="cannot be input_size=abc"):
        rehead.race(
            folder,
            backbones=["efficientnet_lite0", "efficientnet_lite1"],
            arguments={"efficientnet_lite0": {"input_size": "abc"}},
            out=tmp_path / "race",
            cache=cache,
        )


def test_arguments_say_which_backbone_they_are_for() -> None:
    wanted = {"a": {"mean": 0.5, "pad_type": "same"}, "b": {"mean": 0.1}}
    assert arguments_by_name(["a:mean=0.5", "b:mean=0.1", "a:pad_type=same"]) == wanted
    with pytest.raises(RecipeError, match="names no backbone"):
        arguments_by_name(["mean=0.5"])
    with pytest.raises(RecipeError) as caught:
        arguments_by_name(["a:mean"])
    assert caught.value.what == "--backbone-arg 'a:mean' has no NAME=VALUE."
    assert caught.value.fix == "For example: --backbone-arg a:pad_type=same"


def test_what_to_type_repeats_what_was_typed() -> None:
    texts = ["mean=0.5,0.5,0.4", "pad_type=same", "antialias=true"]
    options = {"layout": "split", "valid": None, "test": "later photos/", "task": "auto"}
    entry = Entry(label="b=w.pth", backbone="b", weights="my w.pth")
    line = shlex.split(command(entry, "photos/", backbone_arguments(texts), options))
    assert line[:7] == ["rehead", "tune", "photos/", "--layout", "split", "--test", "later photos/"]
    assert line[7:11] == ["--backbone", "b", "--weights", "my w.pth"]
    assert line[11::2] == ["--backbone-arg"] * 3
    assert backbone_arguments(line[12::2]) == backbone_arguments(texts)
