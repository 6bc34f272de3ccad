"""What is kept between jobs, listed and cleared: features, exported networks, unpacked archives.

What a live process uses is left alone: a store by the lock on its file `in_use`, see `store.py`, an exported network or an
unpacked archive by the one beside it, see `data/in_use.py`. What is cleared is renamed first, so that no job ever finds half
of it. A cache may lie in a folder of the user's, as with `--cache .`: what is ours there is told by its name.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.data.in_use import mark_of
from rehead.durable import FULL
from rehead.errors import StoreError
from rehead.features.store import count_photos

OF_BACKBONES = ("features", "prefixes")  # whose folders say in a file what they are of
INDICES = ("files-[0-9].sqlite", "facts-[0-9].sqlite")  # of `data/known.py` and `auditing/kept.py`, of any format
OF_NONE = ("archives", "shards", "backbones")  # the last has what was found out of all of them
OURS = {  # room -> the names that are given to folders there; others are the user's
    "features": r"[0-9a-f]{32}-.+-.+",  # by `extraction.py`
    "prefixes": r"[0-9a-f]{32}(-int8-.+)?",  # `nets/card.py`, `exporting/prefixes.py`
    "archives": r"[0-9a-f]{64}",  # `data/archives.py`
    "shards": r"[0-9a-f]{32}",  # `data/shards.py`
    "backbones": r"\d+\.[\w.+]+",  # `nets/listing.py`
}
PART = re.compile(r"\.(.+[.-])?[0-9a-f]{12}\.part")  # `durable.py`, `data/addresses.py`, and what is cleared here
LEFT_OVER_S = 3600.0  # a hidden *.part folder in which nothing was written for so long is of a killed job


@dataclass(frozen=True)
class StoreFacts:
    """One feature store. last_used: seconds since 1970. size_bytes: on disk.

    cut, fit, view: the layer whose output is kept, how pictures become its input, such as "crop 224", and how they are seen,
    with the precision where that is not float32.
    """

    identity: str
    backbone: str
    cut: str
    fit: str
    view: str
    photos: int
    size_bytes: int
    last_used: float


@dataclass(frozen=True)
class Cleared:
    """What clearing did. kept_in_use: folders that a running job uses. matched: folders that were to be cleared."""

    freed_bytes: int
    kept_in_use: int
    matched: int


def cache_folder(asked: str | os.PathLike[str] | None) -> Path:
    """The folder that was asked for, or the default one. Raises StoreError for an empty name, or no home."""
    if asked is not None and not os.fspath(asked).strip():
        raise StoreError(
            what="The cache folder has an empty name.",
            fix="Name a folder, or leave --cache out; the current folder is `.`",
        )
    try:
        return default_cache_folder(os.environ) if asked is None else Path(asked).expanduser()
    except RuntimeError as error:  # of pathlib: there is no such user, or no HOME
        raise StoreError(
            what="Where the cache folder lies is not known.",
            why=str(error),
            fix="Name a folder that you may write to: --cache DIR, or REHEAD_CACHE.",
        ) from error


def default_cache_folder(environment: Mapping[str, str]) -> Path:
    """REHEAD_CACHE, or the user's cache folder as the system has it."""
    if given := environment.get("REHEAD_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "rehead"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rehead"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rehead"


def check_writable(cache: Path) -> None:
    """Makes the cache folder. Raises StoreError when nothing can be written there."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        if error.errno in FULL:
            return  # a full disk is told of by whoever needs room, with how much
        raise StoreError(
            what=f"The cache folder {cache} cannot be written.",
            why=error.strerror or str(error),
            fix="Name a folder that you may write to: --cache DIR, or REHEAD_CACHE.",
        ) from error


def list_stores(cache: Path) -> list[StoreFacts]:
    """The feature stores, the largest first."""
    stores = [_facts(folder) for folder in _folders(cache / "features") if not _is_part(folder)]
    return sorted(stores, key=lambda store: -store.size_bytes)


def other_bytes(cache: Path) -> int:
    """Bytes of exported networks, unpacked archives, what is known of files, shards and backbones, and what killed jobs left
    over."""
    parts = [folder for folder in _folders(cache / "features") if _is_part(folder)]
    indices = sum(_length(path) for index in INDICES for path in cache.glob(f"{index}*"))
    others = [folder for room in ("prefixes", *OF_NONE) for folder in _folders(cache / room)]
    return indices + sum(_size(folder) for folder in [*others, *parts])


def clear(cache: Path, *, backbone: str | None = None, older_than_s: float | None = None) -> Cleared:
    """Removes what matches of what rehead made: by backbone (patterns allowed), and by the time since it was last used.

    Archives, and what killed jobs left over, are removed only when no backbone is named; what is known of files when all is
    to go, as nobody knows when it was of use. Raises StoreError when something cannot be removed.
    """
    freed = in_use = matched = 0
    for folder in _matching(cache, backbone, older_than_s):
        matched += 1
        size_bytes = _size(folder)
        if _removed(folder):
            freed += size_bytes
        else:
            in_use += 1
    everything = backbone is None and older_than_s is None
    for index in (path for name in INDICES for path in cache.glob(name)) if everything else ():
        freed_bytes = _emptied(index)
        matched, in_use = matched + (freed_bytes != 0), in_use + (freed_bytes is None)
        freed += freed_bytes or 0
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
    for folder in (folder for room in rooms for folder in _folders(cache / room)):
        about = _about(folder) if folder.parent.name in OF_BACKBONES else {}  # in an archive it is the user's
        name = str(about.get("backbone") or about.get("name") or "")
        if backbone is not None and (_is_part(folder) or not fnmatch.fnmatchcase(name, backbone)):
            continue
        if _is_part(folder) and time.time() - _last_written(folder) < LEFT_OVER_S:
            continue
        if older_than_s is not None and time.time() - _last_used(folder, about) < older_than_s:
            continue
        yield folder


def _facts(folder: Path) -> StoreFacts:
    about = _about(folder)
    return StoreFacts(
        identity=folder.name,
        backbone=str(about.get("backbone", "unknown")),
        cut=str(about.get("cut", "")),
        fit=_fit(about.get("preprocess")),
        view=" ".join(str(word) for name in ("view", "precision") if (word := about.get(name)) not in (None, "fp32")),
        photos=count_photos(folder),
        size_bytes=_size(folder),
        last_used=_last_used(folder, about),
    )


def _fit(preprocess: Any) -> str:
    """'crop 224', 'pad 96x128'; empty where the store does not say."""
    if not isinstance(preprocess, dict):
        return ""
    height, width = preprocess.get("height"), preprocess.get("width")
    return f"{preprocess.get('fit')} {height}{f'x{width}' * (width != height)}"


def _about(folder: Path) -> dict[str, Any]:
    for name in ("about.json", "card.json"):
        try:
            return dict(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return {}


def _last_used(folder: Path, about: Mapping[str, Any]) -> float:
    """As the folder says it, or the file beside it that is touched at each use, see `data/in_use.py`."""
    used = about.get("last_used")
    if isinstance(used, (int, float)):
        return float(used)
    with contextlib.suppress(OSError):
        return mark_of(folder).stat().st_mtime
    return _last_written(folder)


def _folders(room: Path) -> list[Path]:
    """The folders of ours in a room, left-overs of killed jobs included. Raises StoreError for a room of another user's."""
    try:
        return sorted(path for path in room.iterdir() if path.is_dir() and _is_ours(path)) if room.is_dir() else []
    except OSError as error:
        raise StoreError(what=f"{room} cannot be listed.", why=f"{error.strerror or error}.") from error


def _is_ours(folder: Path) -> bool:
    """Whether rehead made this folder of a room. A version's facts of backbones are files of JSON and nothing else."""
    room = folder.parent.name
    if room == "backbones" and any(path.suffix not in (".json", ".part") for path in folder.glob("*")):
        return False
    return _is_part(folder) or re.fullmatch(OURS[room], folder.name) is not None


def _is_part(folder: Path) -> bool:
    """Whether this is a folder that a job was filling or removing."""
    return PART.fullmatch(folder.name) is not None


def _last_written(folder: Path) -> float:
    return max((status.st_mtime for status in _walk(folder)), default=0.0)


def _size(folder: Path) -> int:
    """Bytes on disk. Where a file system does not tell them: bytes in files."""
    return sum(512 * status.st_blocks if hasattr(status, "st_blocks") else status.st_size for status in _walk(folder))


def _length(path: Path) -> int:
    """Bytes in a file, 0 where it vanished meanwhile, as a journal does."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _walk(folder: Path) -> Iterator[os.stat_result]:
    """Of the folder and all files below it; what vanishes meanwhile is left out."""
    for root, _, names in os.walk(folder):
        for path in [root, *(os.path.join(root, name) for name in names)]:
            with contextlib.suppress(OSError):
                yield os.lstat(path)
