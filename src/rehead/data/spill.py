"""Numbers that may be many: the first of them are in memory, more lie in a file without a name, which is mapped: the system
keeps in memory what it has room for.

Where no file can be had, or its disk is full, all of them stay in memory.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 20  # of numbers of one kind that are written at once; fewer are in memory alone
LARGE_BYTES = 16 << 20  # of an array, from which on it is in a file

Kind = Literal["B", "i", "q"]  # bytes, int32, int64

_folder: Path | None = None


def spill_into(folder: Path | None) -> None:
    """From now on this process makes its files in this folder; None: where the system has such files. A system may keep the
    latter in memory."""
    global _folder
    _folder = folder


class Numbers:
    """Numbers of one kind, one behind the other. Several threads may read at once, when all are added."""

    def __init__(self, kind: Kind, spills: bool = True) -> None:
        """spills: whether many are put into a file; a file for each of very many would be more than a process may open."""
        self.kind = kind
        self._tail = array(kind)
        # How many are in the file; these, where they were mapped since the last were added; the others.
        self._parts: tuple[int, Any, array[int]] = 0, None, self._tail
        self._most = max(1, BLOCK_BYTES // self._tail.itemsize) if spills else sys.maxsize  # in memory
        self._file: Any = None
        self._lock = threading.Lock()

    def append(self, number: int) -> None:
        self._tail.append(number)
        if len(self._tail) >= self._most:
            self._spill()

    def extend(self, numbers: bytes) -> None:
        """Adds numbers of the same kind, end to end in memory."""
        step = self._tail.itemsize * max(1, BLOCK_BYTES // self._tail.itemsize)
        for start in range(0, len(numbers), step):
            self._tail.frombytes(numbers[start : start + step])
            if len(self._tail) >= self._most:
                self._spill()

    def __getitem__(self, i: int) -> int:
        """The number at a place, 0 and up."""
        n, stored, tail = self._parts
        if i >= n:
            return tail[i - n]
        number: int = (stored or self._mapped())[i]
        return number

    def two(self, i: int) -> tuple[int, int]:
        """The numbers at a place and behind it."""
        n, stored, tail = self._parts
        if i + 1 >= n:
            return self[i], tail[i + 1 - n]
        stored = stored or self._mapped()
        return stored[i], stored[i + 1]

    def data(self, begin: int, end: int) -> bytes:
        """Of bytes, those from one place to another."""
        n, stored, tail = self._parts
        if begin >= n:
            return tail[begin - n : end - n].tobytes()
        if end <= n:
            found: bytes = (stored or self._mapped())[begin:end]
            return found
        return bytes((stored or self._mapped())[begin:n]) + tail[: end - n].tobytes()

    def __len__(self) -> int:
        n, _, tail = self._parts
        return n + len(tail)

    def all(self) -> NDArray[Any]:
        """All of them, (n,), to be read only."""
        if self._parts[0] and len(self._parts[2]) and self._most != sys.maxsize:
            self._spill()
        return self._from(0, len(self))

    def blocks(self, begin: int = 0, end: int | None = None) -> Iterator[NDArray[Any]]:
        """Those from one place to another, some at a time."""
        end = len(self) if end is None else min(end, len(self))
        step = max(1, BLOCK_BYTES // self._tail.itemsize)
        for start in range(begin, end, step):
            yield self._from(start, min(start + step, end))

    def _from(self, begin: int, end: int) -> NDArray[Any]:
        n, stored, tail = self._parts
        parts = [np.array(tail[max(0, begin - n) : end - n], self.kind)] if end > n or begin == end else []
        if begin < n:
            parts.insert(0, np.frombuffer(stored or self._mapped(), self.kind, n)[begin:end])
        some = parts[0] if len(parts) == 1 else np.concatenate(parts)
        some.flags.writeable = False
        return some

    def __reduce__(self) -> tuple[Any, ...]:
        return _numbers, (self.kind, self.all().tobytes())

    def _mapped(self) -> Any:
        """Those in the file, mapped once they are read: some systems write all to the disk whenever a file is mapped."""
        with self._lock:
            n, stored, tail = self._parts
            if stored is None:
                stored = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
                if self.kind != "B":  # a map gives bytes, and faster than a view of it
                    stored = memoryview(stored)[: n * tail.itemsize].cast(self.kind)
                self._parts = n, stored, tail
            return stored

    def _spill(self) -> None:
        """Writes those in memory behind those in the file; who reads sees them in one or the other."""
        with self._lock:
            n, _, tail = self._parts
            if not len(tail):
                return
            try:
                if self._file is None:
                    self._file = _file_in(_folder)
                    weakref.finalize(self, self._file.close)
                self._file.seek(n * tail.itemsize)
                data = memoryview(tail).cast("B")
                while data:
                    data = data[self._file.write(data) :]
            except (OSError, ValueError):
                self._most = sys.maxsize
                return
            self._tail = array(self.kind)
            self._parts = n + len(tail), None, self._tail


def _numbers(kind: Kind, data: bytes) -> Numbers:
    numbers = Numbers(kind)
    numbers.extend(data)
    return numbers


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array that is yet to be filled; a large one is in a file, where room can be taken for it."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes >= LARGE_BYTES and hasattr(os, "posix_fallocate"):
        try:
            return mapped(shape, dtype, _folder)
        except OSError:
            pass
    return np.empty(shape, dtype)


def mapped(shape: tuple[int, ...], dtype: Any, folder: Path | None) -> NDArray[Any]:
    """An array on a file without a name. Its room is taken now: a memory map that meets a full disk kills. Raises OSError."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    with _file_in(folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        return np.memmap(file, dtype, "w+", shape=shape)


def let_go(array: NDArray[Any]) -> None:
    """No page of an array that `mapped` made need stay in the memory of this process; the system keeps what it has room for."""
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _file_in(folder: Path | None) -> Any:
    return tempfile.TemporaryFile(dir=folder, prefix=".map-", suffix=".part", buffering=0)
