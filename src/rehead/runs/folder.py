"""One tuning job on disk: recipe, log, verdict, bundle. Two jobs never write one folder; an older run stays whole until
the new one is finished."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rehead.durable import NoRoom, empty_folder, remove_tree, replace_folder, write_bytes, write_text
from rehead.errors import ReheadError, RunError
from rehead.features.room import free_bytes, shortage

RUNS = "runs"
# All that a run may hold at its top; what else is there is somebody's own, and a run that holds such is not replaced.
OURS = {
    "recipe.toml", "photos.json", "catalog.csv", "log.txt", "tried.json", "race.json", "race.svg", "metrics.jsonl",
    "curves.svg", "first-metrics.jsonl", "first-curves.svg", "lr_range.json", "lr_range.svg", "tensorboard", "mlflow",
    "logits.safetensors", "audit.json", "report.html",
    "checkpoint.safetensors", "footing.json", "body.onnx", "seconds.json", "tries", "skipped.csv", "run.json",
    "verdict.json", "bundle",
}  # fmt: skip
CHECKPOINT = "checkpoint.safetensors"  # a run that has one can be taken up; a finished run needs it no longer
FOOTING = "footing.json"  # what a training with a checkpoint began with
BODY = "body.onnx"  # a tuned network without its head, on the way into the bundle
TRIES = "tries"  # of --recipe auto, each as a run of its own would have it
SECONDS = "seconds.json"  # by phase, up to the last checkpoint
LOCK = ".lock"
WAIT, WAIT_OR_OUT = "Wait for it.", "Wait for it, or name another --out."  # where another job writes a run
FULL = re.compile(
    "No space left on device|Disk quota exceeded|File too large|Read-only file system"
)  # in any library's words


class RunFolder:
    """A context manager. `create` makes the folder (or, with force, a hidden one beside it); `finish` puts it in place.

    When the block fails, a folder without a verdict or a checkpoint is removed again, and one that was to be replaced is
    as it was. resume: an unfinished run to go on with, which stays whatever happens; where it is refused with other
    settings than its own, before a checkpoint is written, its recipe and photos are as they were.
    """

    def __init__(
        self, out: str | os.PathLike[str] | None, *, force: bool, resume: str | os.PathLike[str] | None = None
    ) -> None:
        self._out = Path(out) if out is not None else None
        self._force = force
        self._locks: list[Any] = []
        self._resumed = resume is not None
        self._before: dict[str, bytes] = {}  # what was written over in a run that is taken up
        self._checkpoint = 0
        self.path = Path(resume) if resume is not None else Path()
        self._whole = self
        if resume is not None:
            if out is not None and not _is_same(Path(out), self.path):
                raise RunError(
                    what=f"--resume goes on in the run's own folder, {self.path}, and --out names another.",
                    fix="Leave --out out, or move the run's folder when it is finished.",
                )
            self._out = None
            _check_unfinished(self.path)
            if is_running(self.path):
                raise _is_written(self.path, WAIT)
            self._checkpoint = _written_at(self.path / CHECKPOINT)
            return
        if self._out is not None and not str(out).strip():
            raise RunError(
                what="The run's folder has an empty name.", fix="Name a folder: --out DIR, or leave --out out."
            )
        if self._out is not None and self._out.exists() and not (force and _is_ours(self._out)):
            raise _exists(self._out, force)
        if self._out is not None and is_running(self._out):
            raise _is_written(self._out)
        if self._out is not None and (foreign := _not_ours(self._out)):
            raise RunError(
                what=f"{self._out} holds files that are not the run's: {', '.join(foreign[:3])}"
                f"{', ...' if len(foreign) > 3 else ''}.",
                why="--force replaces the whole folder, and they would be lost.",
                fix="Move them away, or name another folder.",
            )

    def create(self, photos: str, backbone: str) -> None:
        """The folder, empty and locked. Raises RunError when it cannot be made or another job writes it."""
        try:
            self.path = self._make(photos, re.sub(r"[^\w.-]+", "-", backbone))
        except OSError as error:
            raise RunError(
                what=f"The run cannot be written to {self._out or RUNS}.",
                why=error.strerror or str(error),
                fix="Name a folder on a disk with room that you may write to: --out DIR",
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
        if self._out is not None and self.path != self._out:
            replace_folder(self.path, Path(os.path.realpath(self._out)))
            self.path = self._out
        for name in (LOCK, CHECKPOINT, FOOTING, BODY, SECONDS):
            (self.path / name).unlink(missing_ok=True)
        remove_tree(self.path / TRIES)
        return self.path

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(exception[1], ReheadError) and self._checkpoint == _written_at(self.path / CHECKPOINT):
            for name, before in self._before.items():
                with contextlib.suppress(OSError):  # the error that ended the job is the one to tell
                    write_bytes(self.path / name, before)
        for lock in self._locks:
            lock.release()
            if self._out is not None and Path(lock.lock_file).parent == self._out != self.path:
                Path(lock.lock_file).unlink(missing_ok=True)  # of a run that was to be replaced and stays
        if exception[0] is not None and self.path != Path() and not self._resumed and not _is_worth_keeping(self.path):
            remove_tree(self.path)
        error = exception[1]
        if isinstance(error, Exception) and not isinstance(error, ReheadError) and FULL.search(str(error)):
            free, room = free_bytes(self.path), ""
            if isinstance(error, NoRoom):
                room = shortage(error.needed_bytes, free, Path(error.filename).name)
            raise self._full(FULL.findall(str(error))[0], room or f"{free / 1e6:.1f} MB are free.") from error

    def _full(self, reason: str, room: str) -> RunError:
        if (self.path / CHECKPOINT).is_file():
            return RunError(
                what=f"The run could not be written to {self.path}: {reason}.",
                why=f"{room} Its last checkpoint is whole.",
                fix=f"Make room, and go on from there: rehead tune --resume {self.path}",
            )
        return RunError(
            what=f"The run could not be written to {self._out or RUNS}: {reason}.",
            why=f"{room} The features are kept: the same command goes on from there.",
            fix="Make room, or name a folder on another disk: --out DIR",
        )

    def _make(self, photos: str, backbone: str) -> Path:
        path = self.path if self._resumed else self._fresh(photos, backbone)
        self._lock(path)
        if self._resumed:
            self._check_still_unfinished()
        else:  # what a job left that was killed while it replaced a run is not gone on from
            empty_folder(path, keep=LOCK)
        if self._out is not None and path != self._out and (self._out / "recipe.toml").is_file():
            self._lock(self._out)  # the run that is to be replaced: no other job may go on with it meanwhile
        return path

    def _check_still_unfinished(self) -> None:
        """Now that no other job writes the run: one may have gone on with it since this one looked."""
        try:
            _check_unfinished(self.path)
        except RunError:
            (self.path / LOCK).unlink()
            raise
        self._checkpoint = _written_at(self.path / CHECKPOINT)

    def _lock(self, path: Path) -> None:
        import filelock

        lock = filelock.FileLock(path / LOCK, blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise _is_written(path, WAIT if self._resumed else WAIT_OR_OUT) from None
        self._locks.append(lock)

    def _fresh(self, photos: str, backbone: str) -> Path:
        if self._out is not None:
            place = Path(os.path.realpath(self._out))
            path = place.with_name(f".{place.name}.new") if place.exists() else self._out
            path.mkdir(parents=True, exist_ok=path != self._out)
            return path
        for number in range(1, 1_000_000):
            path = Path(RUNS) / f"{photos}-{backbone}-{number}"
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                continue
        raise RunError(what=f"There are a million runs of {photos} in {RUNS}.", fix="Name a folder: --out DIR")


def _written_at(path: Path) -> int:
    """When a file was last written, in ns; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def is_running(run: Path) -> bool:
    """Whether a job is writing this run now."""
    import filelock

    if not (run / LOCK).is_file():
        return False
    try:
        with filelock.FileLock(run / LOCK, blocking=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # it may only be read
        return _is_locked(run / LOCK)


def _is_locked(path: Path) -> bool:
    """The same of a lock that may only be read: a shared one, which needs no more, is refused beside it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    with contextlib.suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def can_go_on(run: Path) -> bool:
    """Whether there is a checkpoint from which `--resume` goes on."""
    return (run / CHECKPOINT).is_file() or any(run.glob(f"{TRIES}/**/{CHECKPOINT}"))


def _is_worth_keeping(run: Path) -> bool:
    return (run / "verdict.json").exists() or can_go_on(run)


def _check_unfinished(run: Path) -> None:
    if not (run / "recipe.toml").is_file():
        raise RunError(
            what=f"{run} is no run.",
            fix="Name the folder of a run that was interrupted: --resume runs/... One that was killed before its folder "
            "was there is begun again by the same command.",
        )
    if (run / "verdict.json").is_file():
        raise RunError(what=f"The run {run} is finished.", fix=f"Its bundle is {run / 'bundle'}.")


def _is_ours(path: Path) -> bool:
    """Whether a folder may be replaced: it is empty or a run of ours."""
    return path.is_dir() and (
        not any(path.iterdir()) or (path / "recipe.toml").is_file() or (path / "race.json").is_file()
    )


def _not_ours(path: Path) -> list[str]:
    """The names in a run's folder that no run writes; hidden ones are of what was interrupted."""
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    return [name for name in names if name not in OURS and not name.startswith(".")]


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_written(run: Path, fix: str = WAIT_OR_OUT) -> RunError:
    return RunError(what=f"Another job is writing {run}.", fix=fix)


def _exists(out: Path, force: bool) -> RunError:
    if force:
        return RunError(
            what=f"{out} is there already and is no run of rehead, so --force does not replace it.",
            fix="Name another folder, or move that one away.",
        )
    if is_running(out):
        return _is_written(out)
    if (out / "recipe.toml").is_file() and not (out / "verdict.json").is_file():
        return RunError(
            what=f"{out} is there already: a run that was interrupted.",
            fix=f"Go on with it: rehead tune --resume {shlex.quote(str(out))}; "
            "or name another --out, or replace it with --force.",
        )
    if not _is_ours(out):
        return RunError(what=f"{out} is there already and is no run of rehead.", fix="Name another folder: --out DIR")
    return RunError(what=f"{out} is there already.", fix="Name another --out, or replace it with --force.")
