"""Claims: a folder of 1,399 photos is predicted at >= 90 % of 1 / (1/E + 1/D), E and D being the images/s of engine and decoder
alone on the same cores in the same run; and what a light install weighs and how soon it answers.

Five rounds, each of the three in turn; the median of the rounds' ratios. The program is started seven times on one photo, in
the environment that `make .light/serve.done` installs without PyTorch, where it is there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured import DATA, ROOT, median, report, timed

import rehead
from rehead.parallel import batched, n_cores, ordered_map
from rehead.predict import BATCH

N_ROUNDS, N_STARTS = 5, 7
LIGHT = ROOT / ".light"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tuned = timed(
            ["tune", str(DATA / "dogscats"), "--json", "--no-report", "--out", str(folder / "run")],
            cache=folder / "cache",
            cwd=folder,
        )
        bundle = Path(json.loads(tuned["output"])["bundle"])
        report("predicting", {**rates(bundle), **starts(bundle), **sizes()})


def rates(bundle: Path) -> dict[str, Any]:
    model = rehead.load(bundle)
    paths = sorted((DATA / "dogscats").glob("*/*.jpg"))
    data = [path.read_bytes() for path in paths]
    pixels = [model.pixels(one) for one in data[:320]]
    workers: dict[str, Any] = {"workers": n_cores(), "ahead": 2 * n_cores()}

    def engine() -> int:
        return sum(
            len(part) for part in ordered_map(lambda b: model.judged(np.stack(b))[0], batched(pixels, BATCH), **workers)
        )

    def decoder() -> int:
        return sum(
            len(part) for part in ordered_map(lambda b: [model.pixels(d) for d in b], batched(data, BATCH), **workers)
        )

    def predicted() -> int:
        return sum(1 for _ in model.stream(paths))

    jobs = {"engine": engine, "decoder": decoder, "predicted": predicted}
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(N_ROUNDS):
        for name, job in jobs.items():
            begun = time.perf_counter()
            n = job()
            found[name].append(n / (time.perf_counter() - begun))
    ratios = [
        p * (1 / e + 1 / d) for e, d, p in zip(found["engine"], found["decoder"], found["predicted"], strict=True)
    ]
    return {
        "engine alone, images/s": median(found["engine"]),
        "decoder alone, images/s": median(found["decoder"]),
        "a folder predicted, images/s": median(found["predicted"]),
        "of what both allow": f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
    }


def starts(bundle: Path) -> dict[str, Any]:
    """Seconds from the shell to the answer on one photo, in the light install and in this one."""
    photo = next((DATA / "dogscats").glob("*/*.jpg"))
    programs = {
        "light install": LIGHT / "serve" / "bin" / "rehead",
        "whole install": Path(sys.prefix) / "bin" / "rehead",
    }
    found = {}
    for what, program in programs.items():
        if not program.is_file():
            continue
        took = []
        for _ in range(N_STARTS):
            begun = time.perf_counter()
            subprocess.run([program, "predict", bundle, photo], check=True, capture_output=True)
            took.append(time.perf_counter() - begun)
        found[f"rehead predict of one photo, {what}, s"] = median(took)
    return found


def sizes() -> dict[str, Any]:
    """Megabytes of what pip installed beside pip itself."""
    found = {}
    for extra in ("serve", "head"):
        for packages in (LIGHT / extra).glob("lib/python3*/site-packages"):
            kept = [
                entry
                for entry in packages.iterdir()
                if not entry.name.startswith(("pip", "setuptools", "pkg_resources"))
            ]
            found[f"installed by rehead[{extra}], MB"] = round(sum(size_of(entry) for entry in kept) / 1e6)
    return found


def size_of(entry: Path) -> int:
    if entry.is_file():
        return entry.stat().st_blocks * 512
    return sum(file.stat().st_blocks * 512 for file in entry.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
