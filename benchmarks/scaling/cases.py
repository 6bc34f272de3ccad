"""Whole jobs at small sizes, with the seconds of each of their phases: alone, with photos far away, with `--ray local`, and on
simulated nodes.

Each runs in a process and a cache of its own, in which the network is exported already. Nodes that are simulated are Ray's
own, on this machine: they share its cores, as the simulation is told. Workers of Ray run at the niceness of the others:
at their own, whatever else the machine does goes before them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from measured import ROOT, copies

import rehead
from rehead import begin
from rehead.cluster import pool
from rehead.data import reading
from rehead.data.rows import Row, Source
from rehead.progress import Silent
from scaling import idle

LONGEST_S = 240  # of a job: one that hangs ends the script
STORE_BYTES = 160 << 20  # of objects on each simulated node
SIZES = (400, 1_399, 3_000)
WHERE = ("alone", "local", "1x1", "1x2", "2x1")  # nodes x cores
FAR = ("far", "1x2 far")  # each read of a photo takes longer
CASES = (
    *((where, n) for where in FAR for n in SIZES[:2]),
    *((where, n) for where in WHERE for n in SIZES if (where, n) != ("1x1", 3_000)),
)


class Watched(Silent):
    """When phases began, and when photos came back while they were extracted."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []
        self.came: list[tuple[float, int]] = []

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        del total, unit
        self.began.append((name, time.monotonic()))

    def advance(self, n: int = 1) -> None:
        if n and self.began and self.began[-1][0] == "Extracting":
            self.came.append((time.monotonic(), n))

    def lasted(self, name: str, ends: float) -> float:
        """Seconds of all phases of this name."""
        until = [*(at for _, at in self.began[1:]), ends]
        return sum(end - at for (what, at), end in zip(self.began, until, strict=True) if what == name)


def measure(folder: Path, cases: tuple[tuple[str, int], ...] = CASES) -> Iterator[dict[str, Any]]:
    """The facts of each case, told as soon as they are there."""
    before = folder / "before"
    photos = {n: copies(folder / f"photos{n}", n) for n in {n for _, n in cases}}
    rehead.tune(copies(folder / "few", 24), cache=folder / "first", out=folder / "run-first", report=False)
    shutil.copytree(folder / "first" / "prefixes", before / "prefixes")
    for where, n in cases:
        cache = shutil.copytree(before, folder / f"{where}-{n}")
        words = [where, str(photos[n]), str(cache), str(folder / f"run-{where}-{n}")]
        facts = {"where": where, "photos": n, **in_process("case", words)}
        print(
            {what: round(value, 2) if isinstance(value, float) else value for what, value in facts.items()}, flush=True
        )
        yield facts
        shutil.rmtree(cache)


def in_process(what: str, words: list[str]) -> Any:
    """What `cost.py --one WHAT WORDS` prints last: Ray leaves processes and settings behind in the one that used it."""
    script = ROOT / "benchmarks" / "cost.py"
    paths = [str(ROOT / "src"), str(script.parent), os.environ.get("PYTHONPATH", "")]
    settings = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, str(script), "--one", what, *words],
        stdout=subprocess.PIPE, text=True, check=True, env=environment, timeout=LONGEST_S,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def case(where: str, photos: str, cache: str, out: str) -> dict[str, float]:
    with at(where) as settings:
        watched, begun = Watched(), time.monotonic()
        tuned = rehead.tune(photos, cache=cache, out=out, report=False, progress=watched, **settings)
        ended = time.monotonic()
    (first, first_n), (last, _) = watched.came[0], watched.came[-1]
    extracting = next(at for name, at in watched.began if name == "Extracting")
    n = sum(n for _, n in watched.came)
    return {
        "seconds": ended - begun,
        "connect": tuned.seconds.get("connect", 0.0),
        "read": watched.lasted("Reading", ended),
        "first": first - extracting,
        "extract": watched.lasted("Extracting", ended),
        "rate": (n - first_n) / (last - first) if last > first else 0.0,
        "look": watched.lasted("Looking at", ended),
        "solve": tuned.seconds["solve"],
    }


@contextlib.contextmanager
def at(where: str) -> Iterator[dict[str, Any]]:
    """The settings of a job there."""
    where, _, far = where.rpartition(" ") if where in FAR else (where, "", "")
    if far:
        with late(by_nodes=bool(where)), at(where or "alone") as settings:
            yield settings
        return
    if where in ("alone", "local"):
        yield {} if where == "alone" else {"ray": "local"}
        return
    from ray.cluster_utils import Cluster

    n_nodes, n_cores = map(int, where.split("x"))
    settings = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **settings})
    try:
        for _ in range(n_nodes):
            cluster.add_node(num_cpus=n_cores, object_store_memory=STORE_BYTES)
        cluster.wait_for_nodes()
        yield {"ray": cluster.address}
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def late(by_nodes: bool) -> Iterator[None]:
    """Photos are opened as those of a bucket are, each at an address of its own, and every read answers late."""
    opened = begin.open_source

    def open_far(*arguments: Any, **settings: Any) -> Source:
        source = opened(*arguments, **settings)

        def read(row: Row) -> bytes:
            time.sleep(idle.FAR_S)
            return source.read(row)

        def uri(row: Row) -> str:
            return f"file://{source.file(row)}" if by_nodes else f"far://photos/{row.path}"

        return replace(source, read=read, file=lambda _: None, uri=uri)

    with contextlib.ExitStack() as patches:
        patches.enter_context(patch.object(begin, "open_source", open_far))
        if by_nodes:
            patches.enter_context(patch.object(pool, "Worker", idle.LateWorker))
            patches.enter_context(patch.object(reading, "identified_at", idle.identified_late))
        yield
