"""Clearing what is kept between jobs.

What a live process uses is left alone: a store by the lock on its file `in_use`, see `store.py`, an exported network or an
unpacked archive by the one beside it, see `data/in_use.py`. What is cleared is renamed first, so that no job ever finds half
of it.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rehead.data.in_use import mark_of
from rehead.errors import StoreError
from rehead.features.cache import (
    INDICES,
    OF_BACKBONES,
    OF_NONE,
    about_of,
    folders,
    is_part,
    last_used,
    last_written,
    size_of,
)

LEFT_OVER_S = 3600.0  # a hidden *.part folder in which nothing was written for so long is of a killed job


@dataclass(frozen=True)
class Cleared:
    """What clearing did. kept_in_use: folders that a running job uses. matched: folders that were to be cleared."""

    freed_bytes: int
    kept_in_use: int
    matched: int


def clear(cache: Path, *, backbone: str | None = None, older_than_s: float | None = None) -> Cleared:
    """Removes what matches of what rehead made: by backbone (patterns allowed), and by the time since it was last used.

    Archives, and what killed jobs left over, are removed only when no backbone is named; what is known of files when all is
    to go, as nobody knows when it was of use. Raises StoreError when something cannot be removed, after all else is.
    """
    freed = in_use = matched = 0
    errors = list[StoreError]()
    for folder in _matching(cache, backbone, older_than_s):
        matched += 1
        size_bytes = size_of(folder)
        try:
            is_removed = _removed(folder)
        except StoreError as error:
            errors.append(error)
            continue
        freed, in_use = freed + size_bytes * is_removed, in_use + (not is_removed)
    everything = backbone is None and older_than_s is None
    for index in (path for name in INDICES for path in cache.glob(name)) if everything else ():
        freed_bytes = _emptied(index)
        matched, in_use = matched + (freed_bytes != 0), in_use + (freed_bytes is None)
        freed += freed_bytes or 0
    if errors:
        others = f" {len(errors) - 1} more of its kind cannot either." if len(errors) > 1 else ""
        rest = " All else was." if matched > len(errors) + in_use else ""
        raise StoreError(what=errors[0].what + others + rest, why=errors[0].why, fix=errors[0].fix)
    return Cleared(freed, in_use, matched)


def _emptied(index: Path) -> int | None:
    """How many bytes an index gave back, None where another process writes to it. It is not removed: a job that has it open
    would go on with a file that is gone, and its journal be taken for that of the next. Raises StoreError where it may not be
    written. The journal is in memory: on a full disk there is no room for one."""
    before = index.stat().st_size
    try:
        with contextlib.closing(sqlite3.connect(index, timeout=0)) as connection:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA temp_store = MEMORY")
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                connection.execute(f'DELETE FROM "{table}"')
            connection.commit()
            connection.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # the rest says which of them
            return None
        raise StoreError(what=f"{index} cannot be emptied.", why=f"{error}.") from error
    except sqlite3.DatabaseError:  # it is none
        index.unlink(missing_ok=True)
        return before
    return before - index.stat().st_size


def _removed(folder: Path) -> bool:
    """Whether the folder is gone; it is left when a process uses it. Raises StoreError where it cannot be removed."""
    condemned = folder.with_name(f".{uuid.uuid4().hex[:12]}.part")
    try:
        with contextlib.ExitStack() as lock:
            if not _locked(folder, lock):
                return False
            _check_removable(folder)
            folder.rename(condemned)
            mark_of(folder).unlink(missing_ok=True)
    except FileNotFoundError:  # cleared by another
        return True
    except PermissionError as error:
        if sys.platform == "win32":  # which refuses this for a folder with an open file
            return False
        raise _cannot_remove(folder, error) from error
    except OSError as error:
        raise _cannot_remove(folder, error) from error
    try:
        shutil.rmtree(condemned)
    except OSError as error:  # it was looked at: what is left is hidden, and tried again by the next
        raise _cannot_remove(condemned, error) from error
    return True


def _check_removable(folder: Path) -> None:
    """Raises PermissionError where a folder from here down is another user's, who alone can take files out of it."""
    for place, _, _ in os.walk(folder):
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)


def _locked(folder: Path, lock: contextlib.ExitStack) -> bool:
    """Whether no process uses this folder. Then none begins to before `lock` is left."""
    if sys.platform == "win32":
        return True
    import fcntl

    mark = folder / "in_use" if folder.parent.name == "features" else mark_of(folder)
    descriptor = os.open(mark, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    lock.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network's disk without locks
        return True
    return os.path.samestat(os.fstat(descriptor), os.stat(mark))  # else it was cleared and made anew


def _cannot_remove(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        what=f"{folder} cannot be removed.",
        why=f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.",
        fix="It may be another user's, as of a container that ran as root: remove it as that user.",
    )


def _matching(cache: Path, backbone: str | None, older_than_s: float | None) -> Iterator[Path]:
    rooms = (*OF_BACKBONES, *(OF_NONE if backbone is None else ()))
    for folder in (folder for room in rooms for folder in folders(cache / room)):
        about = about_of(folder) if folder.parent.name in OF_BACKBONES else {}  # in an archive it is the user's
        name = str(about.get("backbone") or about.get("name") or "")
        if backbone is not None and (is_part(folder) or not fnmatch.fnmatchcase(name, backbone)):
            continue
        if is_part(folder) and time.time() - last_written(folder) < LEFT_OVER_S:
            continue
        if older_than_s is not None and time.time() - last_used(folder, about) < older_than_s:
            continue
        yield folder
