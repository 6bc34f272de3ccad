"""What nodes are given in place of the work: computing nothing, and reading files; what is left is what driver and Ray
cost. And what they are given so that each read of an address answers late."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rehead.cluster import parts
from rehead.cluster.parts import Worker, _table
from rehead.data import addresses, reading
from rehead.data.far import AT_ONCE
from rehead.data.reading import identified
from rehead.parallel import ordered_map


class IdleWorker(Worker):
    """Opens the network as the others do, and gives zeros."""

    def __init__(self, desk: Any, engine: str, device: str, cores: int, view: str) -> None:
        import ray

        super().__init__(desk, engine, device, cores, view)
        self._shape = ray.get(desk.prefix.remote()).card.shape

    def __call__(self, part: Any) -> Any:
        positions = part["position"].to_pylist()
        whole = f"part {positions[0]}"
        self._begin(whole)
        self._desk.end.remote(whole)
        return answer(positions, self._shape)


def answer(positions: list[int], shape: tuple[int, ...]) -> Any:
    """Features of these photos as they go back, all zero."""
    return _table(positions, [bytes(2 * math.prod(shape))] * len(positions))


def identify_files(rows: list[tuple[str, str]]) -> list[bytes | str | None]:
    """As `reading.identified_at` does it, of files of this machine."""
    read = ordered_map(
        lambda row: identified(Path(row[0]).read_bytes, row[1], True), rows, workers=AT_ONCE, ahead=2 * AT_ONCE
    )
    return list(read)


FAR_S = 0.15  # that each read of a photo takes longer where they are far


class LateWorker(Worker):
    """Photos answer late."""

    def __init__(self, **settings: Any) -> None:
        parts.read_address = read_late
        super().__init__(**settings)


def read_late(address: str) -> bytes:
    time.sleep(FAR_S)
    return addresses.read_address(address)


def identified_late(named: bool, look: Callable[[bytes], Any] | None, rows: list[tuple[str, str]]) -> list[Any]:
    """`reading.identified_at` on a node, where photos answer late."""
    reading.read_address = read_late
    return reading.identified_at(named, look, rows)
