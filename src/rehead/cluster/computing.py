"""Features computed by a cluster: parts of the photos, by actors of Ray Data, which schedules, retries and holds back.

An actor has some cores of a node and opens the prefix once. First each photo that is a file is named by its path, since nodes
may share a disk with this machine; the bytes of those that a node cannot read are sent after. What comes back, in any order,
is kept here, by `features/extract.py`; so what was computed when a job is broken off is there when it goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.cluster.connection import in_words
from rehead.cluster.nodes import BESIDE, LEARNING, SAME, Cluster, check_here, check_same, versions
from rehead.cluster.parts import MOST_DEATHS, Shipped, table
from rehead.cluster.pool import Pool
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo, Skip
from rehead.errors import ClusterError, PhotoError
from rehead.features.bad import skip_of
from rehead.features.engines import ENGINES, Engine, Prefix, precision_of
from rehead.features.extract import Batch, Compute
from rehead.parallel import batched, ordered_map

if TYPE_CHECKING:
    from rehead.tuning.feed import Feed
    from rehead.tuning.state import State
    from rehead.tuning.train import Training

T = TypeVar("T")
R = TypeVar("R")

SENT_BYTES = 512 << 20  # of photos on their way at once: each time actors begin anew, which takes seconds
HANDED = 4_000_000  # photos that are handed to Ray at once: it holds their parts in memory, and begins actors each time
READERS = 8  # threads that read them
TASKS = 2  # of reading, a core: they wait for the store more than they compute
ROOM_S = 600.0  # for a node to have room for the network, before anything is computed
MOST_TASKS = 256  # each is waited for by a thread here


class Ray:
    """The machines of a cluster, as `job.Machines`. note: told what is waited for."""

    def __init__(self, cluster: Cluster, note: Callable[[str], None] = lambda _: None) -> None:
        import ray

        self._cluster, self._note = cluster, note
        self.about = cluster.about
        self.at_once = min(MOST_TASKS, TASKS * sum(node.cores for node in cluster.nodes))
        self._ours = versions((*SAME, *BESIDE))
        self._each = ray.remote(_each).options(num_cpus=1 / TASKS, max_retries=MOST_DEATHS - 1)

    def each(self, work: Callable[[list[R]], list[T]], rows: Sequence[R]) -> list[T | str]:
        import ray

        with in_words():
            try:
                return list(ray.get(self._each.remote(self._cluster.address, self._ours, work, list(rows))))
            except (
                ray.exceptions.WorkerCrashedError,
                ray.exceptions.OutOfMemoryError,
                ray.exceptions.NodeDiedError,
            ):
                if len(rows) == 1:
                    return [f"could not be looked at: the process that tried to ended, {MOST_DEATHS} times"]
        middle = len(rows) // 2  # the row on which it ends is found by halves
        return [*self.each(work, rows[:middle]), *self.each(work, rows[middle:])]

    def check(self, device: str, with_torch: bool) -> None:
        if device == "cuda" and not any(node.gpus for node in self._cluster.nodes):
            raise ClusterError(
                what=f"The Ray cluster {self._cluster.address} has no GPU.",
                why="Ray counts those that it was told of, or found, when a node began.",
                fix="Begin nodes with `ray start --num-gpus=N`, or pass --device cpu.",
            )
        if with_torch:
            check_same(self._cluster, LEARNING)

    def engine(self, prefix: Prefix, device: str, cores: int | None = None) -> Engine:
        del cores
        return _There(prefix, device, self._cluster.address)

    def compute(
        self, catalog: Catalog, positions: Sequence[int], prefix: Prefix, engine: str, device: str, view: str
    ) -> Compute:
        def compute(halted: threading.Event) -> Generator[Batch, None, None]:
            with in_words():
                pool = Pool(self._cluster, prefix, engine, device, view, len(positions))
            sent: list[int] = []
            for some in batched(positions, HANDED):
                if halted.is_set():
                    return
                parts = _named(catalog, some, pool.part, sent)
                for batch, absent in pool.results(catalog, parts, halted, self._note):
                    sent += absent
                    yield batch
            for data, bad in _read(catalog, sent, halted):
                yield [], None, bad
                for batch, _ in pool.results(catalog, _with_bytes(catalog, data, pool.sent), halted, self._note):
                    yield batch

        return compute

    def train(
        self,
        training: Training,
        start: State | None,
        feeds: Callable[[str], Feed],
        begin: Callable[[State | None], None],
        device: str,
    ) -> State:
        from rehead.cluster.training import train

        with in_words():
            return train(self._cluster, training, start, feeds, begin, device)


class _There:
    """PyTorch on a node. Each call opens the network anew."""

    name = "torch"
    workers = 1

    def __init__(self, prefix: Prefix, device: str, address: str) -> None:
        import ray

        from rehead.features.torch_engine import BATCH

        self.version, self.precision = versions(("torch",))["torch"], precision_of("torch", device)
        self.batch, self._device = BATCH[device], device
        self._shipped = Shipped.of(prefix, self.name, address)
        self._run = ray.remote(_run_once).options(num_cpus=1, num_gpus=int(device == "cuda"), max_retries=1)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        import ray

        with in_words():
            running = self._run.remote(self._shipped, self.name, self._device, pixels)
            try:
                return np.asarray(ray.get(running, timeout=ROOM_S))
            except ray.exceptions.GetTimeoutError as error:
                raise ClusterError(
                    what=f"No node of the Ray cluster ran the network on a few photos within {ROOM_S / 60:.0f} minutes.",
                    why=f"Others may have all of its {'GPUs' if self._device == 'cuda' else 'cores'}.",
                    fix="Look at what the cluster does with `ray status`.",
                ) from error


def _run_once(shipped: Shipped, engine: str, device: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    opened: Engine = shipped.opened(lambda here: ENGINES[engine](here, device, 1))
    return opened(pixels)


def _each(address: str, ours: Mapping[str, str], work: Callable[[list[R]], list[T]], rows: list[R]) -> list[T]:
    check_here(address, ours)
    return work(rows)


def _place(catalog: Catalog, photo: Photo) -> str | None:
    """Where a node may find a photo's bytes: at an address, or in a file."""
    return catalog.uri(photo) or catalog.file(photo)


def _named(catalog: Catalog, positions: Sequence[int], size: int, sent: list[int]) -> Iterator[Any]:
    """Parts of those photos that nodes may read; the others are added to `sent`, as they are met."""

    def placed() -> Iterator[tuple[int, str]]:
        for i in positions:
            if (place := _place(catalog, catalog.photos[i])) is None:
                sent.append(i)
            else:
                yield i, place

    for part in batched(placed(), size):
        some, places = zip(*part, strict=True)
        yield table([*some], [*places], catalog.digests(some), [None] * len(some))


def _with_bytes(catalog: Catalog, data: Mapping[int, bytes], size: int) -> Iterator[Any]:
    for part in batched(data, size):
        digests = catalog.digests(part)
        yield table(part, [None] * len(part), digests, [data[i] for i in part])


def _read(
    catalog: Catalog, positions: Sequence[int], halted: threading.Event
) -> Iterator[tuple[dict[int, bytes], dict[int, Skip]]]:
    """The bytes of photos by their positions, and what could not be read; as many at a time as memory is given to."""

    def read(i: int) -> bytes | Skip:
        try:
            return catalog.read(catalog.photos[i])
        except (PhotoError, OSError) as error:
            return skip_of(catalog.photos[i], error)

    data: dict[int, bytes] = {}
    bad: dict[int, Skip] = {}
    n_bytes = 0
    with contextlib.closing(ordered_map(read, positions, workers=READERS, ahead=2 * READERS)) as found:
        for i, got in zip(positions, found, strict=True):
            if isinstance(got, Skip):
                bad[i] = got
            else:
                data[i], n_bytes = got, n_bytes + len(got)
            if halted.is_set():
                return
            if n_bytes >= SENT_BYTES:
                yield data, bad
                data, bad, n_bytes = {}, {}, 0
    if data or bad:
        yield data, bad
