"""Claims: scanning 100,000 files takes under 30 s and 500 MB; at 25,000 photos a second head takes <= 1/50 of the first
run, and memory is at most 200 MB above that at 1,399 photos.

Generated photos. One run each: the first takes minutes. `scale.py 10000` takes fewer photos.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measured import dogscats_manifest, generated, report, timed

N_FILES = 100_000
N_PHOTOS = int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 25_000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = {}
        files = folder / "files"
        _many_files(files)
        seconds, peak_mb = json.loads(_in_process(files))
        facts[f"scan of {N_FILES} files, s"] = f"{seconds:.1f}"
        facts[f"scan of {N_FILES} files, peak MB"] = f"{peak_mb:.0f}"
        small = timed(
            ["tune", str(dogscats_manifest(folder)), "--json", "--no-report"], cache=folder / "small", cwd=folder
        )
        photos = str(generated(folder / "photos", N_PHOTOS))
        first = timed(["tune", photos, "--json", "--no-report"], cache=folder / "cache", cwd=folder)
        second = timed(
            ["tune", photos, "--json", "--no-report", "--head", "prototype"], cache=folder / "cache", cwd=folder
        )
        third = timed(
            ["tune", photos, "--json", "--no-report", "--class-weight", "balanced"], cache=folder / "cache", cwd=folder
        )
        for what, run in (("first run", first), ("prototype head", second), ("balanced linear head", third)):
            facts[f"{N_PHOTOS} photos, {what}, s"] = f"{run['seconds']:.1f}"
        facts["prototype head / first run"] = f"1/{first['seconds'] / second['seconds']:.0f}"
        facts["linear head / first run"] = f"1/{first['seconds'] / third['seconds']:.0f}"
        facts["phases of the linear head's run, s"] = json.dumps(json.loads(third["output"])["seconds"])
        facts["peak memory at 1,399 photos, MB"] = f"{small['peak_mb']:.0f}"
        facts[f"peak memory at {N_PHOTOS} photos, MB"] = f"{first['peak_mb']:.0f}"
        report("scale", facts)


def _many_files(folder: Path) -> None:
    """100,000 tiny PNG files, each with other bytes."""
    body = (generated(folder.parent / "one", 1, side=16) / "a" / "000000.jpg").read_bytes()
    for i in range(N_FILES):
        path = folder / "ab"[i % 2] / f"{i:06d}.jpg"
        if i < 2:
            path.parent.mkdir(parents=True)
        path.write_bytes(body + i.to_bytes(4, "big"))


def _in_process(files: Path) -> str:
    command = [sys.executable, __file__, "--scan", str(files)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout


def _scan(files: Path) -> None:
    from rehead.data.scan import scan
    from rehead.data.sources import open_source

    begun = time.monotonic()
    scan(open_source(files, cache=files), seed=0, valid_fraction=0.2)
    took = time.monotonic() - begun
    print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))


if __name__ == "__main__":
    _scan(Path(sys.argv[2])) if sys.argv[1:2] == ["--scan"] else main()
