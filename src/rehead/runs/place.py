"""Whether a run may be written where somebody asks for it, and what is said where it may not."""

from __future__ import annotations

import os
from pathlib import Path

from rehead.errors import RunError, command
from rehead.runs.contents import is_bare, is_ours, is_running, not_ours

WAIT, WAIT_OR_OUT = "Wait for it.", "Wait for it, or name another --out."  # where another job writes a run


def check_idle(run: Path, fix: str = WAIT_OR_OUT) -> None:
    """Raises RunError where another job writes this run."""
    if is_running(run):
        raise is_written(run, fix)


def check_free(out: Path, force: bool) -> None:
    """Raises RunError where this folder is neither empty nor one that is to be replaced, and can be."""
    if is_bare(out):
        return
    if not (force and is_ours(out)):
        raise _exists(out, force)
    if foreign := not_ours(out):
        raise RunError(
            what=f"{out} holds files that are not the run's: {', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''}.",
            why="--force replaces the whole folder, and they would be lost.",
            fix="Move them away, or name another folder.",
        )
    if os.path.ismount(os.path.realpath(out)):
        raise RunError(
            what=f"{out} is a mounted folder, which cannot be replaced, and it holds a run.",
            fix=f"Name a folder in it, as --out {out / 'run'}, or empty it first.",
        )


def is_written(run: Path, fix: str) -> RunError:
    return RunError(what=f"Another job is writing {run}.", fix=fix)


def _exists(out: Path, force: bool) -> RunError:
    if force:
        return RunError(
            what=f"{out} is there already and is no run of rehead, so --force does not replace it.",
            fix="Name another folder, or move that one away.",
        )
    if (out / "recipe.toml").is_file() and not (out / "verdict.json").is_file():
        return RunError(
            what=f"{out} is there already: a run that was interrupted.",
            fix=f"Go on with it: {command('tune', '--resume', out)}; "
            "or name another --out, or replace it with --force.",
        )
    if not is_ours(out):
        return RunError(what=f"{out} is there already and is no run of rehead.", fix="Name another folder: --out DIR")
    return RunError(what=f"{out} is there already.", fix="Name another --out, or replace it with --force.")
