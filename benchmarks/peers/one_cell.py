"""One cell of the matrix: a peer trains on a set of photos, in an empty folder, and what that cost is told.

Nothing of the harness is in the environment of a peer, no model hub can be asked, and libraries choose their threads by
themselves. Environments were compiled when they were built, and what a program imports is imported once unmeasured, so that
nobody pays for .pyc files or a cold disk. A cell begins when the machine is idle.
"""

from __future__ import annotations

import ast
import datetime
import functools
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments
from cells import Cell, judged
from entrants import Peer
from lines import user_lines
from photos import SETS
from places import ROOT, commit, instructions, processor
from watched import Watched, watch

from rehead.parallel import n_cores

IDLE, IDLE_S = 0.1, 60.0  # a cell begins where the cores are busy less than this, or after so many seconds
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
    _warm_up(python, peer.train)
    busy_before = idle()
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
    if peer.after:
        after = _watch(
            peer.after, [str(folder / "train"), str(out)], python, environment, folder / "after", PREDICTION_S
        )
        if not after.is_fine:
            return _ended(peer, after)
    try:
        right = judged(out / "heldout.csv", bench.photos[cell.data] / "val")
        epochs = [float(seconds) for seconds in json.loads((out / "epochs.json").read_text())]
        first = cell.seed == 0 and cell.mode == peer.modes[0] and cell.data == SETS[0]
        predict_s = _predictions(peer, cell, bench, python, environment, folder) if first else []
    except (OSError, ValueError, KeyError) as error:
        return {**_ended(peer, ran), "outcome": "wrong", "last_lines": [f"{type(error).__name__}: {error}"]}
    return {
        "outcome": "done",
        "busy_before": busy_before,
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
    refused = [line for line in ran.last_lines if peer.refuses and peer.refuses in line]
    outcome = "timeout" if ran.timed_out else "cannot" if ran.status == CANNOT or refused else "failed"
    return {"outcome": outcome, "status": ran.status, **_cost(ran), "last_lines": refused or ran.last_lines}


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
def _warm_up(python: str, program: Path) -> None:
    """Imports once what the program imports: the files are in the page cache from then on. A shell script is rehead's."""
    ours = "import rehead.run, onnx, onnxruntime, timm"
    lines = imports_of(program.read_text(encoding="utf-8") if program.suffix == ".py" else ours)
    code = "import contextlib\n" + "".join(f"with contextlib.suppress(Exception): {line}\n" for line in lines)
    subprocess.run([python, "-c", code], capture_output=True)


def imports_of(program: str) -> list[str]:
    """The import statements anywhere in a Python program. Of packages that load lazily it is the names that load something."""
    nodes = ast.walk(ast.parse(program))
    return list(dict.fromkeys(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)))


def idle() -> float:
    """Waits until the cores are idle, IDLE_S at most; how busy they were in the last second, in 0..1."""
    ends, before = time.monotonic() + IDLE_S, _ticks()
    while True:
        time.sleep(1)
        now = _ticks()
        busy = 1 - (now[0] - before[0]) / max(now[1] - before[1], 1)
        if busy < IDLE or time.monotonic() > ends:
            return round(busy, 3)
        before = now


def _ticks() -> tuple[int, int]:
    """Of all cores since the machine started: idle or waiting for a disk, and all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return ticks[3] + ticks[4], sum(ticks[:8])


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
        "machine": {
            "processor": processor(),
            "cores": n_cores(),
            "memory_gb": memory_gb(),
            "instructions": instructions(),
        },
    }


@functools.cache
def _size(folder: Path) -> int:
    return environments.size_bytes(folder)


@functools.cache
def _versions(python: Path, tools: tuple[str, ...]) -> dict[str, str]:
    return environments.versions(python, list(tools))


def memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
