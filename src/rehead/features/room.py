"""Room on the disk: what a feature takes there, and what is said where there is none, no right to write, or else no use."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from rehead.data.room import free_bytes
from rehead.durable import FULL
from rehead.errors import DiskFull, StoreError, command

PAGE_BYTES, PAGE_HEADER_BYTES, ENTRY_BYTES = 4096, 16, 100  # LMDB's; of an entry, with its share of half-full pages

DAMAGE = ("CorruptedError", "InvalidError", "PageNotFoundError", "PanicError", "VersionMismatchError")  # LMDB's errors
LIMITS = {  # what is to be done, by LMDB's words or the system's
    "MDB_READERS_FULL": "Wait for other jobs that use it, or keep features elsewhere: --cache DIR, or REHEAD_CACHE.",
    os.strerror(errno.ENOMEM): "The whole store is mapped into memory: allow more of it; `ulimit -v` shows the limit.",
    os.strerror(errno.EMFILE): "Allow more files to be open; `ulimit -n` shows the limit.",
}
ELSEWHERE = "Keep features on a disk of this machine: --cache DIR, or REHEAD_CACHE."


def on_disk(n_bytes: int) -> int:
    """About what a value takes in the store: LMDB gives one that is larger than half a page pages of its own."""
    pages = -(-(n_bytes + PAGE_HEADER_BYTES) // PAGE_BYTES)
    return ENTRY_BYTES + (n_bytes if n_bytes <= PAGE_BYTES // 2 else pages * PAGE_BYTES)


def disk_full(folder: Path, needed_bytes: int, purpose: str = "features") -> DiskFull:
    """The error for a cache that has no room for so much; of a store in it, the cache's folder is named."""
    place = _cache_of(folder)
    return DiskFull(
        what=f"The disk of {place} is full.",
        why=shortage(needed_bytes, free_bytes(folder), purpose),
        fix=f"Free some with `{_clearing(place)}`, or keep features elsewhere with --cache DIR.",
    )


def _cache_of(folder: Path) -> Path:
    """The cache that a store is in; of another folder, itself."""
    return folder.parent.parent if folder.parent.name == "features" else folder


def _clearing(cache: Path) -> str:
    """The command that clears this cache, from any folder and whatever REHEAD_CACHE is where it is typed."""
    return command("cache", "clear", "--cache", cache.absolute())


def shortage(needed_bytes: int, free_bytes: int, purpose: str) -> str:
    """'16.8 MB were needed for features; 7.9 MB are free.', with as many decimals as tell the two apart."""
    needed = free = ""
    for decimals in range(1, 7):
        needed, free = f"{needed_bytes / 1e6:.{decimals}f} MB", f"{free_bytes / 1e6:.{decimals}f} MB"
        if needed != free:
            break
    return f"{needed} were needed for {purpose}; {free} are free."


def cannot_write(folder: Path, error: Exception) -> StoreError:
    return StoreError(
        what=f"The feature store {folder} cannot be written.",
        why=getattr(error, "strerror", None) or str(error),
        fix="Name a folder that you may write to: --cache DIR, or REHEAD_CACHE.",
    )


def damaged(folder: Path, reason: object) -> StoreError:
    return StoreError(
        what=f"The feature store in {folder} is damaged.",
        why=str(reason),
        fix=f"Remove it with `{_clearing(_cache_of(folder))}`; its features are computed again when they are needed.",
    )


def named(folder: Path, error: Any, needed_bytes: int) -> StoreError:
    """Our error for one of LMDB's. needed_bytes: what was to be written."""
    import lmdb

    said = [number for number in (*FULL, errno.EIO, errno.EACCES) if os.strerror(number) in str(error)]
    is_short = errno.EIO in said and free_bytes(folder) < needed_bytes  # half a write is all that fitted
    if errno.EFBIG in said:
        limit = "Files may not grow so large here; `ulimit -f` shows the limit."
        return cannot_write(folder, OSError(errno.EFBIG, limit))
    if is_short or isinstance(error, lmdb.DiskError) or FULL.intersection(said):
        return disk_full(folder, needed_bytes)
    if isinstance(error, lmdb.LockError):  # it tells processes apart by their numbers
        return StoreError(
            what=f"The feature store {folder} cannot be used: a process with the same number uses it.",
            why="So it is where containers that number their processes each for itself share a cache.",
            fix="Let them share the numbers too (docker run --pid=host), or give each its own: --cache DIR, or REHEAD_CACHE.",
        )
    if said or isinstance(error, lmdb.ReadonlyError):
        return cannot_write(folder, error)
    if isinstance(error, tuple(getattr(lmdb, name) for name in DAMAGE)):
        return damaged(folder, error)
    return StoreError(
        what=f"The feature store {folder} cannot be used.",
        why=f"{error}.",
        fix=next((fix for words, fix in LIMITS.items() if words in str(error)), ELSEWHERE),
    )
