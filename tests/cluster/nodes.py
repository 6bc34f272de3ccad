"""A cluster of simulated nodes and a job on it, in a process of its own: what Ray leaves running ends with that.

python nodes.py SCENARIO PHOTOS OUT CACHE -> one JSON object on the last line
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from PIL import Image
from ray.cluster_utils import Cluster

import rehead
from rehead import ground, job
from rehead.auditing import kept
from rehead.cluster import computing, pool, training
from rehead.cluster import nodes as asked
from rehead.cluster.connection import connected
from rehead.cluster.parts import Worker
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.errors import ClusterError, ReheadError
from rehead.features import engines
from rehead.features.extract import Batch
from rehead.progress import Silent


def nodes(n: int) -> Cluster:
    """A head without cores, and nodes with one each."""
    settings = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **settings})
    for _ in range(n):
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    return cluster


class Watching(Silent):
    """Does something once, when so many photos are extracted, or learned from."""

    def __init__(self, n: int, act: Callable[[], None], phase: str = "Extracting") -> None:
        self._left, self._act, self._phase = n, act, phase
        self._counts = False
        self.notes: list[str] = []
        self.on_phase: tuple[str, Callable[[], None]] = ("", lambda: None)  # does something once, when a phase begins

    def note(self, text: str) -> None:
        self.notes.append(text)

    def status(self, text: str) -> None:
        """Acts once a line begins as the phase is called, if that is what was waited for."""
        if text.startswith(self._phase) and self._left > 0:
            self._left = 0
            self._act()

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self._counts = name == self._phase
        if name == self.on_phase[0]:
            self.on_phase[1]()

    def advance(self, n: int = 1) -> None:
        if self._counts and self._left > 0:
            self._left -= n
            if self._left <= 0:
                self._act()


def told(tuned: rehead.Tuned) -> dict[str, Any]:
    return {**tuned.to_dict(), "skipped": (tuned.run / "skipped.csv").read_text()}


def plain(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    return told(rehead.tune(photos, ray=cluster.address, report=False, **where))


def by_torch(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """The network by PyTorch, on the nodes alone: this process never opens it."""
    engines.ENGINES["torch"] = never
    return told(rehead.tune(photos, ray=cluster.address, report=False, engine="torch", device="cpu", **where))


def never(*_: Any) -> Any:
    raise AssertionError("this process opened the network")


def node_killed(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """One of the nodes dies when some photos are done."""
    last = cluster.list_all_nodes()[-1]
    watching = Watching(40, lambda: cluster.remove_node(last, allow_graceful=False))
    return told(rehead.tune(photos, ray=cluster.address, report=False, progress=watching, **where))


class Poisoned(Worker):
    """An actor whose process ends, as by a defect in a decoder, whenever it meets one photo."""

    def _computed(self, catalog: Catalog, batch: dict[int, bytes]) -> Batch:
        if any(catalog.photos[i].path.endswith(os.environ["POISON"]) for i in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._computed(catalog, batch)


def poison(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    pool.Worker = Poisoned
    return plain(cluster, photos, **where)


class Otherwise(Worker):
    """An actor on a node that joined later, with other versions."""

    def __init__(self, **settings: Any) -> None:
        asked.versions = lambda names: dict.fromkeys(names, "0.1")
        super().__init__(**settings)


def otherwise(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    pool.Worker = Otherwise
    try:
        rehead.tune(photos, ray=cluster.address, **where)
    except ClusterError as error:
        return {"said": str(error)}
    raise AssertionError("features were computed")


def in_memory(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """The photos as arrays, which no node can read by itself."""
    pairs = [(np.asarray(Image.open(path)), path.parent.name) for path in sorted(photos.glob("*/*.png"))]
    return told(rehead.tune(pairs, ray=cluster.address, report=False, **where))


def bucket(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Photos that nodes read by themselves: this process reads none but those that the engine is compared on."""

    def nothing(catalog: Catalog, positions: list[int], halted: object) -> Any:
        assert not positions, "nodes could not read by themselves"
        return iter(())

    def looked(catalog: Catalog, position: int) -> Any:
        raise AssertionError("nodes could not look by themselves")

    computing._read = nothing
    kept._facts_or_reason = looked
    return told(rehead.tune(os.environ["ADDRESS"], ray=cluster.address, report=False, **where))


def elsewhere(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Photos on a disk that nodes do not share: they find none at the path they are told."""
    computing._place = lambda catalog, photo: f"/nowhere/{photo.path}"
    return plain(cluster, photos, **where)


FEED_OF, AS_IT_IS, DRIVER = ground.feed_of, ground.as_it_is, os.getpid()
LEARNS: dict[str, Any] = json.loads(os.environ.get("LEARNS", "{}"))  # settings of a training


def learns(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Layers learn on both nodes."""
    watching = Watching(1 << 30, lambda: None)
    found = told(rehead.tune(photos, ray=cluster.address, progress=watching, **LEARNS, **where))
    return {**found, "notes": watching.notes}


def learner_killed(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """One of the processes that learn dies in the third epoch."""

    def kill() -> None:
        everyone = [process for process in psutil.Process().children(recursive=True) if _learns(process)]
        assert len(everyone) == 2
        everyone[-1].kill()

    watching = Watching(340, kill, "Training")
    found = told(rehead.tune(photos, ray=cluster.address, progress=watching, **LEARNS, **where))
    return {**found, "notes": watching.notes}


def _learns(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "TrainWorker" in " ".join(process.cmdline())
    return False


def learning_node_killed(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """One of the nodes dies in the third epoch, for good."""
    last = cluster.list_all_nodes()[-1]
    watching = Watching(340, lambda: cluster.remove_node(last, allow_graceful=False), "Training")
    found = told(rehead.tune(photos, ray=cluster.address, progress=watching, **LEARNS, **where))
    return {**found, "notes": watching.notes}


def dense(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Dense layers on features learn on both nodes, and one process of theirs dies after two epochs, if it is to."""

    def kill() -> None:
        [*_, last] = [process for process in psutil.Process().children(recursive=True) if _learns(process)]
        last.kill()

    job.WORTH_BEGINNING = job.LEAST_SHARED = 0
    watching = Watching(1, kill if "KILL" in os.environ else lambda: None, "MLP epoch 2 of")
    found = told(rehead.tune(photos, ray=cluster.address, progress=watching, **LEARNS, **where))
    return {**found, "notes": watching.notes}


def deadly(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """A row on which the process that looks at it ends each time."""
    with connected(cluster.address) as found:
        return {"said": computing.Ray(found).each(_dies_of_four, [3, 4, 5])}


def _dies_of_four(rows: list[int]) -> list[str]:
    if 4 in rows:
        os.kill(os.getpid(), signal.SIGKILL)
    return [f"{row} is fine" for row in rows]


def without_room(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Others have taken all cores when layers are to learn."""
    training.ROOM_S = 1.0
    return _taken("Solving the head", cluster, photos, **LEARNS, **where)


def busy(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Others have taken all cores when features are to be computed."""
    pool.ROOM_S = 1.0
    return _taken("Extracting", cluster, photos, **where)


def _taken(phase: str, cluster: Cluster, photos: Path, **settings: Any) -> dict[str, Any]:
    """Others take all cores when a phase begins, and after a while somebody asks for the end."""
    held: list[Any] = []
    asked: list[float] = []

    def take() -> None:
        held.extend(ray.remote(Watching).options(num_cpus=1).remote(0, None) for _ in range(2))
        ray.get([one.note.remote("") for one in held])
        asked.append(time.monotonic() + 5)

    progress = Watching(1 << 30, lambda: None)
    progress.on_phase = (phase, take)
    try:
        rehead.tune(
            photos, ray=cluster.address, progress=progress, stop=lambda: bool(asked) and time.monotonic() > asked[0],
            **settings,
        )  # fmt: skip
    except ReheadError as error:
        return {"said": str(error), "notes": progress.notes, "seconds": time.monotonic() - asked[0]}
    raise AssertionError("there was room")


def defect(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """Training that fails on nodes in the same way each time."""
    ground.as_it_is = _feed_of_a_node
    try:
        rehead.tune(photos, ray=cluster.address, **LEARNS, **where)
    except ClusterError as error:
        return {"said": str(error)}
    raise AssertionError("layers learned")


def _feed_of_a_node(*arguments: Any) -> Any:
    if os.getpid() != DRIVER:
        raise RuntimeError("a defect")
    return AS_IT_IS(*arguments)


def unseen(cluster: Cluster, photos: Path, **where: Any) -> dict[str, Any]:
    """All layers learn, from photos on a disk that nodes do not share."""
    ground.feed_of = _fed_apart
    try:
        rehead.tune(photos, ray=cluster.address, **LEARNS, **where)
    except ClusterError as error:
        return {"said": str(error)}
    raise AssertionError("layers learned")


def _fed_apart(extracted: Any, catalog: Catalog, *rest: Any) -> Any:
    return FEED_OF(extracted, catalog if os.getpid() == DRIVER else replace(catalog, read=_not_there), *rest)


def _not_there(photo: Photo) -> bytes:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), photo.path)


SCENARIOS = {
    "defect": defect,
    "by_torch": by_torch,
    "deadly": deadly,
    "dense": dense,
    "without_room": without_room,
    "busy": busy,
    "learns": learns,
    "learner_killed": learner_killed,
    "learning_node_killed": learning_node_killed,
    "plain": plain,
    "node_killed": node_killed,
    "otherwise": otherwise,
    "poison": poison,
    "in_memory": in_memory,
    "bucket": bucket,
    "elsewhere": elsewhere,
    "unseen": unseen,
}


def main(scenario: str, photos: str, out: str, cache: str) -> None:
    cluster = nodes(2)
    try:
        found = SCENARIOS[scenario](cluster, Path(photos), out=out, cache=cache)
    finally:
        cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
