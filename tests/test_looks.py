"""What the smaller commands print: lists that can be read in a pipe, and words where there is nothing to list."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rehead.cli.terminal import show_backbones, show_verdict
from rehead.features.cache import clear, list_stores
from rehead.features.store import Store
from rehead.nets.listing import Listing
from rehead.verdict.metrics import judge

Program = Callable[..., subprocess.CompletedProcess[str]]


def kept(cache: Path, identity: str, **about: object) -> None:
    facts = {
        "backbone": "resnet18",
        "cut": "pool",
        "view": "plain",
        "preprocess": {"fit": "crop", "height": 224, "width": 224},
    }
    with Store.open(cache, identity, shape=(4,), about={**facts, **about}) as store:
        store.put([(b"x" * 32, np.ones(4))])


def test_a_list_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "a_backbone_of_a_very_long_name_as_some_of_timm_s_are.with_its_tag"
    show_backbones([Listing(name, 1, 1, 224, 512, "apache-2.0", False)], 5, "a_*")
    header, _, row, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["backbone", "parameters", "MACs", "pixels", "features", "licence", "from"]
    assert row.startswith(name)
    assert last.startswith("1 of 6 backbones matches")


def test_stores_are_told_apart_by_cut_fit_and_view(rehead: Program, tmp_path: Path) -> None:
    for i, about in enumerate(
        [{}, {"cut": "layer4"}, {"view": "flip-1"}, {"preprocess": {"fit": "pad", "height": 96, "width": 96}}]
    ):
        kept(tmp_path / "own", f"{i}-plain-fp32", **about)
    assert {(s.cut, s.fit, s.view) for s in list_stores(tmp_path / "own")} == {
        ("pool", "crop 224", "plain"),
        ("layer4", "crop 224", "plain"),
        ("pool", "crop 224", "flip-1"),
        ("pool", "pad 96", "plain"),
    }
    shown = rehead("cache", "--cache", tmp_path / "own").stdout
    assert all(word in shown for word in ("layer4", "pad 96", "flip-1"))


def test_an_empty_cache_and_one_that_is_not_there_are_told_in_words(rehead: Program, tmp_path: Path) -> None:
    assert rehead("cache", "--cache", tmp_path / "none").stdout == f"There is no cache in {tmp_path / 'none'} yet.\n"
    (tmp_path / "none").mkdir()
    assert rehead("cache", "--cache", tmp_path / "none").stdout.startswith("No features are kept. 0 B in")


def test_clearing_says_where_nothing_matched(rehead: Program, tmp_path: Path) -> None:
    kept(tmp_path / "own", "1-plain-fp32")
    shown = rehead("cache", "clear", "--backbone", "nope", "--cache", tmp_path / "own").stdout
    assert shown == "Freed 0 B: nothing that is kept matches. `rehead cache` lists what is.\n"
    assert clear(tmp_path / "own", backbone="resnet18").matched == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tune", "--nope"], "Error: No such option: --nope"),
        (["tune", "photos", "--epochs", "x"], "Error: Invalid value for '--epochs'"),
        (["nope"], "Error: No such command 'nope'."),
    ],
)
def test_a_mistyped_option_is_told_as_other_errors_are(rehead: Program, arguments: list[str], said: str) -> None:
    done = rehead(*arguments)
    first, last = done.stderr.splitlines()
    assert (done.returncode, first[: len(said)]) == (2, said)
    command = "rehead tune" if arguments[0] == "tune" else "rehead"
    assert last == f"  See: {command} --help"


def test_what_verify_keeps_is_said_as_it_is(rehead: Program) -> None:
    assert "Where archives are unpacked" in rehead("verify", "--help", COLUMNS="200").stdout


@pytest.mark.parametrize(("side", "words"), [("given", "of 2 photos"), ("valid", "of 2 held-out photos")])
def test_photos_given_to_verify_are_not_called_held_out(
    side: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.array([[1, 0], [0, 1]], np.float32)
    show_verdict(judge(logits, np.array([0, 1]), classes=["a", "b"], paths=["1", "2"], side=side, n_train=4))
    assert words in capsys.readouterr().out
