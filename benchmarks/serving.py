"""Claims: at saturation the service answers >= 80 % of 1 / (1/E + 1/D) photos/s, E and D being what engine and decoder do alone
on all cores with the same photos; with many clients it is no slower than a plain FastAPI handler.

E, D and the service (32 clients, one photo a request) in turn, five rounds, the median of their ratios. The client runs on the
same cores: the ratio is said as it is, and with the client's CPU seconds taken off the cores' time. Latencies at 1, 8 and 32
clients of the service and of two plain handlers, in turn, three rounds. Both answer in FastAPI's threads, as its pages say of
what blocks; the network takes one thread a call, as the service's, or all cores, as ONNX Runtime does where nothing is said.
The bundle is tuned on the photos first.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measured import DATA, REHEAD, report, timed

from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import prepare
from rehead.predict import BATCH, load

HERE = Path(__file__).parent
N_PHOTOS, N_ROUNDS = 240, 5
ENGINE_BATCHES = (1, 4, 8)  # E is the best of these
N_LATENCY, N_LATENCY_ROUNDS, CLIENTS = 96, 3, (1, 8, 32)
PLAIN = """
import json, onnxruntime, socket, sys, uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from rehead.predict import load
app, model = FastAPI(), load(sys.argv[1])
assert model._runner._session.get_session_options().intra_op_num_threads == 1
if sys.argv[2] == "all":
    model._runner._session = onnxruntime.InferenceSession(str(model.bundle.model), providers=["CPUExecutionProvider"])
@app.post("/v1/predict")
async def predict(request: Request):
    said = await run_in_threadpool(model.predict, await request.body())
    return {"results": [said.to_dict(model.task, 5)]}
bound = socket.socket(proto=socket.IPPROTO_TCP)  # as uvicorn makes it from a port: else asyncio leaves Nagle's delay on
bound.bind(("127.0.0.1", 0))
print(json.dumps({"address": "http://127.0.0.1:%d" % bound.getsockname()[1]}), file=sys.stderr, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([bound])
"""


class Running:
    """A server in a process of its own. Both kinds say their address in the first line of standard error."""

    def __init__(self, command: list[str], log: Path) -> None:
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stderr=file)
        while not (said := log.read_text()).endswith("\n"):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.05)
        self.port = int(json.loads(said.splitlines()[0])["address"].rpartition(":")[2])

    def asked(self, n_clients: int, n_requests: int, photos: Path) -> dict[str, Any]:
        """What the client says: see asking.py."""
        words = [sys.executable, str(HERE / "asking.py"), str(self.port), str(n_clients), str(n_requests), str(photos)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tuned = timed(["tune", str(DATA / "dogscats"), "--json", "--no-report"], cache=folder / "cache", cwd=folder)
        bundle, photos = str(folder / json.loads(tuned["output"])["bundle"]), _photos(folder / "asked")
        servers = {
            "service": Running([*REHEAD, "serve", bundle, "--port", "0"], folder / "service"),
            "plain, one thread": Running([sys.executable, "-c", PLAIN, bundle, "one"], folder / "plain1"),
            "plain, all cores": Running([sys.executable, "-c", PLAIN, bundle, "all"], folder / "plain2"),
        }
        try:
            facts = {
                "photos": N_PHOTOS,
                **_saturation(Path(bundle), servers["service"], photos),
                **_latency(servers, photos),
            }
        finally:
            for server in servers.values():
                server.end()
        report("serving", facts)


def _photos(folder: Path) -> Path:
    """Every so many of the cats and dogs, under names that mix them."""
    folder.mkdir()
    paths = sorted((DATA / "dogscats").glob("*/*.jpg"))
    for i, path in enumerate(paths[:: max(1, len(paths) // N_PHOTOS)][:N_PHOTOS]):
        shutil.copy(path, folder / f"{(i * 7919) % 10_000:05d}.jpg")
    return folder


def _saturation(bundle: Path, service: Running, photos: Path) -> dict[str, Any]:
    model, cores = load(bundle), n_cores()
    data = [path.read_bytes() for path in sorted(photos.iterdir())]
    pixels = [prepare(one, model.bundle.preprocess) for one in data]
    workers: dict[str, Any] = {"workers": cores, "ahead": 2 * cores}

    def engine(batch: list[Any]) -> list[Any]:
        return model.predict_pixels(np.stack(batch))

    def decoder(batch: list[bytes]) -> list[Any]:
        return [prepare(one, model.bundle.preprocess) for one in batch]

    rounds = []
    for _ in range(N_ROUNDS):
        e = max(_rate(ordered_map(engine, batched(pixels, n), **workers), len(data)) for n in ENGINE_BATCHES)
        d = _rate(ordered_map(decoder, batched(data, BATCH), **workers), len(data))
        asked = service.asked(32, len(data), photos)
        bound = 1 / (1 / e + 1 / d)
        rate = len(data) / asked["wall_s"]
        alone = len(data) / (asked["wall_s"] - asked["cpu_s"] / cores)
        rounds.append(
            {"E": e, "D": d, "bound": bound, "service": rate, "ratio": rate / bound, "ratio without client": alone / bound,
             "client, CPU ms/photo": 1000 * asked["cpu_s"] / len(data)}
        )  # fmt: skip
    return {f"saturation, {key}": _median([row[key] for row in rounds]) for key in rounds[0]}


def _latency(servers: dict[str, Running], photos: Path) -> dict[str, Any]:
    facts = {}
    for n_clients in CLIENTS:
        found: dict[str, list[list[float]]] = {name: [] for name in servers}
        for _ in range(N_LATENCY_ROUNDS):
            for name, server in servers.items():
                asked = server.asked(n_clients, N_LATENCY, photos)
                ms = np.array(asked["took_s"]) * 1000
                found[name].append([*np.percentile(ms, [50, 99]), N_LATENCY / asked["wall_s"]])
        for name, rows in found.items():
            for what, values in zip(("p50, ms", "p99, ms", "photos/s"), zip(*rows, strict=True), strict=True):
                facts[f"{n_clients} clients, {name}, {what}"] = _median(list(values))
    return facts


def _rate(results: Iterator[Any], n: int) -> float:
    """Photos a second."""
    begun = time.perf_counter()
    for _ in results:
        pass
    return n / (time.perf_counter() - begun)


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g}, {len(values)} rounds)"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
