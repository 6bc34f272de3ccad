"""Catalog -> decode -> engine -> store. What is in the store already is not computed again.

Here (`by_engine`), each thread decodes a batch and runs the engine on it, so decoding and running share the cores without
waiting for each other, and memory holds a few batches whatever the number of photos; other machines do it in their own way
(`cluster/`). What is computed is kept by `extract`, whoever computed it: another thread writes, so that nobody waits for the
disk. A bad photo is listed and skipped. Which photos, in which order, and when to stop is decided above.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rehead.data import far
from rehead.data.catalog import Catalog
from rehead.data.rows import Skip
from rehead.errors import PhotoError
from rehead.features.bad import check_bad, skip_of
from rehead.features.decoders import Decode, File, bytes_or_file
from rehead.features.engines import Engine
from rehead.features.jpegs import Jpeg
from rehead.features.store import Store
from rehead.parallel import batched, ordered_map
from rehead.progress import Progress

AHEAD_BYTES = 512 << 20  # of photos at addresses that wait; each thread that reads may hold one more
HALTED_S = 0.5  # until one that waits for room sees that nothing is to be read any more
COMMIT_EVERY_S = 1.0  # at most this much work is lost by SIGKILL; a commit costs a flush of the disk


@dataclass
class Extracted:
    """What an extraction did. bad: positions in the catalog, with the reason. done: how many photos have features."""

    bad: dict[int, Skip] = field(default_factory=dict)
    done: int = 0


Given = bytes | PhotoError | OSError | None
Read = tuple[int, Given]
Batch = tuple[list[int], NDArray[np.floating[Any]] | None, dict[int, Skip]]  # good positions, their features; bad ones


class Compute(Protocol):
    """What computes features. Laws: of each position it gives features or a reason, once, in any order; after `halted` is
    set it begins nothing new, and gives what was under way, if it comes soon; when it is closed, nothing of it runs."""

    def __call__(self, halted: threading.Event) -> Generator[Batch, None, None]:
        """Features (n, *shape) of the photos, some at a time."""


def extract(
    catalog: Catalog,
    positions: Sequence[int],
    compute: Compute,
    *,
    store: Store,
    progress: Progress,
    max_bad: float,
    stop: Callable[[], bool],
    on_features: Callable[[list[int], NDArray[np.floating[Any]]], None],
    n_known: int = 0,
    bad_before: Sequence[Skip] = (),
    n_all: int = 0,
) -> Extracted:
    """Features of the photos at `positions` into the store.

    stop: asked after each batch; once true, what is under way is finished and kept. on_features: told the positions and
    features (n, *shape) of each batch, from the calling thread. n_known: good photos of the job that the store has already.
    bad_before, n_all: see `check_bad`.
    Raises TooManyBad as `check_bad` does; what was computed stays in the store.
    """

    def check(n_photos: int, *, so_far: bool = False) -> None:
        check_bad(result.bad.values(), n_photos, max_bad, so_far=so_far, before=bad_before, n_all=n_all)

    result = Extracted()
    halted = threading.Event()
    results = compute(halted)
    with _Writer(store) as writer:
        try:
            for good, features, bad in results:
                result.bad.update(bad)
                if features is not None:
                    writer.add(zip(catalog.digests(good), features, strict=True))
                    result.done += len(good)
                progress.advance(len(good) + len(bad))
                if features is not None:
                    on_features(good, features)
                check(n_known + len(positions), so_far=True)
                if stop():
                    halted.set()
        finally:
            halted.set()
            results.close()  # waits for the threads
    check(n_known + result.done + len(result.bad))
    result.bad = dict(sorted(result.bad.items()))  # whoever came first
    return result


def by_engine(
    catalog: Catalog, positions: Sequence[int], engine: Engine, decode: Decode[tuple[bytes | File, bytes]]
) -> Compute:
    """Features computed here, in the order of `positions`.

    decode: photos' bytes and their digests -> what the engine is given of each, (h, w, 3), or why it is given nothing.
    """

    def compute(halted: threading.Event) -> Generator[Batch, None, None]:
        held = _Held(halted)

        def read(numbered: tuple[int, int]) -> Read:
            number, i = numbered
            if catalog.uri(catalog.photos[i]) is None or not held.may_read(number):
                return i, None
            return i, held.added(_bytes(catalog, i))

        def work(batch: list[Read]) -> Batch:
            return ([], None, {}) if halted.is_set() else computed(catalog, dict(batch), engine, decode)

        is_far = any(catalog.uri(catalog.photos[i]) is not None for i in positions)
        photos: Iterable[Read] = ((i, None) for i in positions)
        n = far.n_readers()
        ahead = ordered_map(read, enumerate(positions), workers=n, ahead=4 * n) if is_far else None
        with contextlib.closing(ahead) if ahead else contextlib.nullcontext():
            batches = batched(map(held.taken, ahead) if ahead else photos, engine.batch)
            yield from ordered_map(work, batches, workers=engine.workers, ahead=2 * engine.workers)

    return compute


class _Held:
    """The bytes of photos that were read ahead and wait to be taken, in order. While they are many, only the photo that is
    waited for is read."""

    def __init__(self, halted: threading.Event) -> None:
        self._halted, self._changed = halted, threading.Condition()
        self._n_bytes, self._n_taken = 0, 0

    def may_read(self, number: int) -> bool:
        """Waits until there is room for this photo; False when nothing is to be read any more."""
        with self._changed:
            while not self._halted.is_set() and self._n_bytes > AHEAD_BYTES and number > self._n_taken:
                self._changed.wait(HALTED_S)
        return not self._halted.is_set()

    def added(self, given: Given) -> Given:
        with self._changed:
            self._n_bytes += _size(given)
        return given

    def taken(self, photo: Read) -> Read:
        with self._changed:
            self._n_bytes -= _size(photo[1])
            self._n_taken += 1
            self._changed.notify_all()
        return photo


def _size(given: Given) -> int:
    return len(given) if isinstance(given, bytes) else 0


def computed(
    catalog: Catalog, batch: Mapping[int, Given], engine: Engine, decode: Decode[tuple[bytes | File, bytes]]
) -> Batch:
    """Features of at most `engine.batch` photos. batch: by position a photo's bytes, or why there are none, where it was read
    ahead."""
    good, pixels, bad = decoded(catalog, batch, decode)
    return good, engine(np.stack(pixels)) if good else None, bad


def _bytes(catalog: Catalog, i: int) -> bytes | PhotoError | OSError:
    try:
        return catalog.read(catalog.photos[i])
    except (PhotoError, OSError) as error:
        return error


class _Writer:
    """Puts features into the store, in a thread, about once in COMMIT_EVERY_S; on leaving all that were added are there.

    What goes wrong in the thread is raised by the next call.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rehead")
        self._pending: list[tuple[bytes, NDArray[Any]]] = []
        self._writing: Future[None] | None = None
        self._begun = time.monotonic()

    def add(self, pairs: Iterable[tuple[bytes, NDArray[Any]]]) -> None:
        self._pending += pairs
        if time.monotonic() - self._begun > COMMIT_EVERY_S:
            self._write()  # waits for the one before: a slow disk holds features back rather than filling the memory

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._thread:
            self._write()
            self._wait()

    def _write(self) -> None:
        self._wait()
        self._writing = self._thread.submit(self._store.put, self._pending)
        self._pending, self._begun = [], time.monotonic()

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def decoded(
    catalog: Catalog, batch: Mapping[int, Given], decode: Decode[tuple[bytes | File, bytes]]
) -> tuple[list[int], list[NDArray[np.uint8]], dict[int, Skip]]:
    """The positions of good photos, their pixels, and why others are bad. batch: as in `computed`."""
    read: dict[int, tuple[bytes | File, bytes]] = {}
    good, pixels, bad = [], [], {}
    for i, given in batch.items():
        photo = catalog.photos[i]
        try:
            data = bytes_or_file(decode, catalog, photo) if given is None else given
        except (PhotoError, OSError) as error:
            data = error
        if isinstance(data, bytes | File):
            read[i] = data, photo.digest
        else:
            bad[i] = skip_of(photo, data)
    for i, found in zip(read, decode([*read.values()]), strict=True):
        assert not isinstance(found, Jpeg), "files are left as they are for photos that layers learn from"
        if isinstance(found, np.ndarray):
            pixels.append(found)
            good.append(i)
        else:
            bad[i] = skip_of(catalog.photos[i], found)
    return good, pixels, bad
