"""The log of a run: all that was noted, and now and then how it stands."""

from __future__ import annotations

from pathlib import Path

from rehead.progress import Silent
from rehead.runs.log import Log


def test_of_many_words_on_how_it_stands_the_last_are_written(tmp_path: Path) -> None:
    log = Log(Silent())
    log.note("before there is a folder")
    log.begin(tmp_path)
    for step in range(100):
        log.status(f"step {step}")
    log.phase("Next")
    log.status("only this")
    log.note("the end")
    words = [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert words == ["before there is a folder", "step 0", "step 99", "Next", "only this", "the end"]
