"""Progress as people see it: a table that grows in a terminal, lines elsewhere."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from rehead.cli.answers import show_classes
from rehead.cli.showing import Bars, Lines
from rehead.cli.tables import say
from rehead.cli.terminal import progress_for
from rehead.reporting.wording import beside
from rehead.runs.record import _cells
from rehead.verdict.compare import paired
from rehead.verdict.metrics import judge
from rehead.verdict.selective import judge_selective

EPOCH = {"epoch": 10, "loss": 0.4123, "lr": 1e-3, "seconds": 12.3, "images_per_s": 3141.5}
WATCHED = {"watch_loss": 0.3141, "watch_right": 91, "watch_n": 100}


Timed = tuple[list[float], list[str], Lines]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    """The time that it is, what is said, and lines that go by that time."""
    now, said = [0.0], list[str]()
    monkeypatch.setattr("rehead.cli.showing.time.monotonic", lambda: now[0])
    return now, said, Lines(said.append)


@pytest.mark.parametrize("width", [80, 120])
def test_a_row_of_an_epoch_is_whole_in_a_terminal(width: int) -> None:
    screen = Console(file=io.StringIO(), width=width, height=24, force_terminal=True)
    bars = Bars(screen)
    bars.phase("Training", 100)
    bars.status("epoch 11 of 100")
    bars.row(_cells(EPOCH | WATCHED, 100))
    bars.row(_cells(EPOCH | WATCHED, 100))
    bars.close()
    lines = [line.split() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["10", "of", "100", "0.412", "0.314", "91.0", "(83.8–95.2)", "1.0e-03", "3142", "12"] in lines


def test_a_table_longer_than_the_terminal_leaves_room_for_the_bar_and_is_whole_at_the_end() -> None:
    screen = Console(file=io.StringIO(), width=80, height=16, force_terminal=True)
    bars = Bars(screen)
    bars.phase("Training", 100)
    for epoch in range(1, 41):
        bars.row(_cells({**EPOCH, "epoch": epoch}, 40))
    look = bars._look()
    shown = Console(file=io.StringIO(), width=80)
    shown.print(look)
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert len(text.splitlines()) < 16
    assert "40 of 40" in text
    assert "Training" in text
    bars.close()
    whole = screen.file.getvalue()  # type: ignore[attr-defined]
    assert all(f"{epoch} of 40" in whole for epoch in range(1, 41))


def test_elsewhere_a_row_is_a_line() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    lines.phase("Training", 100)
    lines.row(_cells(EPOCH | WATCHED, 12))
    assert said == [
        "epoch 10 of 12, loss 0.412, watch loss 0.314, right % 91.0 (83.8–95.2), lr 1.0e-03, photos/s 3142, seconds 12"
    ]


def test_at_80_columns_the_bar_has_its_count_rate_and_time_left() -> None:
    screen = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    bars = Bars(screen)
    bars.phase("efficientnet_lite0: Extracting mirror", 25_000)
    bars.advance(12_345)
    bars.status("held-out accuracy 98.5% (96.7% to 99.3%) on 1234 photos")
    shown = Console(file=io.StringIO(), width=80)
    shown.print(bars._look())
    bars.close()
    bar, status = shown.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "12345/25000" in bar
    assert "photos/s" in bar
    assert bar.rstrip()[-3] == ":"
    assert status.startswith("held-out accuracy 98.5% (96.7% to 99.3%) on 1234 photos")


def test_a_bar_without_a_total_counts_without_one() -> None:
    screen = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    bars = Bars(screen)
    shown = Console(file=io.StringIO(), width=80)
    bars.phase("Preparing resnet18 (once)")
    shown.print(bars._look())
    bars.phase("Listing", None, "files")
    bars.advance(3000)
    shown.print(bars._look())
    bars.close()
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "Preparing resnet18 (once) " in text
    assert "?" not in text
    assert "3000 " in text


def test_a_line_comes_every_ten_seconds_at_most(timed: Timed) -> None:
    now, said, lines = timed
    lines.phase("Extracting", 100)
    for now[0] in (9.0, 11.0, 15.0, 20.5):
        lines.advance(10)
    assert said == ["Extracting: 20 of 100 photos, 2/s, 44 s left"]
    now[0] = 21.0
    lines.advance(10)
    assert said[1:] == ["Extracting: 50 of 100 photos, 2/s, 21 s left"]


def test_a_line_comes_every_ten_seconds_where_nothing_advances(timed: Timed) -> None:
    now, said, lines = timed
    lines.phase("Preparing resnet152 (once)")
    waits = []
    for now[0] in (9.0, 10.0, 15.0, 20.0):
        waits.append(lines._look())
    assert waits == [1.0, 10.0, 5.0, 10.0]
    lines.phase("Solving heads", 5, "folds")
    for now[0] in (29.0, 30.0):
        lines._look()
    lines.close()
    lines._look()
    assert said == [
        "Preparing resnet152 (once), 10 s",
        "Preparing resnet152 (once), 20 s",
        "Solving heads: 0 of 5 folds",
    ]


def test_a_command_looks_on_until_its_job_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rehead.cli.showing.LINE_EVERY_S", 0.02)
    said, ends = "", time.monotonic() + 20
    lines = progress_for(json=True)
    lines.phase("Preparing resnet152 (once)")
    while said.count("\n") < 2:
        assert time.monotonic() < ends
        time.sleep(0.02)
        said += capsys.readouterr().err
    lines.close()
    said += capsys.readouterr().err
    time.sleep(0.1)
    assert set(said.splitlines()) == {"Preparing resnet152 (once), 0 s"}
    assert capsys.readouterr().err == ""


def test_what_was_said_already_is_not_said_again_at_the_end_of_a_phase(timed: Timed) -> None:
    now, said, lines = timed
    lines.phase("Solving the head")
    now[0] = 49.0
    lines.status("held-out accuracy 95.0%")
    lines.close()
    assert said == ["Solving the head, 49 s, held-out accuracy 95.0%"]


def test_the_last_line_of_all_photos_says_nothing_of_a_part_of_them(timed: Timed) -> None:
    now, said, lines = timed
    lines.phase("Extracting", 4)
    now[0] = 4.0
    lines.advance(2)
    lines.status("held-out accuracy 95.0% on 2 photos")
    lines.advance(2)
    lines.close()
    first = "Extracting: 2 of 4 photos, 0/s, 4 s left, held-out accuracy 95.0% on 2 photos"
    assert said == [first, "Extracting: 4 of 4 photos, 1/s"]


def test_the_last_line_of_a_phase_stands_before_what_is_noted_next(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    lines, now = Lines(said.append), [0.0]
    monkeypatch.setattr("rehead.cli.showing.time.monotonic", lambda: now[0])
    lines.phase("Training", 4)
    now[0] = 5.0
    lines.advance(4)
    lines.note("Second phase")
    lines.phase("Checking", 4)
    assert said == ["Training: 4 of 4 photos, 1/s", "Second phase"]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_what_is_told_on_the_way_may_go_nowhere(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.print", closed)
    say("half done", sys.stderr)
    with pytest.raises(OSError, match=os.strerror(number)):
        say("the result")


class Gone(io.StringIO):
    """A terminal until it is closed."""

    is_gone = False

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(text)


def test_a_bar_goes_on_when_its_terminal_is_closed() -> None:
    terminal = Gone()
    bars = Bars(Console(file=terminal, width=80, height=24, force_terminal=True))
    bars.phase("Training", 100)
    terminal.is_gone = True
    bars._live.refresh()  # as its thread does
    bars.advance(50)
    bars.note("Half of it")
    bars.row(_cells(EPOCH, 100))
    bars.phase("Checking")
    bars.close()
    assert "Half of it" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("threshold", "words"), [(0.0, "at least 99.5 % are right"), (None, "no threshold makes answers right on 99.5 %")]
)
def test_the_precision_that_was_asked_for_is_shown_as_it_was(
    threshold: float | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logits, labels = np.eye(2, dtype=np.float32)[[0, 1]], np.array([0, 1])
    verdict = judge(logits, labels, classes=["a", "b"], paths=["1", "2"], side="drawn")
    found = judge_selective(np.ones(2), np.ones(2, bool), precision=0.995, threshold=threshold, n_chosen=1000)
    show_classes(replace(verdict, selective=found))
    assert words in capsys.readouterr().out


def test_a_head_alone_stands_beside_a_model_whose_layers_learned(capsys: pytest.CaptureFixture[str]) -> None:
    logits, labels = np.eye(2, dtype=np.float32)[[0, 1, 0, 0]], np.array([0, 1, 0, 1])
    verdict = judge(logits, labels, classes=["a", "b"], paths=["1", "2", "3", "4"], side="drawn")
    before, now = np.array([True, True, False, False]), np.array([True, True, True, False])
    verdict = replace(verdict, alone=paired(before, now, labels))
    show_classes(verdict)
    said = "a linear head alone 50.0 % (15.0 to 85.0): it alone is right on 0, this model alone on 1 (p = 1)"
    assert said in " ".join(capsys.readouterr().out.split())
    assert beside(verdict).endswith(
        "A linear head alone, on the network as it was, is right on 50.0\u00a0% (15.0\u00a0to\u00a085.0)."
    )
