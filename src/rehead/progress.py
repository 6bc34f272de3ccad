"""What a long job tells of itself while it runs, and how long its parts took.

How that looks is left to whoever listens (`cli/terminal.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Laws: `phase` ends the phase before it; `advance` never goes past `total`; every call is cheap and never raises."""

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        """A new stretch of work: `total` units of it, or an unknown number."""

    def advance(self, n: int = 1) -> None:
        """`n` more units are done."""

    def status(self, text: str) -> None:
        """What stands beside the bar from now on, in place of what stood there."""

    def note(self, text: str) -> None:
        """A line that stays."""

    def row(self, cells: Mapping[str, str]) -> None:
        """A row of this phase's table, by its columns, which are the same for all rows."""


class Silent:
    """Tells nothing."""

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None: ...

    def advance(self, n: int = 1) -> None: ...

    def status(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def row(self, cells: Mapping[str, str]) -> None: ...


def row_line(cells: Mapping[str, str]) -> str:
    """A row where there is no table: 'epoch 1 of 6, loss 0.412'."""
    return ", ".join(f"{name} {value}" for name, value in cells.items())


class Titled:
    """Tells the same to another listener, with a title before each phase: which of several parts of a job it is."""

    def __init__(self, title: str, listener: Progress) -> None:
        self._title, self._listener = title, listener

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self._listener.phase(f"{self._title}: {name}", total, unit)

    def advance(self, n: int = 1) -> None:
        self._listener.advance(n)

    def status(self, text: str) -> None:
        self._listener.status(text)

    def note(self, text: str) -> None:
        self._listener.note(text)

    def row(self, cells: Mapping[str, str]) -> None:
        self._listener.row(cells)


class Clock:
    """Seconds by phase, and in all."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """All since the last lap was this phase, which may come more than once."""
        now = time.monotonic()
        self._laps[phase] = round(self._laps.get(phase, 0.0) + now - self._last, 3)
        self._last = now

    def add(self, before: Mapping[str, float]) -> None:
        """What `laps` gave where the job was interrupted counts too."""
        for phase, took in before.items():
            self._laps[phase] = self._laps.get(phase, 0.0) + took
        self._begun -= self._laps.pop("total", 0.0)

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": round(time.monotonic() - self._begun, 3)}
