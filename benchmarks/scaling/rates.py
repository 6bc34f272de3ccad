"""Rates that no other script measures: what the machine that begins a job can take, and what each photo costs it.

driver    photos/s that a job takes back from Ray whose workers compute nothing: parts are handed out, features come back,
          are read and put into the store. All on this machine's cores, workers included; beside it what the process that began
          the job could take at most, since it is one process of Python: photos for each second of its CPU. Before anything
          is computed all parts are handed to Ray, which is told by jobs of few and of many parts
identify  photos/s that are read and given a digest by tasks of Ray, from files
lists     bytes of a photo in the memory of the process that begins the job, beside files that are mapped, and its seconds
          for a photo, from the list of files to the parts for a cluster, with what near copies are told by written down and
          read again; nothing is read from a bucket. Beside it the seconds of a core for comparing the hashes of all photos
solve     seconds of the head by the number of photos: random features that tell two classes apart
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measured import copies

from rehead.auditing.facts import Facts
from rehead.data import listing
from rehead.data.catalog import Catalog
from rehead.data.layouts import recognised
from rehead.data.rows import Photo, Request, Source
from rehead.data.scan import scan
from rehead.data.spill import spill_into
from rehead.parallel import batched, n_cores
from rehead.progress import Silent
from scaling.cases import in_process

BACKBONE = "efficientnet_lite0"
N_FEW, N_MANY = 20_000, 160_000  # photos that are handed out and taken back, in the largest parts
N_PHOTOS = 1_399  # all cats and dogs
N_ROWS = (300_000, 1_000_000)  # whose memory is compared
N_HANDED = 20_000  # photos whose parts are in memory at once, as `computing.HANDED` is of jobs of many millions
N_SOLVED = (10_000, 30_000, 100_000)
WIDTH = 1280
RING = tuple(100 + 1.37 * i for i in range(16))
FACTS = Facts(470, 390, 23_058, "JPEG", 90, None, None, 128.0, 50.0, 900.0, 2.0, 0, RING, RING)
PICTURE = b"\xff\xd8\xff\xe0"  # how a JPEG file begins


def measure(folder: Path) -> Iterator[tuple[str, Any]]:
    """Facts, each as soon as it is there."""
    photos = copies(folder / "photos", N_PHOTOS)
    sizes = [path.stat().st_size for path in photos.glob("*/*.jpg")]
    yield "bytes of a photo", round(sum(sizes) / len(sizes))
    few, many = (in_process("lists", [str(n), str(folder / f"lists-{n}")]) for n in N_ROWS)
    yield "lists, a photo", {what: (many[what] - few[what]) / (N_ROWS[1] - N_ROWS[0]) for what in few}
    yield "driver, few parts", in_process("driver", [str(folder / "driver-few"), str(N_FEW)])
    yield "driver", in_process("driver", [str(folder / "driver"), str(N_MANY)])
    yield "identify, photos/s", in_process("identify", [str(photos)])
    yield "solve, s", in_process("solve", [])


class TwoFolders:
    """A store with a folder of two folders of photos, as pyarrow lists one."""

    def __init__(self, n: int) -> None:
        self._n = n

    def get_file_info(self, asked: Any) -> list[Any]:
        from pyarrow.fs import FileInfo, FileType

        if asked.base_dir.endswith("photos"):
            return [FileInfo(f"{asked.base_dir}/{name}", FileType.Directory) for name in "ab"]
        return [
            FileInfo(f"{asked.base_dir}/{i:012d}.jpg", FileType.File, size=20_000 + i, mtime_ns=10**18 + i)
            for i in range("ab".index(asked.base_dir[-1]), self._n, 2)
        ]


class Memory:
    """The most bytes of this process that are in memory and in no file, as a thread sees them. Linux alone."""

    EVERY_S = 0.02

    def __init__(self) -> None:
        self._peak, self._ends = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak(self) -> int:
        self._ends.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ends.wait(self.EVERY_S):
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self._peak = max(self._peak, 1024 * own)


def lists(n: str, folder: str) -> dict[str, float]:
    """Peak bytes and seconds of this process until it has the catalog of `n` photos and their parts."""
    from rehead.auditing import ties
    from rehead.auditing.kept import REMEMBERED, Kept
    from rehead.cluster.computing import _named
    from rehead.cluster.pool import MOST
    from rehead.divided import job_order
    from rehead.job import Job
    from rehead.tuning.recipe import Recipe

    cache = Path(folder)
    cache.mkdir()
    spill_into(cache)
    address, begun = "s3://bucket/photos/", time.monotonic()
    memory = Memory()
    listing.store_at = lambda *_: (TwoFolders(int(n)), "bucket/photos")
    stamps = listing.listed(address, Request(cache=cache))
    layout, reading = recognised(stamps.paths)
    source = Source(
        "made-up",
        layout,
        reading.rows,
        read=lambda row: PICTURE + row.path.encode(),
        skipped=[],
        uri=lambda row: address + row.path,
        stamp=lambda row: stamps[row.path],
    )
    catalog = scan(source, seed=0, valid_fraction=0.2)
    order = job_order(catalog, Recipe())
    random, kept = np.random.default_rng(0), Kept(cache)
    for digests in batched(catalog.columns.digests, REMEMBERED):
        kept.keep([(digest, replace(FACTS, hash=int.from_bytes(random.bytes(32), "big"))) for digest in digests])
    compare, compared = ties.near_pairs, []

    def timed(*arguments: Any, **more: Any) -> Any:
        wall, core = time.monotonic(), time.process_time()
        found = compare(*arguments, **more)
        compared.extend([time.monotonic() - wall, time.process_time() - core])
        return found

    ties.near_pairs = timed
    catalog = ties.tied(Job(catalog, cache), order).catalog
    n_handed = 0
    for some in batched(order, N_HANDED):
        parts = list(_named(catalog, some, MOST, []))
        n_handed += sum(len(part) for part in parts)
    assert n_handed == int(n)
    return {"bytes": memory.peak(), "s": time.monotonic() - begun - compared[0], "compared, s of a core": compared[1]}


def driver(folder: str, n_photos: str = str(N_MANY)) -> dict[str, float]:
    """Photos/s between the first part that comes back and the last, and for each second of CPU of this process; and the seconds
    before the first."""
    from rehead.cluster import computing, pool
    from rehead.cluster.connection import connected
    from rehead.exporting.prefixes import ready_prefix
    from rehead.features.extract import extract
    from rehead.features.store import Store
    from scaling import idle

    cache = Path(folder)
    prefix = ready_prefix(BACKBONE, weights=None, arguments={}, cut="pool", cache=cache, progress=Silent())
    n = max(int(n_photos), pool.MOST * pool.PARTS_A_CORE * n_cores())
    assert pool.part_of(n, n_cores()) == pool.MOST
    photos = tuple(Photo(f"a/{i:012d}.jpg", "ab"[i % 2], "train", i.to_bytes(32, "big")) for i in range(n))
    catalog = Catalog("made-up", "folders", photos, ("a", "b"), lambda _: PICTURE, file=lambda photo: f"/{photo.path}")
    pool.Worker = idle.IdleWorker
    came: list[tuple[float, float, int]] = []
    with connected("local") as cluster, Store.open(cache, "driver", shape=prefix.card.shape, about={}) as store:
        begun = time.monotonic()
        compute = computing.Ray(cluster).compute(catalog, range(n), prefix, "onnxruntime", "cpu", "plain")
        done = extract(
            catalog, range(n), compute, store=store, progress=Silent(), max_bad=0.0, stop=lambda: False,
            on_features=lambda positions, _: came.append((time.monotonic(), time.process_time(), len(positions))),
        ).done  # fmt: skip
    assert done == n
    (first, first_cpu, first_n), (last, last_cpu, _) = came[0], came[-1]
    return {
        "photos/s": (n - first_n) / (last - first),
        "photos for a second of CPU": (n - first_n) / (last_cpu - first_cpu),
        "to the first, s": first - begun,
        "photos": n,
        "bytes that come back, a photo": idle.answer([0] * pool.MOST, prefix.card.shape).nbytes / pool.MOST,
    }


def identify(photos: str) -> float:
    """Photos/s of tasks on all cores, once Ray runs and its processes are there."""
    from rehead.cluster import computing
    from rehead.cluster.connection import connected
    from rehead.data import far
    from rehead.parallel import ordered_map
    from scaling.idle import identify_files

    paths = sorted(Path(photos).glob("*/*.jpg"))
    rows = [(str(path), f"{path.parent.name}/{path.name}") for path in paths]
    with connected("local") as cluster:
        machines = computing.Ray(cluster)
        for _ in range(2):  # the first begins the processes
            begun = time.monotonic()
            found = ordered_map(
                lambda part: machines.each(identify_files, part), batched(rows, far.CHUNK),
                workers=machines.at_once, ahead=4 * machines.at_once,
            )  # fmt: skip
            assert all(isinstance(one, bytes) for part in found for one in part)
            took = time.monotonic() - begun
    return len(rows) / took


def solve() -> dict[int, float]:
    """Seconds by photos, most often the second time: the first loads libraries."""
    from rehead.data.split import fold_numbers
    from rehead.tuning.recipe import Recipe
    from rehead.tuning.tasks import fit_task

    random, took = np.random.default_rng(0), {}
    means = random.normal(0, 0.25, (2, WIDTH)).astype(np.float32)
    for n in (1_000, *N_SOLVED):
        labels = np.arange(n) % 2
        features = random.standard_normal((n, WIDTH), np.float32) + means[labels]
        keys = [i.to_bytes(32, "big") for i in range(n)]
        folds = fold_numbers(keys, labels, n_folds=Recipe().folds, seed=0)
        begun = time.monotonic()
        fit_task("classification", features, labels, 2, folds, Recipe(), "cpu", Silent())
        took[n] = time.monotonic() - begun
    return {n: took[n] for n in N_SOLVED}


def one(what: str, words: list[str]) -> str:
    """What `cases.in_process` asked for, as JSON."""
    jobs: dict[str, Any] = {"lists": lists, "driver": driver, "identify": identify, "solve": solve}
    return json.dumps(jobs[what](*words))
