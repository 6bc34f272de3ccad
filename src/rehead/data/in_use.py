"""Which folders of the cache a running job uses: each has a file beside it with a shared lock on it, `.NAME.in_use`.

`features/clearing.py` asks for that lock before it clears a folder, and takes the file's time for that of the last use. It lies
beside the folder, as what is in an unpacked archive is the user's. A store of features has a lock of its own.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path


class InUse:
    """Says that a folder is used, now and for as long as anybody has this. The folder need not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        descriptor = _locked(mark_of(folder))
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)

    def forget(self) -> None:
        """Removes the file: of a folder that is gone, and that nobody else knew."""
        with contextlib.suppress(OSError):
            mark_of(self._folder).unlink()


def mark_of(folder: Path) -> Path:
    """The file with the lock."""
    return folder.with_name(f".{folder.name}.in_use")


def _locked(mark: Path) -> int | None:
    """The mark, opened and locked; None where there are no locks, or no file can be made: then nobody clears there either."""
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(mark, os.O_RDONLY | os.O_CREAT, 0o666)
            with contextlib.suppress(OSError):  # another user's
                os.utime(mark)
            if _is_locked(descriptor, mark):
                return descriptor
            os.close(descriptor)
            if os.name == "nt":
                return None
    except OSError:
        return None


def _is_locked(descriptor: int, mark: Path) -> bool:
    """Whether the mark is locked; not where it was cleared while we waited for that."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with contextlib.suppress(OSError):  # a network's disk without locks: then clearing it is the user's risk
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(mark))
    return False
