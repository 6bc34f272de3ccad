"""One tuning job on disk: recipe, log, verdict, bundle. Two jobs never write one folder; an older run stays whole until
the new one is finished."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rehead.data.room import free_bytes
from rehead.durable import FULL, NoRoom, empty_folder, remove_tree, replace_folder, write_bytes, write_text
from rehead.errors import ReheadError, RunError, command
from rehead.features.room import shortage
from rehead.runs.contents import (
    BODY,
    CHECKPOINT,
    FOOTING,
    LOCK,
    SECONDS,
    TRIES,
    can_go_on,
    check_unfinished,
    is_bare,
    is_ours,
    is_running,
    is_worth_keeping,
    last_checkpoint,
    not_ours,
)  # fmt: skip
from rehead.runs.place import WAIT, WAIT_OR_OUT, check_free, check_idle, is_written

RUNS = "runs"
IN_WORDS = re.compile(
    "No space left on device|Disk quota exceeded|File too large|Read-only file system"
)  # of libraries whose errors have no number


class RunFolder:
    """A context manager. `create` makes the folder, takes an empty one as it is, also a mounted one, or makes a hidden one
    beside that which force replaces; `finish` puts that in place.

    When the block fails, a folder without a result or a checkpoint is removed again, and one that was there is as it was.
    resume: an unfinished run to go on with, which stays whatever happens; where it is refused with other settings than its
    own, before a checkpoint is written, its recipe and photos are as they were. One that was to replace another still does.
    races: whether it is a race's, which replaces no run.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | None,
        *,
        force: bool,
        resume: str | os.PathLike[str] | None = None,
        races: bool = False,
    ) -> None:
        self._out = Path(os.path.expanduser(out)) if out is not None else None
        self._force, self._races = force, races
        self._locks: list[Any] = []
        self._resumed = resume is not None
        self._was_there = False  # an empty folder that is written in place
        self._is_whole = False  # all of it is written
        self._before: dict[str, bytes] = {}  # what was written over in a run that is taken up
        self._checkpoint = 0
        self.path = Path(os.path.expanduser(resume)) if resume is not None else Path()
        self._whole = self
        if resume is not None:
            if self._out is not None and not _is_same(self._out, self.path):
                raise RunError(
                    what=f"--resume goes on in the run's own folder, {self.path}, and --out names another.",
                    fix="Leave --out out, or move the run's folder when it is finished.",
                )
            check_unfinished(self.path)
            check_idle(self.path, WAIT)
            self._out = _to_replace(self.path)
            self._checkpoint = last_checkpoint(self.path)
            return
        if self._out is not None and not str(out).strip():
            raise RunError(
                what="The run's folder has an empty name.", fix="Name a folder: --out DIR, or leave --out out."
            )
        if self._out is not None and self._out.exists():
            check_idle(self._out)
            check_free(self._out, force, races=races)

    @property
    def name(self) -> str:
        """What the folder is called once it is finished."""
        return Path(os.path.realpath(self._out or self.path)).name

    def check_spares(self, runs: Iterable[Path]) -> None:
        """Raises RunError where one of these runs, from which this one begins, is to be replaced."""
        if self._out is not None and any(_is_same(self._out, run) for run in runs):
            raise RunError(
                what=f"{self._out} cannot be replaced by a run that begins from it.",
                why="It alone says where its photos came from, for when one of them has to be read again.",
                fix="Name another folder: --out DIR",
            )

    def create(self, photos: str, backbone: str) -> None:
        """The folder, empty and locked. Raises RunError when it cannot be made or another job writes it."""
        try:
            self._make(photos, re.sub(r"[^\w.-]+", "-", backbone))
        except OSError as error:
            go_on = f"Make room there, or see that you may write to it: {command('tune', '--resume', self.path)}"
            raise RunError(
                what=f"The run cannot be written to {self.path if self._resumed else self._out or RUNS}.",
                why=error.strerror or str(error),
                fix=go_on if self._resumed else "Name a folder on a disk with room that you may write to: --out DIR",
            ) from error

    def write(self, name: str, text: str | Iterable[str]) -> None:
        """text: all of it, or one piece after the other."""
        if self._resumed and name not in self._before and (self.path / name).is_file():
            self._before[name] = (self.path / name).read_bytes()
        write_text(self.path / name, text)

    def write_json(self, name: str, values: Any) -> None:
        self.write(name, json.dumps(values, indent=1, ensure_ascii=True) + "\n")

    def keep_seconds(self, laps: Mapping[str, float]) -> None:
        """Writes down how long the whole job took so far, for a job that goes on from here."""
        write_text(self._whole.path / SECONDS, json.dumps(laps))

    def kept_seconds(self) -> dict[str, float]:
        """What was written down last, nothing where nothing was."""
        try:
            kept: dict[str, float] = json.loads((self.path / SECONDS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return kept

    def check_room(self, needed_bytes: int, purpose: str) -> None:
        """Raises RunError when the disk has no room for so much."""
        if (free := shutil.disk_usage(self.path).free) < needed_bytes:
            raise self._full(os.strerror(errno.ENOSPC), shortage(needed_bytes, free, purpose))

    def within(self, name: str) -> RunFolder:
        """A folder in this one for one of several tries. It is gone when the run is finished."""
        part = RunFolder(None, force=False)
        part.path, part._whole = self.path / TRIES / name, self._whole
        part.path.mkdir(parents=True, exist_ok=True)
        return part

    def finish(self) -> Path:
        """The folder's own path, now that all of it is written."""
        self._is_whole = True
        if self._out is not None and self.path != self._out:
            self._replace(self._out)
        for name in (LOCK, CHECKPOINT, FOOTING, BODY, SECONDS):
            (self.path / name).unlink(missing_ok=True)
        remove_tree(self.path / TRIES)
        return self.path

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None and self._checkpoint == last_checkpoint(self.path):
            for name, before in self._before.items():
                with contextlib.suppress(OSError):  # the error that ended the job is the one to tell
                    write_bytes(self.path / name, before)
        if exception[0] is not None and self.path != Path() and not self._is_kept():
            self._discard()
        for lock in self._locks:
            lock.release()
            if self._out is not None and Path(lock.lock_file).parent == self._out != self.path:
                Path(lock.lock_file).unlink(missing_ok=True)  # of a run that was to be replaced and stays
        error = exception[1]
        if isinstance(error, Exception) and not isinstance(error, ReheadError) and (reason := _full_disk(error)):
            elsewhere = _elsewhere(error, self.path)
            free, room = free_bytes(elsewhere or self.path), ""
            if isinstance(error, NoRoom):
                room = shortage(error.needed_bytes, free, Path(error.filename).name)
            room = room or f"{free / 1e6:.1f} MB are free."
            raise (
                self._full(reason, room) if elsewhere is None else _full_elsewhere(elsewhere, reason, room)
            ) from error

    def _full(self, reason: str, room: str) -> RunError:
        run = self._whole
        if run._resumed or can_go_on(run.path):
            kept = "Its last checkpoint is whole." if can_go_on(run.path) else "The features are kept."
            return RunError(
                what=f"The run could not be written to {run.path}: {reason}.",
                why=f"{room} {kept}",
                fix=f"Make room, and go on from there: {command('tune', '--resume', run.path)}",
            )
        return RunError(
            what=f"The run could not be written to {run._out or RUNS}: {reason}.",
            why=f"{room} The features are kept: the same command goes on from there.",
            fix="Make room, or name a folder on another disk: --out DIR",
        )

    def _replace(self, out: Path) -> None:
        """The finished run takes the place of the older one."""
        try:
            replace_folder(self.path, Path(os.path.realpath(out)))
        except OSError as error:
            raise RunError(
                what=f"The run is finished, and {out} cannot be replaced by it.",
                why=f"{error.strerror or error}.",
                fix=f"It lies in {self.path}: move it to where you want it.",
            ) from error
        self.path = out

    def _is_kept(self) -> bool:
        """Whether the folder stays when the block fails."""
        return self._resumed or self._is_whole or is_worth_keeping(self.path)

    def _discard(self) -> None:
        """What was written is gone; the lock goes last, so that no other job is here meanwhile."""
        with contextlib.suppress(OSError):  # the error that ended the job is the one to tell
            empty_folder(self.path, keep=LOCK)
            (self.path / LOCK).unlink(missing_ok=True)
            if not self._was_there:
                self.path.rmdir()

    def _make(self, photos: str, backbone: str) -> None:
        path = self.path if self._resumed else self._fresh(photos, backbone)
        self._lock(path)
        self._check_still(path)
        if not self._resumed:
            self.path = path
            empty_folder(path, keep=LOCK)  # of what a killed job left before it had a checkpoint
        if self._out is not None and path != self._out:
            self._lock(self._out)  # what is to be replaced: no other job may go on with it meanwhile

    def _check_still(self, path: Path) -> None:
        """Now that no other job writes the run: one may have gone on with it, or begun it, since this one looked."""
        try:
            if self._resumed:
                check_unfinished(path)
                self._checkpoint = last_checkpoint(path)
            elif path == self._out:
                check_free(path, force=False)
            else:
                self._check_replaces_nothing(path)
        except RunError:
            (path / LOCK).unlink()
            raise

    def _check_replaces_nothing(self, path: Path) -> None:
        """Raises RunError where a job that was to replace a run left one that is finished, or can go on."""
        is_race = (path / "race.json").is_file() and not (path / "recipe.toml").is_file()
        if is_race or (path / "verdict.json").is_file():
            raise RunError(
                what=f"A {'race' if is_race else 'run'} that was to replace {self._out} is finished, and lies in {path}.",
                why="What is there would be lost.",
                fix="Move it to where you want it, or remove it.",
            )
        if can_go_on(path):
            raise RunError(
                what=f"A run that was to replace {self._out} was interrupted.",
                why=f"It lies in {path}, and its last checkpoint would be lost.",
                fix=f"Go on with it: {command('tune', '--resume', path)}; or remove that folder to begin again.",
            )

    def _lock(self, path: Path) -> None:
        import filelock

        lock = filelock.FileLock(path / LOCK, blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise is_written(path, WAIT if self._resumed else WAIT_OR_OUT) from None
        self._locks.append(lock)

    def _fresh(self, photos: str, backbone: str) -> Path:
        if self._out is not None:
            place = Path(os.path.realpath(self._out))
            self._was_there = place.exists()
            place.mkdir(parents=True, exist_ok=True)
            check_idle(self._out)
            check_free(self._out, self._force, races=self._races)  # again: another job may have written it meanwhile
            if is_bare(place):
                return self._out
            self._was_there, path = False, place.with_name(f".{place.name}.new")
            path.mkdir(exist_ok=True)
            return path
        for number in range(1, 1_000_000):
            path = Path(RUNS) / f"{photos}-{backbone}-{number}"
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                continue
        raise RunError(what=f"There are a million runs of {photos} in {RUNS}.", fix="Name a folder: --out DIR")


def _full_disk(error: Exception) -> str | None:
    """What the disk said that takes no more, None where the error is another one."""
    if isinstance(error, OSError):  # whose text may hold the name of a file
        return os.strerror(error.errno) if error.errno and error.errno in {*FULL, errno.EROFS} else None
    said = IN_WORDS.search(str(error))
    return said and said[0]


def _elsewhere(error: Exception, run: Path) -> Path | None:
    """The file that an error names, where it is none of the run's."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or Path(os.path.realpath(run)) in Path(os.path.realpath(name)).parents:
        return None
    return Path(name)


def _full_elsewhere(path: Path, reason: str, room: str) -> RunError:
    return RunError(
        what=f"{path} could not be written: {reason}.",
        why=room,
        fix="Make room there, and run the command again: what was computed is kept.",
    )


def _to_replace(path: Path) -> Path | None:
    """The run that one in this folder was begun to replace, as `--out RUN --force` does; None where there is none."""
    place = Path(os.path.realpath(path))
    out = place.with_name(place.name.removeprefix(".").removesuffix(".new"))
    is_new = place.name == f".{out.name}.new"
    return out if is_new and is_ours(out) and not not_ours(out) and not is_running(out) else None


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
