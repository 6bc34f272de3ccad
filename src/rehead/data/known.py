"""Digests of files that were read before, so that a second job reads no photo just to know which one it is.

As in git's index, a file counts as the same while its path, size and times of change are the same; one that was changed
less than RACY_S before it was looked at is not remembered, since it could change again within one tick of a disk's clock.
What cannot be remembered is read again: a damaged, locked or unwritable index costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = "files-1.sqlite"  # the number is that of the table's format
RACY_S = 2.0  # the coarsest clock of a file system in use, FAT's
WAIT_S = 5.0  # for another job that writes

Stamp = tuple[int, int, int]  # bytes; nanoseconds since 1970 of the last change of the content, and of anything


@dataclass(frozen=True)
class Look:
    """A file as it was looked at: its stamp, None where it may not be remembered, and its digest where that is known."""

    stamp: Stamp | None
    digest: bytes | None


class Known:
    """An index of files. Not to be shared between threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def look(self, files: Sequence[str | None]) -> list[Look]:
        """What is known of each file; None is no file, and nothing is known of it."""
        racy_ns = time.time_ns() - int(RACY_S * 1e9)
        return [Look(None, None) if file is None else self._looked(file, racy_ns) for file in files]

    def remember(self, files: Sequence[tuple[str, Stamp, bytes]]) -> None:
        """Keeps (path, its stamp before it was read, its digest)."""
        rows = [(_key(path), *stamp, digest) for path, stamp, digest in files]
        with contextlib.suppress(sqlite3.Error), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)

    def _looked(self, file: str, racy_ns: int) -> Look:
        try:
            status = os.stat(file)
        except OSError:
            return Look(None, None)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if max(stamp[1:]) > racy_ns:
            return Look(None, None)
        try:
            row = self._connection.execute(
                "SELECT size, changed, touched, digest FROM files WHERE path = ?", (_key(file),)
            ).fetchone()
        except sqlite3.Error:
            return Look(None, None)
        return Look(stamp, row[3] if row and row[:3] == stamp else None)


@contextlib.contextmanager
def open_known(cache: Path) -> Iterator[Known | None]:
    """The index in a cache folder; None where there can be none."""
    try:
        connection = sqlite3.connect(cache / FILE, timeout=WAIT_S)
    except sqlite3.Error:
        yield None
        return
    with contextlib.closing(connection):
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files"
                " (path BLOB PRIMARY KEY, size INT, changed INT, touched INT, digest BLOB) WITHOUT ROWID"
            )
        except sqlite3.Error:
            yield None
            return
        yield Known(connection)


def _key(path: str) -> bytes:
    return os.fsencode(path)
