"""How time, memory and disk of a job grow with its photos; a part of `limits.py`, which runs it and keeps its figures.

Seconds, peak memory and disk of `rehead tune --no-report` on generated photos: whole jobs, and all but extraction, by random
features that are in the store already. The backbone was used before, on 40 photos. Slopes of log against log: 1 is linear. A
slope from the smallest to the largest has the fixed costs in it, the last one hardly any.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured import generated, timed
from trust import _fill

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
SIDE = 96  # pixels of generated photos: 100,000 are written in minutes


def growth(folder: Path, whole: Sequence[int], stored: Sequence[int]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    before = folder / "before"  # the backbone is exported, and its engine compared with PyTorch
    timed(["tune", str(generated(folder / "few", 40, side=SIDE)), "--no-report"], cache=before, cwd=folder)
    shutil.rmtree(before / "features")
    for kind, sizes in (("whole job", whole), ("all but extraction", stored)):
        rows: dict[int, dict[str, float]] = {}
        for n in sizes:
            rows[n] = one_job(folder / f"{n}", before, n, is_stored=kind == "all but extraction")
            print(f"{kind}, {n} photos: {rows[n]}", flush=True)
        for what in ("seconds", "peak_mb", "disk_mb"):
            curve = {n: row[what] for n, row in rows.items()}
            facts[f"growth: {kind}, {what}"] = {str(n): round(value, 1) for n, value in curve.items()}
            facts[f"growth: {kind}, {what}, slope"] = (
                f"{slope(curve):.2f}; last {slope(dict([*curve.items()][-2:])):.2f}"
            )
    return facts


def one_job(folder: Path, before: Path, n: int, *, is_stored: bool) -> dict[str, float]:
    """Seconds, peak MB of the process, and MB that cache and run take on the disk; the photos are not counted."""
    photos, cache, run = generated(folder / "photos", n, side=SIDE), folder / "cache", folder / "run"
    shutil.copytree(before, cache)
    if is_stored:
        _fill(cache, photos)
    told = timed(["tune", str(photos), "--json", "--no-report", "--out", str(run)], cache=cache, cwd=folder)
    images = json.loads(told["output"])["images"]
    assert images["used"] > 0.999 * n  # of 100,000 tinted pictures two may be the same
    assert images["from_store"] == (images["used"] if is_stored else 0)
    disk = sum(file.stat().st_blocks * 512 for part in (cache, run) for file in part.rglob("*") if file.is_file())
    shutil.rmtree(folder)
    return {"seconds": told["seconds"], "peak_mb": told["peak_mb"], "disk_mb": disk / 1e6}


def slope(curve: dict[int, float]) -> float:
    """Of log(value) against log(n), by least squares."""
    return float(np.polyfit(np.log([*curve]), np.log([*curve.values()]), 1)[0])
