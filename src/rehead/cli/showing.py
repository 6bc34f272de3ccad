"""Progress as it is shown: a live bar in a terminal, with a table that grows above it; elsewhere plain lines.

A bar says what is done, how fast, and how long it will take; a plain line comes every ten seconds.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

from rehead.cli.tables import printable, say, shortened
from rehead.progress import row_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LINE_EVERY_S = 10.0
WIDE = 100  # columns of a terminal from which on the bar is a long one
BESIDE_NAME = 50  # columns for a short bar and what stands around it: 25000/25000, 1234 photos/s, 0:02:34
BELOW_TABLE = 8  # lines of a terminal that a growing table leaves to the bar and what stands around it


class Lines:
    """Progress as plain lines, one every ten seconds, and one at the end of each phase.

    write: told each line, by default on standard error. steady: also while nothing advances, from a thread that `close` ends.
    """

    def __init__(self, write: Callable[[str], object] | None = None, *, steady: bool = False) -> None:
        self._write = write or functools.partial(say, file=sys.stderr)
        self._name, self._unit, self._done, self._status = "", "photos", 0, ""
        self._total: int | None = None
        self._begun = self._said = time.monotonic()
        self._last: tuple[int, str] | None = None  # what was done and how it stood when that was last said
        self._lock, self._over = threading.RLock(), threading.Event()  # Ctrl-C notes something in the midst of anything
        if steady:
            threading.Thread(target=self._look_on, name="rehead-lines", daemon=True).start()

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        with self._lock:
            self._end()
            self._last = None
            self._name, self._total, self._unit, self._done, self._status = printable(name), total, unit, 0, ""
            self._begun = self._said = time.monotonic()

    def advance(self, n: int = 1) -> None:
        with self._lock:
            self._done += n
            self._look()

    def status(self, text: str) -> None:
        with self._lock:
            first = not self._status
            self._status = text
            if first:
                self._say()

    def note(self, text: str) -> None:
        with self._lock:
            if self._done == self._total:
                self._end()
            self._write(printable(text))

    def row(self, cells: Mapping[str, str]) -> None:
        with self._lock:
            self._said = time.monotonic()
            self._write(row_line(cells))

    def close(self) -> None:
        """The last phase is over."""
        self._over.set()
        with self._lock:
            self._end()

    def _look_on(self) -> None:
        while not self._over.wait(self._look()):
            pass

    def _look(self) -> float:
        """Says how it stands where nothing was said for ten seconds. The seconds until it may be time again."""
        with self._lock:
            if self._name and time.monotonic() - self._said >= LINE_EVERY_S:
                self._say()
            return max(0.0, self._said + LINE_EVERY_S - time.monotonic()) if self._name else LINE_EVERY_S

    def _end(self) -> None:
        if self._name and time.monotonic() - self._begun > 2 and self._last != (self._done, self._status):
            self._say()
        self._name = ""

    def _say(self) -> None:
        self._said, self._last = time.monotonic(), (self._done, self._status)
        took = self._said - self._begun
        parts = [f"{self._name}: {self._done}" + (f" of {self._total}" if self._total else "") + f" {self._unit}"]
        if self._done and took > 0.5:
            rate = self._done / took
            parts.append(f"{rate:.0f}/s")
            if self._total and self._done < self._total:
                parts.append(f"{(self._total - self._done) / rate:.0f} s left")
        if not self._total:
            parts = [f"{self._name}, {took:.0f} s"]
        is_over = self._total is not None and self._done >= self._total  # what was told on the way is of fewer than all
        self._write(", ".join([*parts, self._status] if self._status and not is_over else parts))


class Bars:
    """Progress as a live bar. Rows stand above it, as many as there is room for; all of them stay when the phase is over.

    console: its own, of a terminal that may be closed meanwhile.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console.file = cast("IO[str]", Unheeded(console.file))
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if console.width >= WIDE else 10),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        self._bars = Progress(*columns, console=console, auto_refresh=False)
        self._task: Any = None
        self._begun, self._done, self._unit, self._status = time.monotonic(), 0, "photos", ""
        self._total: int | None = None
        self._rows: list[Mapping[str, str]] = []
        self._live = Live(console=console, get_renderable=self._look, transient=True)
        self._live.start(refresh=True)  # a first drawing that races with a first line would tear it

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self._end()
        width = self._live.console.width
        room = width - (BESIDE_NAME if total is not None else BESIDE_NAME // 2) - (14 if width >= WIDE else 0)
        shown = shortened(printable(name), room)
        self._unit, self._total = unit, total
        self._begun, self._done = time.monotonic(), 0
        self._task = self._bars.add_task(shown, total=total, rate="", count=self._count())

    def advance(self, n: int = 1) -> None:
        if self._task is not None:
            self._done += n
            rate = self._done / max(time.monotonic() - self._begun, 1e-3)
            self._bars.update(
                self._task, advance=n, count=self._count(), rate=f"{rate:.{0 if rate >= 10 else 1}f} {self._unit}/s"
            )

    def _count(self) -> str:
        if self._total is None:
            return str(self._done) if self._done else ""
        return f"{self._done}/{self._total}"

    def status(self, text: str) -> None:
        self._status = text

    def note(self, text: str) -> None:
        self._live.console.print(printable(text), highlight=False, markup=False)

    def row(self, cells: Mapping[str, str]) -> None:
        self._rows.append(cells)

    def close(self) -> None:
        self._end()
        self._live.stop()

    def _end(self) -> None:
        """The phase is over: its table stays, its bar goes."""
        rows, self._rows, self._status = self._rows, [], ""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        if rows:
            self._live.console.print(grown(rows))

    def _look(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [self._bars.get_renderable()]
        if self._status:
            parts.append(Text(self._status, style="bold", no_wrap=True, overflow="ellipsis"))
        if self._rows:
            room = max(3, self._live.console.height - BELOW_TABLE)
            parts[:0] = [grown(self._rows[-room:]), ""]
        return Group(*parts)


class Unheeded:
    """A file that goes on taking text when it can no longer be written."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


def grown(rows: Sequence[Mapping[str, str]]) -> Any:
    """Rows of one phase as a table without frames."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for name in rows[0]:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.values()))
    return table
