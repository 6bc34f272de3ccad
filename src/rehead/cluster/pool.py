"""The actors that compute features, run by Ray Data: as many as a cluster has room for, asked from inside it or outside."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from rehead.cluster.connection import in_words
from rehead.cluster.nodes import LOOK_S, ROOM_S, Cluster, Room
from rehead.cluster.parts import Desk, Shipped, Worker, read_table
from rehead.data.catalog import Catalog
from rehead.errors import ReheadError
from rehead.features.engines import Prefix
from rehead.features.extract import Batch

# Photos of a part: of the least a core takes half a second, beside which handing them out costs little; of many photos the
# process that hands them out has more to do than each core, and parts are larger, as long as each core has many of them.
LEAST, MOST, PARTS_A_CORE = 32, 256, 32
CORES = 4  # of an actor: each has the network in memory once
PART_OF_GPU = 128  # photos, which one call computes
BESIDE_GPU = 16  # cores of an actor at most that decode for its GPU
ASKED = 4  # parts that a process outside the cluster asks for at once
DRAINED_S = 10.0  # for what is under way when the job is to end; of very many parts not all come back
UNDER_WAY = 2  # parts for each core of an actor: the next is there when one is done


class Pool:
    """The actors: as many as the cluster has room for, each of some cores, or of a GPU and cores beside it. part: photos that
    one is given at a time, of those that it reads itself; sent: of others, whose bytes come with them."""

    def __init__(self, cluster: Cluster, prefix: Prefix, engine: str, device: str, view: str, n: int) -> None:
        """n: photos there are."""
        if device == "cuda":
            beside = [node.cores // node.gpus for node in cluster.nodes if node.gpus]
            self._room = Room(sum(node.gpus for node in cluster.nodes), max(1, min(BESIDE_GPU, *beside)), 1)
        else:
            usual = sorted(node.cores for node in cluster.nodes)[len(cluster.nodes) // 2]
            cores = min(CORES, max(1, usual // 2))  # two at least on the usual node; smaller ones may have none
            self._room = Room(sum(node.cores // cores for node in cluster.nodes), cores, 0)
        self.sent = PART_OF_GPU if device == "cuda" else LEAST
        self.part = PART_OF_GPU if device == "cuda" else part_of(n, self._room.n * self._room.cores)
        self._shape = prefix.card.shape
        self._settings = {
            "desk": _desk(Shipped.of(prefix, engine, cluster.address)),
            "engine": engine,
            "device": device,
            "cores": self._room.cores,
            "view": view,
        }

    def results(
        self, catalog: Catalog, parts: Iterator[Any], halted: threading.Event, note: Callable[[str], None]
    ) -> Iterator[tuple[Batch, list[int]]]:
        """What each part gave, and which photos it could not read; nothing, again and again, while the cluster has no room."""
        tables = [] if halted.is_set() else list(parts)
        if tables:
            with in_words():
                for _ in _until_room(self._room, halted, note):
                    yield ([], None, {}), []
        if tables and not halted.is_set():
            run = _run_there if _is_outside() else _run
            with (
                in_words(),
                _refused(self._settings["desk"]),
                contextlib.closing(run(tables, self._settings, self._room)) as found,
            ):
                ends = math.inf
                for part in found:
                    yield read_table(part, catalog, self._shape)
                    if halted.is_set() and ends == math.inf:
                        # parts that wait come back empty, others with what is done
                        self._settings["desk"].halt.remote()
                        ends = time.monotonic() + DRAINED_S
                    if time.monotonic() > ends:
                        return


@contextlib.contextmanager
def _refused(desk: Any) -> Iterator[None]:
    """What a worker could not begin for is raised in its words."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        why: ReheadError | None = ray.get(desk.refused.remote())
        if why is None:
            raise
        raise why from error


def _until_room(room: Room, halted: threading.Event, note: Callable[[str], None]) -> Generator[None, None, None]:
    """Something every LOOK_S until an actor would have room, or nothing is to be begun any more: Ray Data says nothing
    while its actors wait."""
    import ray

    began, is_told = time.monotonic(), False
    place = ray.remote(_nothing).options(num_cpus=room.cores, num_gpus=room.gpus or None).remote()
    has_room = False
    try:
        while not halted.is_set() and not (has_room := bool(ray.wait([place], timeout=LOOK_S)[0])):
            if not is_told and time.monotonic() - began > ROOM_S:
                note(f"The cluster has had no room for {room.about} yet; photos wait for it")
                is_told = True
            yield
    finally:
        if not has_room:  # Ray 2.60 ends the process where a task is cancelled that is just being written down as done
            ray.cancel(place)


def _nothing() -> None:
    return


def part_of(n: int, cores: int) -> int:
    """The photos of a part, of `n` on so many cores."""
    return min(MOST, max(LEAST, n // (PARTS_A_CORE * max(1, cores))))


def _desk(shipped: Shipped) -> Any:
    """The actor that workers ask, on the node that the driver is on, or is connected to: they live and die together."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here).remote()
    ray.get(desk.keep.remote(shipped))
    return desk


def _is_outside() -> bool:
    """Whether this process talks to the cluster from outside, at a ray:// address: Ray Data has to run inside."""
    import ray

    return bool(ray.util.client.ray.is_connected())


class Inside:
    """An actor that runs Ray Data in the cluster for a process outside, which asks for one part after the other."""

    def __init__(self, *arguments: Any) -> None:
        self._parts = _run(*arguments)

    def next(self) -> Any:
        """The next table, None after the last."""
        return next(self._parts, None)


def _run_there(tables: list[Any], settings: dict[str, Any], room: Room) -> Generator[Any, None, None]:
    """The same as `_run`, for a process outside the cluster."""
    import ray

    inside = ray.remote(Inside).options(num_cpus=0).remote(tables, settings, room)
    try:
        asked = deque(inside.next.remote() for _ in range(ASKED))
        while (part := ray.get(asked.popleft())) is not None:
            asked.append(inside.next.remote())
            yield part
    finally:
        ray.kill(inside)


def _run(tables: list[Any], settings: dict[str, Any], room: Room) -> Generator[Any, None, None]:
    """The tables that `Worker` makes of these, in any order."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    photos = ray.data.from_arrow(tables).map_batches(
        Worker,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=min(room.n, len(tables)),
            initial_size=min(room.n, len(tables)),
            max_tasks_in_flight_per_actor=UNDER_WAY * room.cores,
            max_concurrent_calls_per_actor=room.cores,
            enable_true_multi_threading=True,
        ),
        fn_constructor_kwargs=settings,
        num_cpus=room.cores,
        num_gpus=room.gpus or None,
    )
    yield from photos.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
