"""How far rehead is from this machine, and how it grows.

machine   float32 FLOP/s of a matrix product of 4096 rows on all cores, by NumPy and by PyTorch, the better of the two; bytes/s
          of STREAM's triad a = b + 3 c on arrays far beyond the caches, by PyTorch on all cores (24 bytes for each float64)
engines   bare images/s of each engine on the default backbone, on pixels that are there, over batches and threads, what is
          best named; its FLOP/s (two for each multiply-add of the network) as a share of the product's
pipeline  claim: extraction from JPEG files into the store, with the engine that `auto` takes, runs at >= 0.9 of
          1 / (1/E + 1/D): E the best that any engine gives in float32, D the decoder alone, all on the same cores, in turn;
          and the same by OpenVINO in bfloat16, where the CPU multiplies in that
growth    seconds, peak memory and disk of whole jobs, and of all but extraction, on up to 100,000 photos: see `growth.py`

Parts can be run apart (--parts machine,engines); results are put beside those of earlier runs, and of each
part the commit; a share of the product is of the one that was known then. --quick shows that it runs, and keeps nothing.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import count, numbers, some_of
from growth import SIZES, growth
from machine import commit
from measured import DATA, earlier, report

from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.exporting.prefixes import ready_prefix
from rehead.features.compared import open_engine
from rehead.features.engines import Prefix, has_bfloat16, resolve
from rehead.features.extract import by_engine, extract
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import prepare
from rehead.progress import Silent
from rehead.runners import open_session

BACKBONE = "efficientnet_lite0"
IN_BFLOAT16 = "openvino in bfloat16"
PARTS = ("machine", "engines", "pipeline", "growth")
Run = Callable[[np.ndarray], Any]


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--parts", type=some_of(PARTS), default=PARTS)
    asked.add_argument("--rounds", type=count, default=5)
    asked.add_argument("--seconds", type=float, default=2.0, help="of each measurement of an engine")
    asked.add_argument("--photos", type=int, default=640, help="of a round of the pipeline")
    asked.add_argument("--whole", type=numbers, default=SIZES, help="photos of whole jobs")
    asked.add_argument("--stored", type=numbers, default=SIZES, help="of jobs whose features are there")
    asked.add_argument("--quick", action="store_true")
    options = asked.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.photos, options.whole, options.stored = (
            2,
            0.2,
            48,
            [60, 120],
            [60, 120],
        )
    parts = options.parts
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = folder if options.quick else None
        facts = earlier("limits", kept)
        if "machine" in parts:
            facts |= machine(options) | {"machine, commit": commit()}
            report("limits", facts, kept)
        if {"engines", "pipeline"} & {*parts}:
            prefix = ready_prefix(BACKBONE, weights=None, arguments={}, cut="pool", cache=folder, progress=Silent())
            found = engines(prefix, facts.get("peak, GFLOP/s"), options)
            facts |= found.facts | {"engines, commit": commit()}
            report("limits", facts, kept)
            if "pipeline" in parts:
                for asked_for, kind in {"auto": "fp32", "openvino-bf16": "bf16"}.items():
                    if kind in found.best:
                        facts |= pipeline(prefix, asked_for, kind, found.best[kind], folder, options)
                        facts["pipeline, commit"] = commit()
                        report("limits", facts, kept)
        if "growth" in parts:
            facts |= growth(folder / "growth", options.whole, options.stored) | {"growth, commit": commit()}
            report("limits", facts, kept)


def machine(options: argparse.Namespace) -> dict[str, Any]:
    n, n_words = (1024, 4 << 20) if options.quick else (4096, 64 << 20)
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((n, n), np.float32) for _ in range(2))
    by_torch = torch.from_numpy(x), torch.from_numpy(y)
    a, b, c = (torch.ones(n_words, dtype=torch.float64) for _ in range(3))
    jobs: dict[str, tuple[Callable[[], Any], float]] = {
        "numpy": (lambda: x @ y, 2 * n**3),
        "torch": (lambda: by_torch[0] @ by_torch[1], 2 * n**3),
        "triad": (lambda: torch.add(b, c, alpha=3.0, out=a), 24 * n_words),
    }
    rates = {name: [] for name in jobs}
    for round_, (name, (job, work)) in itertools.product(range(1 + options.rounds), jobs.items()):
        seconds = took(job)
        if round_:
            rates[name].append(work / seconds / 1e9)
    best = max(("numpy", "torch"), key=lambda name: statistics.median(rates[name]))
    return {
        "peak, GFLOP/s": statistics.median(rates[best]),
        "peak in words": f"{words(rates[best])} GFLOP/s by {best}, float32, {n_cores()} cores",
        "memory in words": f"{words(rates['triad'])} GB/s by a triad, {n_cores()} cores",
    }


def took(job: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun


class Found:
    """facts: of the engines. best: of the fastest one of each precision its rate, how many threads call it, its batch, the
    call."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.best: dict[str, tuple[float, int, int, Run]] = {}


def engines(prefix: Prefix, peak: float | None, options: argparse.Namespace) -> Found:
    """The best of each engine over batches and threads; the medians of three passes, taken in turn."""
    found, side = Found(), prefix.card.preprocess
    photos = np.random.default_rng(0).integers(0, 256, (32, side.height, side.width, 3), np.uint8)
    rates: dict[tuple[str, int, int], list[float]] = {}
    opened = {
        (name, workers): open_bare(prefix, workers)
        for name, open_bare in bare().items()
        for workers in dict.fromkeys((n_cores(), 1))
    }
    for _ in range(1 if options.quick else 3):
        for (name, workers), run in opened.items():
            for batch in (1, 8, 32):
                rate = bare_rate(run, photos[:batch], workers, options.seconds)
                rates.setdefault((name, workers, batch), []).append(rate)
    for name in bare():
        key = max((key for key in rates if key[0] == name), key=lambda key: statistics.median(rates[key]))
        _, workers, batch = key
        rate = statistics.median(rates[key])
        gflops = rate * prefix.card.macs * 2 / 1e9
        share = f", {gflops / peak:.2f} of the product's" if peak else ""
        found.facts[f"{name}, images/s"] = (
            f"{words(rates[key])} with batches of {batch}, {workers} calls at once of {n_cores() // workers} threads; "
            f"{gflops:.0f} GFLOP/s{share}"
        )
        kind = "bf16" if name == IN_BFLOAT16 else "fp32"
        if kind not in found.best or rate > found.best[kind][0]:
            found.best[kind] = rate, workers, batch, opened[name, workers]
            found.facts[f"fastest engine, {kind}"] = name
    found.facts["all rates of engines, images/s"] = {
        f"{name}, {workers} calls, batch {batch}": round(statistics.median(values), 1)
        for (name, workers, batch), values in rates.items()
    }
    return found


def bare_rate(run: Run, photos: np.ndarray, workers: int, seconds: float) -> float:
    """Images/s of `workers` threads that call it with the same photos for about so many seconds."""
    run(photos)  # makes room for what lies between layers
    n_calls = max(workers, round(seconds * workers / max(took(lambda: run(photos)), 1e-4)))
    done = ordered_map(lambda _: run(photos), range(n_calls), workers=workers, ahead=2 * workers)
    return n_calls * len(photos) / took(lambda: list(done))


def onnxruntime_bare(prefix: Prefix, workers: int) -> Run:
    session = open_session(prefix.onnx, threads=n_cores() // workers)
    return lambda pixels: session.run(["features"], {"pixels": pixels})[0]


def openvino_bare(prefix: Prefix, workers: int, kind: str = "f32") -> Run:
    import openvino

    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": kind, "NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": n_cores()}
    compiled = core.compile_model(core.read_model(prefix.onnx), "CPU", hints)
    return lambda pixels: np.array(compiled.create_infer_request().infer({0: pixels})[0])


def torch_bare(prefix: Prefix, workers: int) -> Run:
    """Eager, in the layout that suits its convolutions on a CPU."""
    assert prefix.network is not None
    network = prefix.network().eval().to(memory_format=torch.channels_last)

    def run(pixels: np.ndarray) -> np.ndarray:
        torch.set_num_threads(n_cores() // workers)
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255))

    return run


def bare() -> dict[str, Callable[[Prefix, int], Run]]:
    known: dict[str, Callable[[Prefix, int], Run]]
    known = {"onnxruntime": onnxruntime_bare, "openvino": openvino_bare, "torch": torch_bare}
    if has_bfloat16():
        known[IN_BFLOAT16] = partial(openvino_bare, kind="bf16")
    return known


def pipeline(
    prefix: Prefix,
    asked_for: str,
    kind: str,
    best: tuple[float, int, int, Run],
    folder: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """asked_for: the engine, as `--engine` takes it. kind: its precision. best: the fastest one in that."""
    catalog = scan(open_source(DATA / "dogscats", cache=folder), seed=0, valid_fraction=0.2)
    positions = [*range(0, len(catalog.photos), max(1, len(catalog.photos) // options.photos))][: options.photos]
    data = [catalog.read(catalog.photos[i]) for i in positions]
    preprocess = prefix.card.preprocess
    pixels = np.stack([prepare(one, preprocess) for one in data])
    name, device = resolve(asked_for, "cpu")
    engine = open_engine(prefix, name, device, lambda: pixels[:8])
    _, workers, batch, run = best

    def decoded() -> None:
        decode: Any = partial(map, lambda one: prepare(one, preprocess))
        list(ordered_map(lambda part: [*decode(part)], batched(data, 8), workers=n_cores(), ahead=2 * n_cores()))

    def ran() -> None:
        parts = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
        list(ordered_map(run, parts, workers=workers, ahead=2 * workers))

    def together() -> None:
        with Store.open(folder, f"round{time.monotonic_ns()}", shape=prefix.card.shape, about={}) as store:
            extract(
                catalog, positions, by_engine(catalog, positions, engine, partial(stored_views, PLAIN, preprocess)),
                store=store, progress=Silent(), max_bad=0.2, stop=lambda: False, on_features=lambda *_: None,
            )  # fmt: skip
        shutil.rmtree(folder / "features")

    jobs = {"E, the fastest engine": ran, "D, the decoder": decoded, "extraction": together}
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for round_, (what, job) in itertools.product(range(1 + options.rounds), jobs.items()):
        seconds = took(job)
        if round_:  # the first warms up
            rates[what].append(len(positions) / seconds)
    bound = [1 / (1 / e + 1 / d) for e, d in zip(*[*rates.values()][:2], strict=True)]
    of = f"pipeline, {kind}"
    facts = {f"{of}: {what}, images/s": words(values) for what, values in rates.items()}
    facts[f"{of}: 1 / (1/E + 1/D), images/s"] = words(bound)
    facts[f"{of}: engine that {asked_for} takes"] = engine.name
    facts[f"{of}: extraction of the bound"] = words([x / b for x, b in zip(rates["extraction"], bound, strict=True)], 3)
    return facts


def words(values: list[float], digits: int = 1) -> str:
    """The median and the range."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f}, {len(values)} rounds)"


if __name__ == "__main__":
    main()
