"""Rows written as CSV that any reader takes apart again as they were, whatever stands in a cell.

Lines end with "\\n". A cell that holds "\\r" is quoted too: Python's own writer quotes what holds a character of the line's end
alone, while readers end a line at both. Reading is the `csv` module's, of a file opened with newline="".
"""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Writer

END = "\r\n"  # of a line as it is handed over: cells that hold either are quoted


def csv_writer(file: IO[str]) -> Writer:
    """A writer of rows to `file`, which is to leave line ends as they are: opened with newline=""."""
    return csv.writer(_Lines(file), lineterminator=END)


class _Lines:
    """A file to which each line goes with the end "\\n"."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix(END) + "\n")
