"""What a job tells: to whoever listens, and to a file in its run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from rehead.progress import Progress, row_line

LOG = "log.txt"
STATUS_S = 5.0  # between lines that say how it stands


class Log:
    """What a job tells, passed on to a listener and written down with the time. A log that cannot be written is let go.

    Of how it stands, told several times a second, the last is written every few seconds and before what comes next.
    """

    def __init__(self, listener: Progress) -> None:
        self._listener = listener
        self._waiting: list[str] = []
        self._path: Path | None = None
        self._status, self._status_at = "", 0.0

    def begin(self, run: Path) -> None:
        """From now on lines are in the run's folder, those that came before too."""
        self._path = run / LOG
        self._write("")

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self._listener.phase(name, total, unit)
        self._write(name if total is None else f"{name}: {total} {unit}")

    def advance(self, n: int = 1) -> None:
        self._listener.advance(n)

    def status(self, text: str) -> None:
        self._listener.status(text)
        self._status = text
        if time.monotonic() - self._status_at >= STATUS_S:
            self._write("")

    def note(self, text: str) -> None:
        self._listener.note(text)
        self._write(text)

    def row(self, cells: Mapping[str, str]) -> None:
        self._listener.row(cells)
        self._write(row_line(cells))

    def _write(self, text: str) -> None:
        for line in (self._status, text):
            if line:
                self._waiting.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        if self._status:
            self._status, self._status_at = "", time.monotonic()
        if self._path is not None:
            with (
                contextlib.suppress(OSError),
                self._path.open("a", encoding="utf-8", errors="backslashreplace") as file,
            ):
                file.writelines(self._waiting)
                self._waiting.clear()
