"""Where a run is and its cache: whether it may be written where somebody asks for it, and what is said where it may not."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rehead.errors import RunError, command
from rehead.features.cache import cache_folder
from rehead.runs.contents import is_bare, is_ours, is_running, not_ours

WAIT, WAIT_OR_OUT = "Wait for it.", "Wait for it, or name another --out."  # where another job writes a run


def cache_of(run: str | os.PathLike[str] | None, asked: str | os.PathLike[str] | None) -> Path:
    """The cache folder that is asked for; else the one that a run, or that of a bundle in it, was told to keep its features in,
    where that is there; else the usual one. Raises StoreError as `cache_folder` does."""
    if asked is None and run is not None:
        for place in (run, Path(run).resolve().parent):
            if (kept := told_of(place, "cache")) is not None and os.path.isdir(kept):
                return Path(kept)
    return cache_folder(asked)


def told_of(run: str | os.PathLike[str], name: str) -> str | None:
    """What a run was told of a place, such as its "cache"; None where it was told nothing, or that is not known."""
    try:
        told = json.loads((Path(os.path.expanduser(run)) / "photos.json").read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return told if isinstance(told, str) else None


def check_idle(run: Path, fix: str = WAIT_OR_OUT) -> None:
    """Raises RunError where another job writes this run."""
    if is_running(run):
        raise is_written(run, fix)


def check_free(out: Path, force: bool, *, races: bool = False) -> None:
    """Raises RunError where this folder is neither empty nor one that is to be replaced, and can be. races: by a race, which
    replaces nothing but one: a run has a model."""
    if is_bare(out):
        return
    if races and force and (out / "recipe.toml").is_file():
        raise RunError(what=f"{out} is a run, which a race does not replace.", fix="Name another folder: --out DIR")
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
