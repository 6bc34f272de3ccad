"""What runs on a node: an engine that is opened once, and parts of the job, each some photos, one after the other.

A part comes as a table, a row a photo, and goes back as one: features, or why there are none. A photo comes as its bytes or
as the place where it is, a file or an address in a bucket, and its digest; what is not there, or holds other bytes, is told
as absent. On CPUs some are read while others are computed, so that a core does not wait for a bucket.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rehead.cluster.nodes import BESIDE, LEARNING, SAME, check_here, versions
from rehead.data.addresses import is_address, read_address
from rehead.data.catalog import Catalog
from rehead.data.far import AT_ONCE
from rehead.data.rows import Photo, Skip
from rehead.errors import ReheadError
from rehead.features.decoders import File, bytes_of
from rehead.features.engines import ENGINES, Prefix
from rehead.features.extract import Batch, computed
from rehead.features.store import LARGEST
from rehead.features.views import stored_views
from rehead.nets.card import Card
from rehead.parallel import batched, ordered_map

MOST_DEATHS = 2  # of processes on one photo, before it is left out
AHEAD = 2 * AT_ONCE  # photos of a part that were read and wait, or are on their way
ASKED_EVERY = 32  # photos, after which a worker asks whether the job is to end
ABSENT = "absent"  # the reason of a photo whose bytes are to be sent


@dataclass(frozen=True)
class Shipped:
    """A prefix as it is sent to nodes: its card, and its graph as ONNX or the network itself, pickled: what a cluster runs is
    code of whoever uses it anyway. address: of the cluster. versions: that a node has to have."""

    card: Card
    address: str
    graph: bytes = b""
    network: bytes = b""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, prefix: Prefix, engine: str, address: str) -> Shipped:
        if engine != "torch" or prefix.network is None:
            return cls(prefix.card, address, prefix.onnx.read_bytes(), versions=versions((*SAME, *BESIDE)))
        from ray import cloudpickle

        network = cloudpickle.dumps(prefix.network().cpu())
        return cls(prefix.card, address, network=network, versions=versions((*SAME, *BESIDE, *LEARNING)))

    def opened(self, open_by: Callable[[Prefix], Any]) -> Any:
        """What `open_by` makes of the prefix. Its file is gone then; engines have it in memory. Raises ClusterError where this
        node has other versions."""
        check_here(self.address, self.versions)
        with tempfile.TemporaryDirectory(prefix="rehead-") as folder:
            prefix = Prefix(self.card, Path(folder), self._network if self.network else None, "onnxruntime")
            prefix.onnx.write_bytes(self.graph)
            return open_by(prefix)

    def _network(self) -> Any:
        from ray import cloudpickle

        return cloudpickle.loads(self.network)


class Desk:
    """An actor beside the driver that the workers ask: for the prefix, and for what was begun and never ended, which a process
    had in hand when it was killed, or killed itself. Ray begins such a part anew, for ever: so the photo is found on which it
    dies each time. It is told why a worker cannot begin, which Ray hands on as a traceback.
    """

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._shipped: Shipped | None = None
        self._halted = False
        self._refused: ReheadError | None = None

    def keep(self, shipped: Shipped) -> None:
        self._shipped = shipped

    def prefix(self) -> Shipped | None:
        return self._shipped

    def refuse(self, error: ReheadError) -> None:
        self._refused = error

    def refused(self) -> ReheadError | None:
        return self._refused

    def halt(self) -> None:
        """From now on nothing is begun."""
        self._halted = True

    def is_halted(self) -> bool:
        return self._halted

    def begin(self, key: str) -> int:
        """How many times this was begun before and not ended; -1 where nothing is to be begun any more."""
        if self._halted:
            return -1
        self._begun[key] += 1
        return self._begun[key] - 1

    def end(self, key: str) -> None:
        del self._begun[key]


class Turns:
    """Threads that work together, or one of them alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_together, self._is_alone = 0, False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._n_together += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone)
            self._is_alone = True
            self._changed.wait_for(lambda: not self._n_together)
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


class Worker:
    """An actor that computes features, of several parts at once where it has several cores."""

    def __init__(self, desk: Any, engine: str, device: str, cores: int, view: str) -> None:
        """desk: the handle of a `Desk`. Raises ClusterError where this node has other versions than the driver."""
        import ray

        prefix: Shipped = ray.get(desk.prefix.remote())
        self._desk = desk
        self._turns = Turns()
        try:
            self._engine = prefix.opened(lambda here: ENGINES[engine](here, device, cores))
        except ReheadError as error:
            ray.get(desk.refuse.remote(error))
            raise
        self._decode = partial(stored_views, view, prefix.card.preprocess)

    def __call__(self, part: Any) -> Any:
        """A table of position, features and reason. part: of position, path, digest and data, see `table`. Of one that is under
        way when the job is to end, what is done comes back."""
        columns = part.to_pydict()
        positions, data = columns["position"], columns["data"]
        whole = f"part {positions[0]}"
        if (n_before := self._begin(whole)) < 0:
            return _table([], [])
        names = (os.fsdecode(path or b"") for path in columns["path"])
        photos = tuple(Photo(name, "", "train", digest) for name, digest in zip(names, columns["digest"], strict=True))
        catalog = Catalog("part", "folders", photos, (), lambda _: b"")
        found: dict[int, bytes | str] = {}
        size = 1 if n_before else self._engine.batch
        with contextlib.closing(
            ordered_map(lambda i: (i, _bytes(photos[i], data[i])), range(len(photos)), workers=AT_ONCE, ahead=AHEAD)
        ) as read:
            for number, batch in enumerate(batched(read, size)):
                if number and number * size % ASKED_EVERY < size and self._is_halted():
                    break
                found |= {i: ABSENT for i, there in batch if there is None}
                found |= self._found(catalog, {i: there for i, there in batch if there is not None}, n_before > 0)
        self._desk.end.remote(whole)
        return _table([positions[i] for i in found], list(found.values()))

    def _found(self, catalog: Catalog, batch: dict[int, bytes], alone: bool) -> dict[int, bytes | str]:
        """The features of each, or why there are none."""
        if not batch:
            return {}
        if alone:
            with self._turns.alone():  # else a part beside it would be taken for what ended the process
                good, features, bad = self._alone(catalog, batch)
        else:
            with self._turns.together():
                good, features, bad = self._computed(catalog, batch)
        found: dict[int, bytes | str] = {i: skip.reason for i, skip in bad.items()}
        if features is not None:
            halves = np.clip(features, -LARGEST, LARGEST).astype("<f2")
            found |= {i: row.tobytes() for i, row in zip(good, halves, strict=True)}
        return found

    def _begin(self, key: str) -> int:
        import ray

        return int(ray.get(self._desk.begin.remote(key)))

    def _is_halted(self) -> bool:
        import ray

        return bool(ray.get(self._desk.is_halted.remote()))

    def _alone(self, catalog: Catalog, photo: dict[int, bytes]) -> Batch:
        """One photo of a part that was not ended, which may be the one that ended it."""
        [i] = photo
        key = catalog.photos[i].digest.hex()
        if (n := self._begin(key)) >= MOST_DEATHS:
            reason = f"could not be computed: the process that tried to ended, {n} times"
            return [], None, {i: Skip(catalog.photos[i].path, reason)}
        batch = self._computed(catalog, photo)
        self._desk.end.remote(key)
        return batch

    def _computed(self, catalog: Catalog, batch: dict[int, bytes]) -> Batch:
        """A photo that a defect meets costs itself alone: on a cluster nobody would see the others' end."""
        try:
            return computed(catalog, batch, self._engine, self._decode)
        except Exception as error:
            _check_of_device(error)
            if len(batch) > 1:
                return _joined([self._computed(catalog, {i: data}) for i, data in batch.items()])
            [i] = batch
            reason = f"could not be computed: {type(error).__name__}: {error}"
            return [], None, {i: Skip(catalog.photos[i].path, reason)}


def _check_of_device(error: Exception) -> None:
    """A GPU's fault is none of the photos. What has no room in its memory ends the job; after any other the process is of no
    use any more, and ends itself: Ray begins another."""
    name = type(error).__name__
    if name == "OutOfMemoryError":
        raise error
    if name == "AcceleratorError" or "CUDA error" in str(error):
        os._exit(1)


def _joined(parts: list[Batch]) -> Batch:
    good = [i for positions, _, _ in parts for i in positions]
    features = [one for _, one, _ in parts if one is not None]
    bad = {i: skip for _, _, skips in parts for i, skip in skips.items()}
    return good, np.concatenate(features) if features else None, bad


def _bytes(photo: Photo, data: bytes | None) -> bytes | None:
    if data is not None:
        return data
    if not is_address(photo.path):
        return bytes_of(File(photo.path, photo.digest))
    import blake3

    try:
        data = read_address(photo.path)
    except (OSError, ReheadError):
        return None
    return data if blake3.blake3(data).digest() == photo.digest else None


def table(positions: list[int], paths: list[str | None], digests: Sequence[bytes], data: list[bytes | None]) -> Any:
    """A part as it is sent: of each photo its position in the job, its file's path or its bytes, and its digest."""
    import pyarrow as pa

    names = [None if path is None else os.fsencode(path) for path in paths]
    columns = {
        "position": pa.array(positions, pa.int64()),
        "path": pa.array(names, pa.binary()),
        "digest": pa.array(digests, pa.binary(32)),
        "data": pa.array(data, pa.large_binary()),
    }
    return pa.table(columns)


def _table(positions: list[int], found: list[bytes | str]) -> Any:
    import pyarrow as pa

    columns = {
        "position": pa.array(positions, pa.int64()),
        "features": pa.array([one if isinstance(one, bytes) else None for one in found], pa.large_binary()),
        "reason": pa.array([None if isinstance(one, bytes) else one for one in found], pa.string()),
    }
    return pa.table(columns)


def read_table(part: Any, catalog: Catalog, shape: tuple[int, ...]) -> tuple[Batch, list[int]]:
    """What a part gave, and the positions of photos that the node could not read."""
    positions, reasons = part["position"].to_pylist(), part["reason"].to_pylist()
    rows = {i: data for i, data in zip(positions, part["features"].to_pylist(), strict=True) if data is not None}
    features = np.frombuffer(b"".join(rows.values()), "<f2").reshape(len(rows), *shape) if rows else None
    told = {i: reason for i, reason in zip(positions, reasons, strict=True) if i not in rows}
    bad = {i: Skip(catalog.photos[i].path, reason) for i, reason in told.items() if reason != ABSENT}
    return (list(rows), features, bad), [i for i, reason in told.items() if reason == ABSENT]
