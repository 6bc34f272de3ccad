"""What a training leaves in its run, by a clock that the test turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehead.progress import Silent
from rehead.runs.folder import RunFolder
from rehead.runs.record import Record
from rehead.tuning.recipe import Recipe
from rehead.tuning.state import State


def test_a_checkpoint_is_due_a_minute_after_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    with RunFolder(tmp_path / "run", force=False) as run:
        run.create("photos", "network")
        monkeypatch.setattr("rehead.runs.record.time.monotonic", lambda: now[0])
        record = Record(run, Silent(), 36)
        now[0] += 300  # a range test
        record.begin(Recipe(train="last:1").course, [])
        for _ in range(2):
            assert not record.due()
            now[0] += 59
            assert not record.due()
            now[0] += 2
            assert record.due()
            record.save(State())
