"""The check for what tests leave behind sees each kind, and is silent where nothing is left."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from leaks import Held, left_since


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaks.GRACE_S", 0.1)


def test_nothing_is_left_by_what_cleans_up(tmp_path: Path) -> None:
    before = Held.now()
    (tmp_path / "file").write_text("closed again")
    subprocess.run([sys.executable, "-c", ""], check=True)
    thread = threading.Thread(target=lambda: None)
    thread.start()
    assert left_since(before) == []


def test_a_thread_that_goes_on_is_seen() -> None:
    before, over = Held.now(), threading.Event()
    thread = threading.Thread(target=over.wait, name="forgotten")
    thread.start()
    assert left_since(before) == ["the thread forgotten"]
    over.set()
    thread.join()


def test_a_process_that_goes_on_is_seen() -> None:
    before = Held.now()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert left_since(before) == [f"the process {process.pid}"]


def test_an_open_file_is_seen(tmp_path: Path) -> None:
    before = Held.now()
    with (tmp_path / "file").open("w"):
        assert left_since(before) == [f"the open file {tmp_path / 'file'}"]


def test_a_changed_variable_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Held.now()
    monkeypatch.setenv("REHEAD_SURPRISE", "1")
    assert left_since(before) == ["a change of the variable REHEAD_SURPRISE"]
