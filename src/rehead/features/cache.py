"""What is kept between jobs, listed and cleared: features, exported networks, unpacked archives.

A store that a live process has open is left alone: LMDB keeps its lock file locked as long as it is open.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.durable import remove_tree


@dataclass(frozen=True)
class StoreFacts:
    """One feature store. last_used: seconds since 1970. size_bytes: on disk."""

    identity: str
    backbone: str
    photos: int
    size_bytes: int
    last_used: float


@dataclass(frozen=True)
class Cleared:
    """What clearing did. kept_in_use: stores that a running job has open."""

    freed_bytes: int
    kept_in_use: int


def default_cache_folder(environment: Mapping[str, str]) -> Path:
    """REHEAD_CACHE, or the user's cache folder as the system has it."""
    if given := environment.get("REHEAD_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "rehead"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rehead"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rehead"


def list_stores(cache: Path) -> list[StoreFacts]:
    """The feature stores, the largest first."""
    stores = [_facts(folder) for folder in _folders(cache / "features")]
    return sorted(stores, key=lambda store: -store.size_bytes)


def other_bytes(cache: Path) -> int:
    """Bytes of exported networks and unpacked archives."""
    return sum(_size(cache / name) for name in ("prefixes", "archives"))


def clear(cache: Path, *, backbone: str | None = None, older_than_s: float | None = None) -> Cleared:
    """Removes what matches: by backbone (patterns allowed), and by the time since it was last used.

    Archives are removed only when no backbone is named.
    """
    freed = in_use = 0
    for folder in _matching(cache, backbone, older_than_s):
        if _is_open(folder):
            in_use += 1
            continue
        freed += _size(folder)
        remove_tree(folder)
    return Cleared(freed, in_use)


def _matching(cache: Path, backbone: str | None, older_than_s: float | None) -> Iterator[Path]:
    rooms = ["features", "prefixes"] + (["archives"] if backbone is None else [])
    for folder in (folder for room in rooms for folder in _folders(cache / room)):
        about = _about(folder)
        name = str(about.get("backbone") or about.get("name") or "")
        if backbone is not None and not fnmatch.fnmatchcase(name, backbone):
            continue
        if older_than_s is not None and time.time() - _last_used(folder, about) < older_than_s:
            continue
        yield folder


def _facts(folder: Path) -> StoreFacts:
    about = _about(folder)
    return StoreFacts(
        identity=folder.name,
        backbone=str(about.get("backbone", "unknown")),
        photos=_count(folder),
        size_bytes=_size(folder),
        last_used=_last_used(folder, about),
    )


def _count(folder: Path) -> int:
    """How many photos a store has; 0 when it is damaged."""
    import lmdb

    try:
        with lmdb.open(str(folder), readonly=True, lock=False, create=False) as environment:
            return int(environment.stat()["entries"])
    except lmdb.Error:
        return 0


def _is_open(folder: Path) -> bool:
    """Whether a live process has this store open: LMDB holds a shared lock on its lock file while it does."""
    lock = folder / "lock.mdb"
    if not lock.exists() or sys.platform == "win32":
        return False
    import fcntl

    with lock.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        except OSError:
            return True
        fcntl.lockf(file, fcntl.LOCK_UN, 1, 0)
    return False


def _about(folder: Path) -> dict[str, Any]:
    for name in ("about.json", "card.json"):
        try:
            return dict(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return {}


def _last_used(folder: Path, about: Mapping[str, Any]) -> float:
    used = about.get("last_used")
    return float(used) if isinstance(used, (int, float)) else folder.stat().st_mtime


def _folders(room: Path) -> list[Path]:
    """The folders in a room, left-overs of killed jobs included."""
    return sorted(path for path in room.iterdir() if path.is_dir()) if room.is_dir() else []


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += 512 * os.lstat(os.path.join(root, name)).st_blocks
            except (OSError, AttributeError):
                continue
    return total
