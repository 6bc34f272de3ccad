"""Claims: all but extraction for 10,000 photos takes under 60 s on two cores, the report of cats and dogs under 8 s warm.

All but extraction is `rehead tune` on generated photos whose features are in the store already: random numbers that tell
two classes apart. It scans, solves, calibrates, audits every photo, solves heads at
growing fractions and writes the report. The page of the 1,399 cats and dogs is written from a run that is there, three times.
`trust.py 2000` takes fewer photos.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import blake3
import numpy as np
from measured import DATA, generated, median, report, timed

from rehead.exporting.prefixes import ready_prefix
from rehead.features.store import Store
from rehead.progress import Silent

N_PHOTOS = int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 10_000
N_REPORTS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts: dict[str, object] = {}
        photos = generated(folder / "photos", N_PHOTOS)
        _fill(folder / "cache", photos)
        run = timed(["tune", str(photos), "--json", "--out", str(folder / "run")], cache=folder / "cache", cwd=folder)
        told = json.loads(run["output"])
        assert told["images"]["from_store"] == N_PHOTOS
        facts[f"{N_PHOTOS} photos, all but extraction, s"] = f"{run['seconds']:.1f}"
        facts["its phases, s"] = json.dumps(told["seconds"])
        facts["its peak memory, MB"] = f"{run['peak_mb']:.0f}"
        facts["its page, MB"] = f"{(folder / 'run' / 'report.html').stat().st_size / 1e6:.1f}"
        real = timed(
            ["tune", str(DATA / "dogscats"), "--json", "--out", str(folder / "pets")],
            cache=folder / "cache",
            cwd=folder,
        )
        facts["cats and dogs, first run with its report, s"] = f"{real['seconds']:.1f}"
        took = [
            timed(["report", str(folder / "pets")], cache=folder / "cache", cwd=folder)["seconds"]
            for _ in range(N_REPORTS)
        ]
        facts["cats and dogs, the report again, s"] = median(took)
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "rehead", "verify", str(folder / "pets"), "--folds", "5", "--json"],
            check=True, stdout=subprocess.DEVNULL, env={**os.environ, "REHEAD_CACHE": str(folder / "cache")},
        )  # fmt: skip
        facts["cats and dogs, 5 folds from the store, s"] = f"{time.monotonic() - begun:.1f}"
        report("trust", facts)


def _fill(cache: Path, photos: Path) -> None:
    """Random features of every photo, in the store of the default backbone."""
    prefix = ready_prefix("efficientnet_lite0", weights=None, arguments={}, cut="pool", cache=cache, progress=Silent())
    random = np.random.default_rng(0)
    means = {label: random.normal(0, 0.25, prefix.card.shape) for label in ("a", "b")}
    identity = f"{prefix.card.identity[:32]}-plain-fp32"
    with Store.open(cache, identity, shape=prefix.card.shape, about={"backbone": "efficientnet_lite0"}) as store:
        files = sorted(photos.glob("*/*.jpg"))
        for start in range(0, len(files), 1_000):
            part = files[start : start + 1_000]
            rows = random.normal(0, 1, (len(part), *prefix.card.shape)).astype(np.float32)
            store.put(
                (blake3.blake3(path.read_bytes()).digest(), row + means[path.parent.name].astype(np.float32))
                for path, row in zip(part, rows, strict=True)
            )


if __name__ == "__main__":
    main()
