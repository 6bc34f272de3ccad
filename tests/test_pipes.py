"""A reader that has enough is no failure; any other pipe that breaks is one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from rehead.cli.ending import guarded


def broken(**_: object) -> NoReturn:
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def by_typer() -> typer.Typer:
    """The same, as a command of the program meets it."""
    app = typer.Typer()
    app.command()(lambda: broken())
    return app


@pytest.mark.parametrize("app", [broken, by_typer()])
def test_a_pipe_to_another_process_that_breaks_is_a_failure(
    app: object, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rehead"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # Typer replaces both
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    assert guarded(app) == 1
    assert "BrokenPipeError" in capfd.readouterr().err


@pytest.mark.parametrize("words", [["--version"], ["runs", "--json"], ["runs"], ["--help"], ["tune", "--help"]])
def test_a_reader_that_has_enough_is_no_failure(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-m", "rehead", *words], stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
@pytest.mark.parametrize("words", [["runs"], ["runs", "--json"], ["layers", "efficientnet_lite0"]])
@pytest.mark.long
def test_standard_output_that_takes_no_more_is_told(words: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rehead", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
            cwd=tmp_path,
        )
    assert (done.returncode, done.stderr.startswith("Error: Standard output cannot be written.")) == (2, True), (
        done.stderr
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
def test_an_error_that_cannot_be_told_has_its_exit_code_all_the_same() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "rehead", "cache", "nosuch"], stderr=full, check=False)
    assert done.returncode == 2


CLOSED = (
    "import os, sys; [os.close(int(n)) for n in sys.argv[1]]; os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other streams")
@pytest.mark.parametrize("streams", ["0", "1", "2", "12", "012"])
def test_streams_that_are_closed_lead_nowhere(streams: str, tmp_path: Path) -> None:
    words = ["-m", "rehead", "cache", "--cache", str(tmp_path), "--json"]
    done = subprocess.run([sys.executable, "-c", CLOSED, streams, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ('"stores": []' in done.stdout) == ("1" not in streams)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other streams")
def test_what_nobody_is_to_read_does_not_stand_among_the_results() -> None:
    words = [sys.executable, "-c", CLOSED, "2", "-m", "rehead", "cache", "nosuch"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other streams")
def test_no_file_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from rehead.cli.ending import guarded\n"
        "def app(**_):\n"
        "    file = open(sys.argv[1], 'w'); os.system('echo aloud; echo aloud >&2'); print(file.fileno(), file=file)\n"
        "guarded(app)"
    )
    subprocess.run([sys.executable, "-c", CLOSED, "012", "-c", code, str(tmp_path / "file")], check=True)
    assert int((tmp_path / "file").read_text()) > 2
