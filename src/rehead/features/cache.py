"""What is kept between jobs, where, and how much: features, exported networks, unpacked archives. `clearing.py` clears it.

A cache may lie in a folder of the user's, as with `--cache .`: what is ours there is told by its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.data.in_use import mark_of
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


def list_stores(cache: Path) -> list[StoreFacts]:
    """The feature stores, the largest first."""
    stores = [_facts(folder) for folder in folders(cache / "features") if not is_part(folder)]
    return sorted(stores, key=lambda store: -store.size_bytes)


def other_bytes(cache: Path) -> int:
    """Bytes of exported networks, unpacked archives, what is known of files, shards and backbones, and what killed jobs left
    over."""
    parts = [folder for folder in folders(cache / "features") if is_part(folder)]
    indices = sum(_length(path) for index in INDICES for path in cache.glob(f"{index}*"))
    others = [folder for room in ("prefixes", *OF_NONE) for folder in folders(cache / room)]
    return indices + sum(size_of(folder) for folder in [*others, *parts])


def _facts(folder: Path) -> StoreFacts:
    about = about_of(folder)
    return StoreFacts(
        identity=folder.name,
        backbone=str(about.get("backbone", "unknown")),
        cut=str(about.get("cut", "")),
        fit=_fit(about.get("preprocess")),
        view=" ".join(str(word) for name in ("view", "precision") if (word := about.get(name)) not in (None, "fp32")),
        photos=count_photos(folder),
        size_bytes=size_of(folder),
        last_used=last_used(folder, about),
    )


def _fit(preprocess: Any) -> str:
    """'crop 224', 'pad 96x128'; empty where the store does not say."""
    if not isinstance(preprocess, dict):
        return ""
    height, width = preprocess.get("height"), preprocess.get("width")
    return f"{preprocess.get('fit')} {height}{f'x{width}' * (width != height)}"


def about_of(folder: Path) -> dict[str, Any]:
    for name in ("about.json", "card.json"):
        try:
            return dict(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
    return {}


def last_used(folder: Path, about: Mapping[str, Any]) -> float:
    """As the folder says it, or the file beside it that is touched at each use, see `data/in_use.py`."""
    used = about.get("last_used")
    if isinstance(used, (int, float)):
        return float(used)
    with contextlib.suppress(OSError):
        return mark_of(folder).stat().st_mtime
    return last_written(folder)


def folders(room: Path) -> list[Path]:
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
    return is_part(folder) or re.fullmatch(OURS[room], folder.name) is not None


def is_part(folder: Path) -> bool:
    """Whether this is a folder that a job was filling or removing."""
    return PART.fullmatch(folder.name) is not None


def last_written(folder: Path) -> float:
    return max((status.st_mtime for status in _walk(folder)), default=0.0)


def size_of(folder: Path) -> int:
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
