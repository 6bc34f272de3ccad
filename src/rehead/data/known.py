"""Digests of files, and of what is at addresses, that were read before: a second job reads none just to know which it is.

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

from rehead.data.rows import Stamp

FILE = "files-1.sqlite"  # the number is that of the table's format
RACY_S = 2.0  # the coarsest clock of a file system in use, FAT's
MAX_ASKED = 500  # at once; some builds of SQLite allow 999
WAIT_S = 5.0  # for another job that writes


@dataclass(frozen=True)
class Look:
    """A file as it was looked at: its stamp, None where it may not be remembered, and its digest where that is known."""

    stamp: Stamp | None
    digest: bytes | None


class Known:
    """An index of files. Not to be shared between threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def look(self, files: Sequence[tuple[str, Stamp | None] | None]) -> list[Look]:
        """What is known of each file or address, by its name and stamp; of None nothing is known.

        What changed so lately that it may change again without another time is not remembered.
        """
        racy_ns = time.time_ns() - int(RACY_S * 1e9)
        stamps = {file[0]: file[1] for file in files if file and file[1] and max(file[1][1:]) <= racy_ns}
        known = self._rows([_key(name) for name in stamps])
        looks: dict[str, Look] = {}
        for name, stamp in stamps.items():
            row = known.get(_key(name))
            looks[name] = Look(stamp, row[3] if row and row[:3] == stamp else None)
        return [looks.get(file[0], Look(None, None)) if file else Look(None, None) for file in files]

    def remember(self, files: Sequence[tuple[str, Stamp, bytes]]) -> None:
        """Keeps (path, its stamp before it was read, its digest)."""
        rows = [(_key(path), *stamp, digest) for path, stamp, digest in files]
        with contextlib.suppress(sqlite3.Error), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)

    def _rows(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, int, int, bytes]]:
        """What is kept of these paths, those of a chunk at once: one question for each takes four times as long."""
        rows: dict[bytes, tuple[int, int, int, bytes]] = {}
        for start in range(0, len(keys), MAX_ASKED):
            asked = keys[start : start + MAX_ASKED]
            question = (
                f"SELECT path, size, changed, touched, digest FROM files WHERE path IN ({','.join('?' * len(asked))})"
            )
            with contextlib.suppress(sqlite3.Error):
                rows |= {row[0]: row[1:] for row in self._connection.execute(question, asked)}
        return rows


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


def stamp_of(file: str) -> Stamp | None:
    """None where a file is not there."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _key(path: str) -> bytes:
    return os.fsencode(path)
