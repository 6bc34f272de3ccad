"""One cell of the matrix: a peer trains on a set of photos, in an empty folder, and what that cost is told.

Nothing of the harness is in the environment of a peer, no model hub can be asked, and libraries choose their threads by
themselves. Environments were compiled when they were built, and each runs once unmeasured, so that nobody pays for .pyc files.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
from cells import Cell, judged
from entrants import Peer
from lines import user_lines
from places import ROOT
from watched import Watched, watch

CANNOT = 3  # the exit status of a program whose tool has no such mode
PREDICTIONS = (
    3  # timed, after one that is not, in a peer's first cell alone: another seed or set of photos changes nothing
)
PREDICTION_S = 300.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled"}
OURS = (
    "PYTHON",
    "VIRTUAL_ENV",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "REHEAD_",
    "UV_",
)  # beginnings of variables that are not passed on


@dataclass(frozen=True, kw_only=True)
class Bench:
    """photos: the laid out folder of each set. weights: the file for all. timeout_s: for a training."""

    work: Path
    photos: dict[str, Path]
    weights: Path
    epochs: int
    timeout_s: float


def measured(peer: Peer, cell: Cell, bench: Bench) -> dict[str, Any]:
    """The facts of a cell. outcome: done, cannot, failed, timeout or wrong, the last where what it left cannot be judged."""
    if cell.mode not in peer.modes:
        return {**_about(peer, cell, bench), "outcome": "cannot", "last_lines": [f"{peer.title} has no such mode"]}
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        facts = _run(peer, cell, bench, Path(folder))
        names = {folder: "FOLDER", str(bench.work): "WORK", str(ROOT): "CHECKOUT"}
        facts["last_lines"] = [_renamed(line, names) for line in facts.get("last_lines", [])]
        return {**_about(peer, cell, bench), **facts}


def _renamed(line: str, names: dict[str, str]) -> str:
    """A line without the paths of this machine."""
    for path, name in names.items():
        line = line.replace(path, name)
    return line


def _run(peer: Peer, cell: Cell, bench: Bench, folder: Path) -> dict[str, Any]:
    environment, python = _environment(peer, bench, folder), str(_python(peer, bench))
    given = [str(bench.photos[cell.data]), str(bench.weights)]
    setting = [cell.mode, str(bench.epochs), str(cell.seed)]
    _warm_up(python)
    if peer.before:
        before = _watch(peer.before, [*given, "-", *setting], python, environment, folder / "before", bench.timeout_s)
        if not before.is_fine:
            return _ended(peer, before)
    out = folder / "out"
    out.mkdir()
    train = functools.partial(_watch, first_words=peer.first_number)
    ran = train(peer.train, [*given, str(out), *setting], python, environment, folder / "train", bench.timeout_s)
    if not ran.is_fine:
        return _ended(peer, ran)
    try:
        right = judged(out / "heldout.csv", bench.photos[cell.data] / "val")
        epochs = [float(seconds) for seconds in json.loads((out / "epochs.json").read_text())]
        first = cell.seed == 0 and cell.mode == peer.modes[0] and cell.data == next(iter(bench.photos))
        predict_s = _predictions(peer, cell, bench, python, environment, folder) if first else []
    except (OSError, ValueError, KeyError) as error:
        return {**_ended(peer, ran), "outcome": "wrong", "last_lines": [f"{type(error).__name__}: {error}"]}
    return {
        "outcome": "done",
        **_cost(ran),
        **right,
        "epochs_s": epochs,
        "artefact_bytes": environments.size_bytes(out / "artefact"),
        "predict_s": predict_s,
    }


def _predictions(
    peer: Peer, cell: Cell, bench: Bench, python: str, environment: dict[str, str], folder: Path
) -> list[float]:
    """Seconds from the shell to the name of one photo. Raises ValueError where that is not the name of a class."""
    held_out = bench.photos[cell.data] / "val"
    photo = sorted(held_out.glob("*/*"))[0]
    classes, seconds = {path.name for path in held_out.iterdir()}, []
    for i in range(PREDICTIONS + 1):
        place = folder / f"predict-{i}"
        asked = [str(folder / "out" / "artefact"), str(photo)]
        ran = _watch(peer.predict, asked, python, environment, place, PREDICTION_S)
        if not ran.is_fine or ran.answer not in classes:
            raise ValueError(f"predict: {' / '.join(ran.last_lines[-3:])}")
        seconds.append(ran.wall_s)
    return seconds[1:]


def _watch(
    program: Path,
    arguments: list[str],
    python: str,
    environment: dict[str, str],
    place: Path,
    timeout_s: float,
    first_words: str | None = None,
) -> Watched:
    place.mkdir()
    command = [python if program.suffix == ".py" else "bash", str(program), *arguments]
    log = place.with_suffix(".log")
    return watch(command, cwd=place, env=environment, log=log, timeout_s=timeout_s, first_words=first_words)


def _ended(peer: Peer, ran: Watched) -> dict[str, Any]:
    cannot = ran.status == CANNOT or bool(peer.refuses and any(peer.refuses in line for line in ran.last_lines))
    outcome = "timeout" if ran.timed_out else "cannot" if cannot else "failed"
    return {"outcome": outcome, "status": ran.status, **_cost(ran), "last_lines": ran.last_lines}


def _cost(ran: Watched) -> dict[str, Any]:
    first = {} if ran.first_s is None else {"first_s": round(ran.first_s, 3)}
    return {"wall_s": round(ran.wall_s, 3), "cpu_s": round(ran.cpu_s, 3), "peak_mb": round(ran.peak_mb, 1), **first}


def _environment(peer: Peer, bench: Bench, folder: Path) -> dict[str, str]:
    """The variables of a peer: its own programs first, a cache and a home of its own that are empty, nothing of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    own = bench.work / "envs" / peer.environment
    for name in ("home", "cache"):
        (folder / name).mkdir(exist_ok=True)
    places = {
        "HOME": str(folder / "home"),
        "REHEAD_CACHE": str(folder / "cache"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    return {
        **kept,
        **OFFLINE,
        **places,
        "VIRTUAL_ENV": str(own),
        "PATH": f"{own / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }


@functools.cache
def _warm_up(python: str) -> None:
    """Imports once what most of an environment's time to start goes to: its files are in the page cache from then on."""
    heavy = (
        "import importlib.util as u\nfor n in ('torch', 'timm', 'onnxruntime'):\n    u.find_spec(n) and __import__(n)"
    )
    subprocess.run([python, "-c", heavy], capture_output=True)


def _python(peer: Peer, bench: Bench) -> Path:
    return bench.work / "envs" / peer.environment / "bin" / "python"


def _about(peer: Peer, cell: Cell, bench: Bench) -> dict[str, Any]:
    tools = environments.required(peer.requirements)
    return {
        "peer": cell.peer,
        "title": peer.title,
        "data": cell.data,
        "mode": cell.mode,
        "seed": cell.seed,
        "epochs": bench.epochs,
        "lines": user_lines(peer.train),
        "environment_bytes": _size(bench.work / "envs" / peer.environment),
        "versions": _versions(_python(peer, bench), tuple(tools)),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0]},
    }


@functools.cache
def _size(folder: Path) -> int:
    return environments.size_bytes(folder)


@functools.cache
def _versions(python: Path, tools: tuple[str, ...]) -> dict[str, str]:
    return environments.versions(python, list(tools))


def commit() -> str:
    git = shutil.which("git")
    asked = [str(git), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, cwd=ROOT).stdout.strip() if git else ""


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
