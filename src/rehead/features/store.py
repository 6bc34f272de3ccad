"""Activations by (image digest, prefix identity), memory-mapped and safe to be killed. No torch.

One LMDB environment for each prefix identity, so that freeing one frees its disk. A value is the raw little-endian
float16 of an array of fixed shape; numbers beyond float16's range are clipped to it. A value never changes: the first
that is put stays. Several processes and threads may use one store at once. While a store is open its process holds a
shared lock on the file `in_use` in its folder, which `clearing.py` asks for before it clears one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.data.spill import mapped
from rehead.durable import FULL, write_text
from rehead.errors import StoreError
from rehead.features.room import PAGE_BYTES, cannot_write, damaged, disk_full, named, on_disk

FIRST_MAP_BYTES = 64 << 20  # doubled whenever it is full; a sparse file, so an empty store costs nothing
MAX_READERS = 1024  # processes and threads that read at once
LARGEST = float(np.finfo(np.float16).max)
MEMORY_LIMIT_BYTES = 8 << 30  # features above this are read as a memory map
ROOM_TO_OPEN_BYTES = 1 << 20  # a new store's lock file is a memory map: with no room for it the process would be killed

T = TypeVar("T")


@dataclass
class _Shared:
    """An environment and who uses it in this process. lock: the map may not move while anyone looks at it."""

    environment: Any
    in_use: contextlib.ExitStack
    users: int = 1
    lock: threading.RLock = field(default_factory=threading.RLock)


_open: dict[Path, _Shared] = {}  # LMDB forbids to open a folder twice in one process
_open_lock = threading.Lock()


class Store:
    """A context manager. Not to be used across a fork; spawned processes open their own."""

    def __init__(self, folder: Path, shared: _Shared, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape
        self._shared = shared

    @classmethod
    def open(cls, cache: Path, identity: str, *, shape: tuple[int, ...], about: dict[str, Any]) -> Store:
        """The store of `identity`, made when it is not there. about: what decides its values, for people to read.

        Raises StoreError when the folder cannot be written or its file is damaged, DiskFull.
        """
        folder = cache.resolve() / "features" / identity
        try:
            return cls(folder, _acquire(folder, {**about, "shape": list(shape), "last_used": time.time()}), shape)
        except OSError as error:
            raise (
                disk_full(folder, ROOM_TO_OPEN_BYTES) if error.errno in FULL else cannot_write(folder, error)
            ) from error

    def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those of `digests` that have no value, in their order."""
        return self._within(lambda txn: [digest for digest in digests if txn.get(digest) is None])

    def has(self, digests: Sequence[bytes]) -> NDArray[np.bool_]:
        """Of each digest whether it has a value, (n,)."""
        return self._within(
            lambda txn: np.fromiter((txn.get(digest) is not None for digest in digests), bool, len(digests))
        )

    def put(self, pairs: Iterable[tuple[bytes, NDArray[Any]]]) -> None:
        """All of these values are kept, also after a power cut, or none. Raises DiskFull, StoreError (NaN, shape)."""
        rows = [(digest, self._encoded(digest, value)) for digest, value in pairs]
        if rows:
            self._within(lambda txn: _put(txn, rows), needed_bytes=sum(on_disk(len(data)) for _, data in rows))

    def read(
        self, digests: Sequence[bytes], *, dtype: Any = np.float32, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    ) -> NDArray[Any]:
        """The values as one contiguous array (n, *shape), float32 or float16, in the order asked.

        Above the limit it is a float16 memory map on a file that vanishes with it. Raises StoreError for absent ones.
        """
        size = (len(digests), *self.shape)
        fits = np.dtype(dtype).itemsize * math.prod(size) <= memory_limit_bytes
        values: NDArray[Any] = np.empty(size, dtype) if fits else self._mapped(size)
        self._within(lambda txn: self._fill(values.reshape(len(digests), math.prod(self.shape)), txn, digests))
        return values

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        with _open_lock:
            self._shared.users -= 1
            if not self._shared.users:
                del _open[self.folder]
                self._shared.environment.close()
                self._shared.in_use.close()

    def _fill(self, values: Any, txn: Any, digests: Sequence[bytes]) -> None:
        for i, digest in enumerate(digests):
            data = txn.get(digest)
            if data is None:
                raise StoreError(what=f"The store has no features for the photo {digest.hex()[:16]}.")
            if len(data) != 2 * values.shape[1]:
                raise damaged(self.folder, f"The features of the photo {digest.hex()[:16]} have another size.")
            values[i] = np.frombuffer(data, "<f2")

    def _encoded(self, digest: bytes, value: NDArray[Any]) -> bytes:
        if value.shape != self.shape:
            raise StoreError(what=f"Features of shape {value.shape} do not fit a store of {self.shape}.")
        if np.isnan(value).any():
            raise StoreError(
                what=f"The features of the photo {digest.hex()[:16]} are not numbers (NaN).",
                fix="The weights may be damaged: name others with --weights FILE, or another backbone.",
            )
        return bytes(np.clip(value, -LARGEST, LARGEST).astype("<f2").tobytes())

    def _within(self, work: Callable[[Any], T], *, needed_bytes: int = 0) -> T:
        """`work` in a transaction, one that writes if it needs room; again when the map had to grow."""
        import lmdb

        environment = self._shared.environment
        map_bytes: int | None = None  # to be asked for
        with self._shared.lock:
            while True:
                try:
                    if map_bytes is not None:
                        environment.set_mapsize(map_bytes)
                    _check_room(self.folder, environment, needed_bytes)
                    with environment.begin(write=needed_bytes > 0, buffers=True) as txn:
                        return work(txn)
                except FileNotFoundError as error:
                    raise _removed(self.folder) from error
                except lmdb.MapFullError:
                    map_bytes = 2 * environment.info()["map_size"]
                except lmdb.MapResizedError:  # another process made it larger
                    map_bytes = 0
                except lmdb.Error as error:
                    raise named(self.folder, error, needed_bytes) from error

    def _mapped(self, size: tuple[int, ...]) -> Any:
        """A float16 array on a file without a name. Its room is taken now: a memory map that meets a full disk kills."""
        n_bytes = 2 * math.prod(size)
        try:
            if shutil.disk_usage(self.folder).free < n_bytes:
                raise disk_full(self.folder, n_bytes)
            return mapped(size, np.float16, self.folder)
        except FileNotFoundError as error:
            raise _removed(self.folder) from error
        except OSError as error:
            raise (
                disk_full(self.folder, n_bytes) if error.errno in FULL else cannot_write(self.folder, error)
            ) from error


def _removed(folder: Path) -> StoreError:
    return StoreError(
        what=f"The store in {folder} was removed while it was in use.",
        why="What was computed since then is gone with it.",
        fix="Run it again; `rehead cache clear` leaves alone what is in use.",
    )


def count_photos(folder: Path) -> int:
    """How many photos have features in the store of this folder; 0 when it is damaged."""
    import lmdb

    with _open_lock:
        try:
            if shared := _open.get(folder.resolve()):
                with shared.lock:
                    return int(shared.environment.stat()["entries"])
            with lmdb.open(str(folder.resolve()), readonly=True, lock=False, create=False) as environment:
                return int(environment.stat()["entries"])
        except (lmdb.Error, OSError, UnicodeEncodeError):  # the last of a folder whose name is not UTF-8
            return 0


def _acquire(folder: Path, facts: dict[str, Any]) -> _Shared:
    """The environment of a folder, opened once in this process."""
    with _open_lock:
        if shared := _open.get(folder):
            shared.users += 1
            return shared
        with _announce(folder) as in_use:
            _write_facts(folder, facts)
            shared = _open[folder] = _Shared(_environment(folder), in_use.pop_all())
        return shared


def _announce(folder: Path) -> contextlib.ExitStack:
    """A shared lock that tells `cache clear` to leave this folder alone, for as long as it is open."""
    try:
        import fcntl
    except ImportError:  # Windows, where the file of an open store cannot be removed anyway
        folder.mkdir(parents=True, exist_ok=True)
        return contextlib.ExitStack()
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):  # exist_ok would look again, when it may be cleared
            folder.mkdir()
        try:
            descriptor = os.open(folder / "in_use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # cleared since
            continue
        with contextlib.suppress(OSError):  # a network's disk without locks: then clearing it is the user's risk
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / "in_use")):
                in_use = contextlib.ExitStack()
                in_use.callback(os.close, descriptor)
                return in_use
        os.close(descriptor)  # cleared while we waited for the lock


def _write_facts(folder: Path, facts: dict[str, Any]) -> None:
    if not (folder / "lock.mdb").exists() and shutil.disk_usage(folder).free < ROOM_TO_OPEN_BYTES:
        raise disk_full(folder, ROOM_TO_OPEN_BYTES)
    try:
        write_text(folder / "about.json", json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        if error.errno not in FULL or not (folder / "data.mdb").exists():
            raise  # a store that is there can still be read on a full disk


def _environment(folder: Path) -> Any:
    import lmdb

    file = folder / "data.mdb"
    try:
        environment = lmdb.open(str(folder), map_size=FIRST_MAP_BYTES, max_readers=MAX_READERS, mode=0o666)
    except lmdb.Error as error:
        raise named(folder, error, ROOM_TO_OPEN_BYTES) from error
    except UnicodeEncodeError as error:
        raise StoreError(
            what=f"Features cannot be kept in {folder}.",
            why="Its name is not UTF-8, and LMDB, which keeps features, opens no such folder.",
            fix="Name another folder with --cache DIR.",
        ) from error
    environment.reader_check()  # those of killed processes
    n_pages = environment.info()["last_pgno"] + 1
    if file.stat().st_size < n_pages * environment.stat()["psize"]:
        environment.close()  # reading past the end of a mapped file would kill the process
        raise damaged(folder, "The file is shorter than what it says it holds.")
    return environment


def _check_room(folder: Path, environment: Any, needed_bytes: int) -> None:
    """Before the disk is filled to the brim. What a write that failed has left at the file's end is used again."""
    spare = (folder / "data.mdb").stat().st_size - (environment.info()["last_pgno"] + 1) * PAGE_BYTES
    if needed_bytes and shutil.disk_usage(folder).free + spare < needed_bytes:
        raise disk_full(folder, needed_bytes)


def _put(txn: Any, rows: list[tuple[bytes, bytes]]) -> None:
    for digest, data in rows:
        txn.put(digest, data, overwrite=False)
