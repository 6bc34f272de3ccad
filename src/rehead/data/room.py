"""Whether the cache can be written, and how much is free on its disk. What features take is left to `features/room.py`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rehead.durable import FULL
from rehead.errors import StoreError


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


def free_bytes(folder: Path) -> int:
    """On the disk of a folder that need not be there, or not any more."""
    folder = folder.absolute()
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
