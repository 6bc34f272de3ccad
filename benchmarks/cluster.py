"""Claim: on as many cores, a Ray cluster extracts at four fifths of the rate of one machine or more, once it runs.

Cats and dogs, 1,399 photos, alone and with `--ray local`, in turns, each in a process and a cache of its own in which the
network is exported already. "Once it runs": between the first photos that come back and the last. What it costs to begin
Ray, its actors and its data plane is told beside it. Medians of three.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measured import dogscats_manifest, median, report

import rehead
from rehead.progress import Silent


class Watched(Silent):
    """When photos came back while they were extracted."""

    def __init__(self) -> None:
        self.came: list[tuple[float, int]] = []
        self._extracts = False

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        del total, unit
        self._extracts = name == "Extracting"

    def advance(self, n: int = 1) -> None:
        if self._extracts and n:
            self.came.append((time.monotonic(), n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=4, help="for itself: alone or local, photos, cache, out")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    found: dict[str, list[dict[str, float]]] = {"alone": [], "local": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, before = dogscats_manifest(folder), folder / "before"
        rehead.tune(photos, limit=20, cache=before, out=folder / "first", report=False)
        shutil.rmtree(before / "features")
        for number in range(options.rounds):
            for how, rows in found.items():
                cache = shutil.copytree(before, folder / f"{how}{number}")
                words = ["--one", how, str(photos), str(cache), str(folder / f"run-{how}{number}")]
                done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(how, rows[-1], flush=True)
    report("cluster", facts(found))


def one(how: str, photos: str, cache: str, out: str) -> dict[str, float]:
    watched, begun = Watched(), time.monotonic()
    where: Any = {"ray": "local"} if how == "local" else {}
    tuned = rehead.tune(photos, cache=cache, out=out, report=False, progress=watched, **where)
    n = sum(n for _, n in watched.came)
    (first, first_n), (last, _) = watched.came[0], watched.came[-1]
    return {
        "seconds": time.monotonic() - begun,
        "connect": tuned.seconds.get("connect", 0.0),
        "extract": tuned.seconds["extract"],
        "first": first - begun,
        "rate": (n - first_n) / (last - first),
        "right": tuned.verdict.top1.value,
    }


def facts(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    names = {
        "seconds": "the job, s",
        "connect": "to begin Ray, s",
        "extract": "of it extraction, s",
        "first": "to the first photos, s",
        "rate": "images/s once it runs",
    }
    rows = {
        f"{how}: {words}": median([run[name] for run in runs])
        for how, runs in found.items()
        for name, words in names.items()
    }
    ratios = [there["rate"] / here["rate"] for here, there in zip(found["alone"], found["local"], strict=True)]
    return {**rows, "rate with --ray local, of that of one machine": median(ratios)}


if __name__ == "__main__":
    main()
