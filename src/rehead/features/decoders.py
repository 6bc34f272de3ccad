"""Photos decoded beside a device, by processes: threads would wait for the interpreter's lock more than they decode.

Seen on 16 cores beside an H200: threads decode 1,700 photos a second whatever their number, one process alone 290
(`benchmarks/gpu.py`). On the CPU the network is what takes time, and threads suffice.

Little goes through the pipes between processes: a photo that is a file is read by the process that decodes it, and pixels, or
files that the device decodes, come back in memory that both see. That is an anonymous file (memfd) of the process that
asks, so nothing is left behind by whatever is killed; a system without such files gets its pixels pickled.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.errors import PhotoError
from rehead.features.jpegs import Jpeg
from rehead.parallel import batched, n_cores

FEW_CORES = 8  # below which processes cost more than the lock does
FEW_PHOTOS = 2_000  # below which they are hardly there before the work is done
IDLE_S = 30.0  # after which a process that has nothing to do leaves
PART = 32  # photos a process is asked for at once: a tenth of a second, beside which asking costs little

Job = TypeVar("Job", bound=tuple[Any, ...])
Found = NDArray[np.uint8] | Jpeg | PhotoError | OSError
Decode = Callable[[Sequence[Job]], Sequence[Found]]


@dataclass(frozen=True)
class File:
    """A file that stands in a job in place of its bytes. digest: BLAKE3 of what it must hold, 32 bytes; else, and where it
    cannot be read, `read` is asked, which stays in this process."""

    path: str
    digest: bytes
    read: Callable[[], bytes] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return File, (self.path, self.digest)


@dataclass(frozen=True)
class Processes(Generic[Job]):
    """`decode`, done by processes; by this one where they are gone, as when memory ran out. The first of a job is the bytes
    of a photo, or a `File`.

    decode: a function of a module, or a partial of one, whose arguments and errors can be pickled.
    """

    decode: Decode[Job]

    def __call__(self, jobs: Sequence[Job]) -> list[Found]:
        """The pixels (h, w, 3) of each, or a file that a device decodes, or why there are none: also the OSError of a file."""
        pool = executor()
        with contextlib.ExitStack() as memories:
            try:
                parts = []
                for part in batched(jobs, PART):
                    memory = memories.enter_context(_shared())
                    parts.append((memory, pool.submit(_into, _name(memory), self.decode, part)))
                found = [one for memory, part in parts for one in _taken(memory, part.result())]
            except BrokenProcessPool:
                forget(pool)
                found = [None] * len(jobs)
        absent = [i for i, one in enumerate(found) if one is None]
        for i, one in zip(absent, self._here([jobs[i] for i in absent]), strict=True):
            found[i] = one
        return found

    def _here(self, jobs: Sequence[Job]) -> list[Found]:
        read = [_read(job) for job in jobs]
        decoded = iter(self.decode(cast("list[Job]", [job for job in read if isinstance(job, tuple)])))
        return [next(decoded) if isinstance(job, tuple) else job for job in read]


def beside(device: str, n_photos: int, decode: Decode[Job]) -> Decode[Job]:
    """`decode`, or the same done by processes: where photos are decoded for a device, on cores enough and photos enough."""
    if device == "cpu" or n_cores() < FEW_CORES or n_photos < FEW_PHOTOS:
        return decode
    return Processes(decode)


def bytes_or_file(decode: Decode[Any], catalog: Catalog, photo: Photo) -> bytes | File:
    """What a job for `decode` holds of a photo: the file where it is one and processes may read it, else its bytes."""
    path = catalog.file(photo) if isinstance(decode, Processes) else None
    return catalog.read(photo) if path is None else File(path, photo.digest, functools.partial(catalog.read, photo))


_lock = threading.Lock()
_pools: list[Any] = []  # one, or none


def executor() -> Any:
    """As many processes as cores, the same for all threads that ask. They do not import the program's main module, which need
    not be ready for that; they leave by themselves when they have nothing to do. Ctrl-C is for the main process to hear."""
    from joblib.externals.loky import ProcessPoolExecutor

    with _lock:
        if not _pools:
            _pools.append(
                ProcessPoolExecutor(
                    n_cores(), timeout=IDLE_S, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
                )
            )
        return _pools[0]


def forget(pool: Any) -> None:
    """The next one who asks is given others, where it is these that are given."""
    with _lock:
        if pool in _pools:
            _pools.remove(pool)


def _read(job: Any) -> tuple[Any, ...] | PhotoError | OSError:
    """The job with the bytes in place of the file."""
    if not isinstance(job[0], File):
        return tuple(job)
    try:
        return (job[0].read(), *job[1:]) if job[0].read else job
    except (PhotoError, OSError) as error:
        return error


@contextlib.contextmanager
def _shared() -> Iterator[int | None]:
    """An anonymous file in memory, its descriptor; None where the system has none."""
    if not hasattr(os, "memfd_create"):
        yield None
        return
    memory = os.memfd_create("rehead")
    try:
        yield memory
    finally:
        os.close(memory)


Name = tuple[str, int]  # where another process opens the memory, and its inode: the descriptor may be another's by then


def _name(memory: int | None) -> Name | None:
    return None if memory is None else (f"/proc/{os.getpid()}/fd/{memory}", os.fstat(memory).st_ino)


@dataclass(frozen=True)
class _Lies:
    """In place of what lies in memory: the shape of pixels, or of a file, and what of it is seen."""

    shape: tuple[int, ...]
    file: Jpeg | None = None


def _taken(memory: int | None, found: list[Any]) -> list[Any]:
    """What `_into` found, pixels and files from memory: it is mapped for as long as one of them is there."""
    if memory is None or not any(isinstance(one, _Lies) for one in found):
        return found
    mapped, begin, taken = mmap.mmap(memory, 0), 0, []
    for one in found:
        if isinstance(one, _Lies):
            n_bytes = math.prod(one.shape)
            raw = np.frombuffer(mapped, np.uint8, n_bytes, begin).reshape(one.shape)
            begin += n_bytes
            taken.append(raw if one.file is None else replace(one.file, data=raw))
        else:
            taken.append(one)
    return taken


def _into(name: Name | None, decode: Decode[Any], jobs: list[Any]) -> list[Any]:
    """Runs in a process: what is found of the jobs, into the memory. Gives of each job that it lies there, why there is
    nothing, or None for a file that the one who asks has to read. Without memory what is found itself."""
    read = [(bytes_of(job[0]), *job[1:]) if isinstance(job[0], File) else job for job in jobs]
    decoded = iter(decode([job for job in read if job[0] is not None]))
    found = [None if job[0] is None else next(decoded) for job in read]
    raw = [_raw(one) for one in found if isinstance(one, np.ndarray | Jpeg)]
    if name is None or not raw or not _written(name, raw):
        return found
    return [
        _Lies(one.shape)
        if isinstance(one, np.ndarray)
        else _Lies((len(one.data),), replace(one, data=b""))
        if isinstance(one, Jpeg)
        else one
        for one in found
    ]


def _raw(one: NDArray[np.uint8] | Jpeg) -> bytes | memoryview:
    data = one.data if isinstance(one, Jpeg) else one
    return data if isinstance(data, bytes) else np.ascontiguousarray(data).data


def bytes_of(file: File) -> bytes | None:
    """The bytes of a file, None where it is not there, cannot be read, or holds others."""
    import blake3

    try:
        data = Path(file.path).read_bytes()
    except OSError:
        return None
    return data if blake3.blake3(data).digest() == file.digest else None


def _written(name: Name, raw: Sequence[bytes | memoryview]) -> bool:
    """Whether the memory could be written: it may be gone with the one who asked, and /proc may be another's."""
    path, inode = name
    try:
        with open(os.open(path, os.O_RDWR), "wb") as memory:
            if os.fstat(memory.fileno()).st_ino != inode:
                return False
            for one in raw:
                memory.write(one)
    except OSError:
        return False
    return True
