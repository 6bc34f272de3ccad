"""What the benchmarks share: commands timed with their peak memory, the machine, and results written as JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import commit, instructions, processor, results_here
from PIL import Image

from rehead.parallel import n_cores

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("REHEAD_DATA", ROOT.parent / "shared" / "data"))
REHEAD = [sys.executable, "-m", "rehead"]


def dogscats_manifest(folder: Path) -> Path:
    """A manifest of the 1,399 cats and dogs with the 400 of dogscats_test.txt held out."""
    held_out = set((DATA / "dogscats_test.txt").read_text().split())
    rows = ["path,label,split"]
    for path in sorted((DATA / "dogscats").glob("*/*.jpg")):
        name = f"{path.parent.name}/{path.name}"
        rows.append(f"{path},{path.parent.name},{'test' if name in held_out else 'train'}")
    manifest = folder / "dogscats.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def copies(folder: Path, n: int) -> Path:
    """`n` photos in class folders, no two of the same bytes: a JPEG file may have bytes behind its end."""
    files = sorted((DATA / "dogscats").glob("*/*.jpg"), key=lambda file: (file.name.split(".")[1], file))
    for i in range(n):
        file = files[i % len(files)]
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / f"{i}.jpg").write_bytes(file.read_bytes() + i.to_bytes(4, "big"))
    return folder


def generated(folder: Path, n: int, side: int = 256) -> Path:
    """`n` JPEG files in two classes, quick to write: parts of a large picture of noise, turned, their colours changed. Next to
    none are near copies of others."""
    random = np.random.default_rng(0)
    cells = random.integers(0, 256, (24 * 16, 24 * 16, 3), np.uint8)
    large = np.asarray(Image.fromarray(cells).resize((16 * side, 16 * side), Image.Resampling.BICUBIC))
    for i in range(n):
        label = "ab"[i % 2]
        path = folder / label / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        top, left = (int(random.integers(15 * side)) for _ in range(2))
        part = np.rot90(large[top : top + side, left : left + side], int(random.integers(4)))
        part = part[:, :: random.choice([-1, 1]), random.permutation(3)].astype(np.int16)
        tint = np.array([30, 0, -30] if label == "a" else [-30, 0, 30]) + random.normal(0, 25, 3)
        Image.fromarray(np.clip(part + tint, 0, 255).astype(np.uint8)).save(path, quality=80)
    return folder


def timed(arguments: list[str], *, cache: Path, cwd: Path) -> dict[str, Any]:
    """Runs the program: wall and CPU seconds, peak resident MB, standard output, seconds to the first number."""
    begun, cpu_s = time.monotonic(), _children_s()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*REHEAD, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=cwd,
            env={**os.environ, "REHEAD_CACHE": str(cache)},
        )
        peak, first = 0, None
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            if first is None:
                errors.flush()
                if "held-out accuracy" in Path(f"/proc/self/fd/{errors.fileno()}").read_text():
                    first = time.monotonic() - begun
            time.sleep(0.02)
        output = process.stdout.read() if process.stdout else ""
        errors.seek(0)
        if process.wait() != 0:
            raise SystemExit(f"rehead {' '.join(arguments)} failed:\n{errors.read()}")
    took = {"seconds": time.monotonic() - begun, "cpu_s": _children_s() - cpu_s}
    return {**took, "peak_mb": peak / 1e6, "output": output, "first_number": first}


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def median(values: list[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}, {len(values)} runs)"


def earlier(name: str, folder: Path | None = None) -> dict[str, Any]:
    """The facts that a script left on this machine before, {} where it left none."""
    path = (folder or results_here()) / f"{name}.json"
    facts: dict[str, Any] = json.loads(path.read_text())["facts"] if path.exists() else {}
    return facts


def report(name: str, facts: dict[str, Any], folder: Path | None = None) -> None:
    """Prints the facts, and writes them with machine and versions to the folder, or to this machine's."""
    about = {
        "commit": commit(),
        "arguments": sys.argv[1:],
        "cores": n_cores(),
        "processor": processor(),
        "instructions": instructions(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("rehead", "onnxruntime", "torch", "timm", "numpy", "pillow")},
    }
    for key, value in facts.items():
        print(f"{key:58s} {value}")
    path = (folder or results_here()) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "facts": facts}, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a borrowed machine has what it has
        return None
