"""Activations by (image digest, prefix identity), memory-mapped and safe to be killed. No torch.

One LMDB environment for each prefix identity, so that freeing one frees its disk. A value is the raw little-endian
float16 of an array of fixed shape; numbers beyond float16's range are clipped to it. Several processes and threads may
use one store at once: one writes, all read. What is listed and cleared stands in `cache.py`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.durable import write_text
from rehead.errors import DiskFull, StoreError

FIRST_MAP_BYTES = 64 << 20  # doubled whenever it is full; a sparse file, so an empty store costs nothing
MAX_READERS = 1024  # processes and threads that read at once
LARGEST = float(np.finfo(np.float16).max)
MEMORY_LIMIT_BYTES = 8 << 30  # features above this are read as a memory map
PAGE_BYTES = 4096

T = TypeVar("T")
_open: dict[Path, tuple[Any, int]] = {}  # LMDB forbids to open a folder twice in one process
_lock = threading.RLock()


class Store:
    """A context manager. Not to be used across a fork; spawned processes open their own."""

    def __init__(self, folder: Path, environment: Any, shape: tuple[int, ...]) -> None:
        self.folder, self.shape = folder, shape
        self._environment = environment

    @classmethod
    def open(cls, cache: Path, identity: str, *, shape: tuple[int, ...], about: dict[str, Any]) -> Store:
        """The store of `identity`, made when it is not there. about: what decides its values, for people to read.

        Raises StoreError when the folder cannot be written or its file is damaged.
        """
        folder = (cache / "features" / identity).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            facts = {**about, "shape": list(shape), "last_used": time.time()}
            write_text(folder / "about.json", json.dumps(facts, indent=1) + "\n")
        except OSError as error:
            raise _cannot_write(folder, error) from error
        return cls(folder, _shared(folder), shape)

    def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those of `digests` that have no value, in their order."""
        with self._environment.begin(buffers=True) as reading:
            return [digest for digest in digests if reading.get(digest) is None]

    def put(self, pairs: Iterable[tuple[bytes, NDArray[Any]]]) -> None:
        """All of these values are kept, also after a power cut, or none. Raises DiskFull, StoreError."""
        rows = [(digest, self._encoded(digest, value)) for digest, value in pairs]
        if rows:
            self._retried(lambda: self._put(rows), sum(len(data) for _, data in rows))

    def read(self, digests: Sequence[bytes], *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> NDArray[Any]:
        """The values as one contiguous array (n, *shape) float32, in the order asked.

        Above the limit it is a float16 memory map on a file that vanishes with it. Raises StoreError for absent ones.
        """
        size = (len(digests), *self.shape)
        values: Any = np.empty(size, np.float32) if 4 * int(np.prod(size)) <= memory_limit_bytes else self._mapped(size)
        with self._environment.begin(buffers=True) as reading:
            for i, digest in enumerate(digests):
                data = reading.get(digest)
                if data is None:
                    raise StoreError(what=f"The store has no features for the photo {digest.hex()[:16]}.")
                values[i] = np.frombuffer(data, "<f2").reshape(self.shape)
        return values  # type: ignore[no-any-return]

    @property
    def count(self) -> int:
        """How many photos have features."""
        return int(self._environment.stat()["entries"])

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        with _lock:
            environment, users = _open[self.folder]
            if users > 1:
                _open[self.folder] = environment, users - 1
            else:
                del _open[self.folder]
                environment.close()

    def _encoded(self, digest: bytes, value: NDArray[Any]) -> bytes:
        if value.shape != self.shape:
            raise StoreError(what=f"Features of shape {value.shape} do not fit a store of {self.shape}.")
        if np.isnan(value).any():
            raise StoreError(
                what=f"The features of the photo {digest.hex()[:16]} are not numbers (NaN).",
                fix="Try --engine torch, or another backbone.",
            )
        return bytes(np.clip(value, -LARGEST, LARGEST).astype("<f2").tobytes())

    def _put(self, rows: list[tuple[bytes, bytes]]) -> None:
        with self._environment.begin(write=True) as writing:
            for digest, data in rows:
                writing.put(digest, data)

    def _retried(self, work: Callable[[], T], size_bytes: int) -> T:
        """`work`, again with a larger map when it is full, or with the size another process gave it."""
        import lmdb

        while True:
            try:
                return work()
            except lmdb.MapFullError:
                with _lock:
                    self._check_room(size_bytes)
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.MapResizedError:
                with _lock:
                    self._environment.set_mapsize(0)
            except (lmdb.DiskError, OSError) as error:
                raise self._full(size_bytes) from error
            except lmdb.Error as error:
                if os.strerror(errno.ENOSPC) in str(error) or os.strerror(errno.EFBIG) in str(error):
                    raise self._full(size_bytes) from error
                raise _damaged(self.folder, error) from error

    def _check_room(self, size_bytes: int) -> None:
        if shutil.disk_usage(self.folder).free < size_bytes:
            raise self._full(size_bytes)

    def _full(self, size_bytes: int) -> DiskFull:
        free = shutil.disk_usage(self.folder).free
        return DiskFull(
            what=f"The disk of {self.folder} is full.",
            why=f"{2 * size_bytes / 1e6:.1f} MB were needed for the next features; {free / 1e6:.1f} MB are free.",
            fix="Free some with `rehead cache clear`, or keep features elsewhere with --cache DIR.",
        )

    def _mapped(self, size: tuple[int, ...]) -> Any:
        path = self.folder / f".{os.getpid()}-{threading.get_ident()}.map"
        try:
            values = np.memmap(path, np.float16, "w+", shape=size)
        except OSError as error:
            raise self._full(2 * int(np.prod(size))) from error
        path.unlink()
        return values


def _shared(folder: Path) -> Any:
    """The environment of a folder, opened once in this process."""
    import lmdb

    with _lock:
        if folder in _open:
            environment, users = _open[folder]
            _open[folder] = environment, users + 1
            return environment
        try:
            file = folder / "data.mdb"
            size = max(FIRST_MAP_BYTES, file.stat().st_size) if file.exists() else FIRST_MAP_BYTES
            environment = lmdb.open(
                str(folder), map_size=size, max_readers=MAX_READERS, metasync=False, max_spare_txns=8
            )
            environment.reader_check()
        except lmdb.Error as error:
            if isinstance(error, (lmdb.ReadonlyError, lmdb.DiskError)) or "ermission" in str(error):
                raise _cannot_write(folder, error) from error
            raise _damaged(folder, error) from error
        last_page = environment.info()["last_pgno"]
        if file.stat().st_size < last_page * environment.stat()["psize"]:
            environment.close()  # reading past the end of a mapped file would kill the process
            raise _damaged(folder, "the file is shorter than what it says it holds")
        _open[folder] = environment, 1
        return environment


def _damaged(folder: Path, error: object) -> StoreError:
    return StoreError(
        what=f"The feature store in {folder} is damaged.",
        why=str(error),
        fix="Remove it with `rehead cache clear`; its features are computed again when they are needed.",
    )


def _cannot_write(folder: Path, error: Exception) -> StoreError:
    return StoreError(
        what=f"The feature store {folder} cannot be written.",
        why=getattr(error, "strerror", None) or str(error),
        fix="Name a folder that you may write to: --cache DIR, or REHEAD_CACHE.",
    )
