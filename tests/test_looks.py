"""What the smaller commands print: lists that can be read in a pipe, and words where there is nothing to list."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rehead.cli.arguments import as_seconds
from rehead.cli.showing import Bars
from rehead.cli.tables import wrapped
from rehead.cli.terminal import show_backbones, show_error, show_verdict
from rehead.errors import RecipeError, SourceError
from rehead.features.cache import list_stores
from rehead.features.clearing import clear
from rehead.features.store import Store
from rehead.nets.listing import Listing
from rehead.verdict.metrics import judge
from rehead.verdict.regression import judge_numbers

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
        kept(tmp_path / "own", f"{i:032}-plain-fp32", **about)
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
    kept(tmp_path / "own", f"{1:032}-plain-fp32")
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
    assert "Where archives are unpacked, and features are kept" in rehead("verify", "--help", COLUMNS="200").stdout


@pytest.mark.parametrize(("side", "words"), [("given", "of 2 photos"), ("valid", "of 2 held-out photos")])
def test_photos_given_to_verify_are_not_called_held_out(
    side: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.array([[1, 0], [0, 1]], np.float32)
    show_verdict(judge(logits, np.array([0, 1]), classes=["a", "b"], paths=["1", "2"], side=side, n_train=4))
    assert words in capsys.readouterr().out


ODD = ("[/red]cat", "dog[bold", "dog [red]x")


def verdict_of(classes: tuple[str, ...], **about: object) -> object:
    n = len(classes)
    labels = np.arange(n)
    return judge(np.eye(n)[::-1], labels, classes=classes, paths=[f"{c}/0.jpg" for c in classes], side="valid", **about)


def test_square_brackets_in_names_are_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    show_verdict(verdict_of(ODD, notes=("No photo shows [/red]cat.",)))  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert all(shown.count(name) >= 3 for name in ODD)
    bars = Bars(Console(file=io.StringIO(), width=100))
    bars.phase("Looking for [/red]net")
    bars.note("dog[bold")
    bars.close()


def test_control_characters_in_names_and_notes_are_escaped_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_verdict(verdict_of(("a\x1b[31m", "b"), notes=("No photo shows a\x1b[31m, caf\\xe9.",)))  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "! No photo shows a\\x1b[31m, caf\\xe9." in shown


def test_a_narrow_terminal_shows_fewer_columns_and_names_those_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_backbones([Listing("resnetv2_152x2_bit_teacher", 10**8, 10**10, 224, 2048, "apache-2.0", False)], 5, "a_*")
    shown = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in shown[:-1])
    assert shown[0].split() == ["backbone", "parameters", "MACs", "pixels", "licence", "from"]
    assert "Too narrow for: features. --json has all." in shown


@pytest.mark.parametrize("n", [3, 12])
def test_the_table_of_what_was_named_for_what_fits_or_is_left_out_with_a_word(
    n: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_verdict(verdict_of(tuple(f"a class of a long name {i}" for i in range(n))))  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert ("is / named" in shown, "needs a wider terminal" in shown) == (n == 3, n == 12)
    assert "…" in shown or n == 12


def test_lines_break_between_words_and_long_paths_stay_whole() -> None:
    path = "/a/path/that/is/longer/than/the/line/itself"
    text = f"Error: nothing can be read of {path} at all.\n  Pass another one."
    lines = wrapped(text, 24).split("\n")
    assert " ".join(line.strip() for line in lines) == " ".join(text.split())
    assert f"  {path}" in lines
    assert all(len(line) <= 24 for line in lines if path not in line)
    assert wrapped(text, None) == text


@pytest.mark.parametrize(("option", "usual"), [("older-than", "3d"), ("budget", "3m")])
def test_a_time_without_a_unit_is_refused(option: str, usual: str) -> None:
    assert as_seconds("3d", option) == 3 * 86_400
    with pytest.raises(RecipeError, match=f"Write 3s, 3m, 3h or 3d, such as --{option} {usual}"):
        as_seconds("3", option)


def test_errors_show_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(SourceError(what="a\x1b[31m is not there."))
    assert capsys.readouterr().err == "Error: a\\x1b[31m is not there.\n"


def test_the_paths_of_mistakes_open_from_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("data/photos/a/0.jpg", "data/other/b/0.jpg"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    paths = ["a/0.jpg", "../other/b/0.jpg", "gone.jpg"]
    verdict = judge(np.eye(3)[[1, 2, 0]], np.arange(3), classes=["a", "b", "c"], paths=paths, side="valid")
    show_verdict(verdict, "data/photos")
    shown = capsys.readouterr().out.split()
    assert {"data/photos/a/0.jpg", "data/other/b/0.jpg", "gone.jpg"} <= set(shown)


@pytest.mark.parametrize(
    ("value", "predicted", "row"),
    [
        (3.5, 3.579, "3.500 3.579 +0.079"),
        (20, 8, "20 8 -12"),
        (1_234_567, 1_198_234, "1234567 1198234 -36333"),
        (1e12, 1.25e12, "1000000000000 1250000000000 +250000000000"),
        (2.5e-12, 2.4e-12, "2.50e-12 2.40e-12 -1.00e-13"),
        (3.5, 3.50000025, "3.5000000e+00 3.5000002e+00 +2.5000000e-07"),
        (3e38, 1e38, "3.0e+38 1.0e+38 -2.0e+38"),
        (0, -1e-9, "0.0e+00 -1.0e-09 -1.0e-09"),
    ],
)
def test_numbers_of_any_size_stand_in_a_table_as_they_are_in_one_form(
    value: float, predicted: float, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_verdict(judge_numbers(np.array([predicted]), np.array([value]), median=0, paths=["1.jpg"], side="valid"))
    assert " ".join(capsys.readouterr().out.splitlines()[-1].split()) == f"1.jpg {row}"
