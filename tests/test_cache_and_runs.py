"""`rehead cache` and `rehead runs`: an option means the same before and behind the word that says what to do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]


def an_archive(cache: Path) -> Path:
    """What a cache keeps of an archive of two kilobytes."""
    folder = cache / "archives" / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "photo").write_bytes(bytes(2000))
    return folder


@pytest.mark.parametrize("words", [("--cache", "CACHE", "clear"), ("clear", "--cache", "CACHE")])
def test_the_cache_that_is_named_is_cleared_and_no_other(rehead: Program, tmp_path: Path, words: tuple[str]) -> None:
    default, named = an_archive(tmp_path / "default"), an_archive(tmp_path / "named")
    asked = [word.replace("CACHE", str(tmp_path / "named")) for word in words]
    done = rehead("cache", *asked, REHEAD_CACHE=str(tmp_path / "default"))
    assert done.returncode == 0, done.stderr
    assert (default.exists(), named.exists()) == (True, False)


@pytest.mark.parametrize("words", [("--json", "clear"), ("clear", "--json")])
def test_what_was_cleared_is_told_as_json(rehead: Program, tmp_path: Path, words: tuple[str]) -> None:
    an_archive(tmp_path / "own")
    kept = json.loads(rehead("cache", "--json", REHEAD_CACHE=str(tmp_path / "own")).stdout)
    assert kept["stores"] == []
    assert kept["total_bytes"] == kept["other_bytes"] >= 2000
    told = json.loads(rehead("cache", *words, REHEAD_CACHE=str(tmp_path / "own")).stdout)
    assert told["freed_bytes"] >= 2000
    assert (told["kept_in_use"], told["matched"]) == (0, 1)


def test_a_run_is_shown_by_its_name_in_the_folder_that_is_named(rehead: Program, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "first"
    done = rehead("tune", photos, "--head", "prototype", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "prototype" in rehead("runs", "--folder", "elsewhere", "show", "first").stdout
    told = rehead("runs", "--folder", "elsewhere", "--json", "show", "first")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["verdict"]["top1"]["n"] > 0
    assert "prototype" in rehead("runs", "show", "elsewhere/first").stdout


@pytest.mark.parametrize("command", ["cache", "runs", "backbones"])
@pytest.mark.long
def test_the_help_of_json_names_what_is_printed(rehead: Program, tmp_path: Path, command: str) -> None:
    printed = json.loads(rehead(command, "--json", REHEAD_CACHE=str(tmp_path)).stdout)
    kind = {list: "one JSON array", dict: "one JSON object"}[type(printed)]
    assert kind in " ".join(rehead(command, "--help").stdout.split())
