"""Words and tables as wide as the terminal: sentences break between words, a table gives up its least columns with a word.

Text of the user's, such as names and paths, is shown as it is and never read as markup. What is said is left to others.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from rehead.errors import escaped

if TYPE_CHECKING:
    from rich.console import Console

    from rehead.verdict.bootstrap import Estimate
    from rehead.verdict.intervals import Interval

PIPED_WIDTH = 500  # columns; more than any table has
GAP = 3  # columns of a terminal between two of a table
WIDEST_FIRST = 40  # columns that a table's first column keeps where there is room


def console() -> Console:
    """Standard output, as wide as the terminal; in a pipe nothing is cut or folded, unless COLUMNS says so."""
    from rich.console import Console

    is_seen = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if is_seen else PIPED_WIDTH)


def say(text: str, file: IO[str] | None = None) -> None:
    """Prints a text, to standard output where no file is named; in a terminal its lines break between words.

    What is told on the way, to standard error, may go nowhere: a job is not ended by a reader who has enough, by a terminal
    that was closed, or by the full disk of a log.
    """
    file = sys.stdout if file is None else file
    try:
        print(wrapped(text, _width_of(file)), file=file, flush=file is sys.stderr)
    except OSError:
        if file is not sys.stderr:
            raise


def wrapped(text: str, width: int | None) -> str:
    """The text with lines of at most `width` columns, broken between words; a longer word, such as a path, stays whole."""
    if width is None:
        return text
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def printable(text: str) -> str:
    """A name as text that any terminal can show: control characters and invalid bytes are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped(text))


def shortened(text: str, width: int) -> str:
    """At most `width` characters of a text, with a sign where some are missing."""
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"


def percent(interval: Interval | None) -> str:
    """'98.5 % (96.7 to 99.3)'."""
    if interval is None:
        return "–"
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def narrow(interval: Interval | Estimate | None) -> str:
    """'98.5 (96.7–99.3)', in percent."""
    if interval is None:
        return "–"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def table(header: Sequence[str], right: Sequence[int] = ()) -> Any:
    """An empty table without frames; the columns `right` are set to the right and never broken."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(header):
        made.add_column(Text(name), justify="right" if i in right else "left", no_wrap=i in right)
    return made


def show_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), spare: Sequence[str] = ()
) -> None:
    """A table without frames. spare: columns to leave out in a narrow terminal, the first one first; they are named below."""
    from rich.text import Text

    out = console()
    widths = [max(map(_columns, column)) for column in zip(header, *rows, strict=True)]
    kept = _that_fit(header, widths, spare, out.width)
    made = table([header[i] for i in kept], [place for place, i in enumerate(kept) if i in right])
    others = sum(widths[i] + GAP for i in kept[1:])
    made.columns[0].min_width = max(1, min(WIDEST_FIRST, widths[0], out.width - others))
    for row in rows:
        made.add_row(*(Text(row[i], overflow="ellipsis" if i in right else "fold") for i in kept))
    out.print(made)
    if left_out := [header[i] for i in range(len(header)) if i not in kept]:
        out.print(f"Too narrow for: {', '.join(left_out)}. --json has all.", style="dim", markup=False)


def _that_fit(header: Sequence[str], widths: Sequence[int], spare: Sequence[str], width: int) -> list[int]:
    """The places of the columns that are shown."""
    kept = list(range(len(header)))
    for name in spare:
        if sum(widths[i] + GAP for i in kept) - GAP <= width:
            break
        kept.remove(header.index(name))
    return kept


def _columns(text: str) -> int:
    """How wide a text is in a terminal, where Chinese takes two columns a character."""
    from rich.cells import cell_len

    return cell_len(text)


def _width_of(file: IO[str]) -> int | None:
    """Columns of the terminal that a file is, None where it is none."""
    try:
        return max(20, os.get_terminal_size(file.fileno()).columns) if file.isatty() else None
    except (OSError, ValueError):
        return None
