"""The command that repeats a job: the photos it was asked for, and the settings that are not as they come."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rehead.data.addresses import is_address, local_path
from rehead.runs.listing import Run
from rehead.runs.resume import Asked
from rehead.tuning.options import option


def command(asked: Asked, run: Run) -> tuple[tuple[str, str], ...]:
    """What to type to have the run again, and where.

    A report may be handed on, so its paths begin in the folder that holds all that is named; where that is the root alone, they
    are no more than names, and it says so.
    """
    named = {"photos": asked.source, "valid": asked.valid, "test": asked.test, "from": asked.from_run}
    weights = run.recipe.weights
    shown, where = _shown([name for name in (*named.values(), weights) if name is not None])
    words = ["rehead", "tune", shown.get(named.pop("photos"), "PHOTOS")]
    if asked.layout != "auto":
        words += ["--layout", asked.layout]
    for place, name in named.items():
        if name is not None:
            words += [f"--{place}", shown[name]]
    for setting, value in run.settings().items():
        if setting == "backbone_args":
            words += [word for key, own in value.items() for word in (option(setting), argument(key, own))]
        elif isinstance(value, bool):
            words.append(option(setting) if value else option(f"no-{setting}"))
        elif setting == "budget_s":
            words += [option(setting), f"{value:g}s"]
        else:
            words += [option(setting), shown[weights] if setting == "weights" else str(value)]
    if asked.with_neighbours:
        words.append("--with-neighbours")
    for side in asked.objects:
        words += [f"--{side}", side.upper()]
    for name in [*(["PHOTOS"] if asked.source is None else []), *map(str.upper, asked.objects)]:
        where += ((name, "were handed over in Python, and are no files"),)
    return (("command", shlex.join(words)), *where)


def argument(name: str, value: object) -> str:
    """What to type behind --backbone-arg: NAME=VALUE."""
    return f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"


def _shown(names: Sequence[str]) -> tuple[dict[str | None, str], tuple[tuple[str, str], ...]]:
    """How each of these full paths and addresses is told, and where the paths begin. Addresses stay as they are."""
    local = {name: local_path(name) if is_address(name) else Path(name) for name in names}
    paths = {name: path for name, path in local.items() if path is not None}
    shown: dict[str | None, str] = {name: name for name in names}
    if not paths:
        return shown, ()
    try:
        folder = Path(os.path.commonpath([path.parent for path in paths.values()]))
    except ValueError:  # on several drives
        folder = Path(os.sep)
    if len(paths) > 1 and folder == folder.parent:
        shown |= {name: path.name for name, path in paths.items()}
        return shown, (("paths", "are names alone, as they lie far apart: write them whole"),)
    shown |= {name: path.relative_to(folder).as_posix() for name, path in paths.items()}
    return shown, (("typed in", "the folder that its paths begin in"),)
