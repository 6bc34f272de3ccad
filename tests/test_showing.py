"""Progress as people see it: a table that grows in a terminal, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rehead.cli.showing import Bars, Lines
from rehead.record import _cells

EPOCH = {"epoch": 10, "loss": 0.4123, "lr": 1e-3, "seconds": 12.3, "images_per_s": 3141.5}
WATCHED = {"watch_loss": 0.3141, "watch_right": 91, "watch_n": 100}


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
