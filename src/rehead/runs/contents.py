"""What lies in a run's folder, and what that says: that a job writes it, that it can go on, that it is no run of ours."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rehead.bundle_facts import FACTS
from rehead.errors import RunError

COPIES = "copies.csv"  # photos with the same bytes, those that are left out included
# All that a run may hold at its top; what else is there is somebody's own, and a run that holds such is not replaced.
OURS = {
    "recipe.toml", "photos.json", "catalog.csv", "log.txt", "tried.json", "race.json", "race.svg", "metrics.jsonl",
    "curves.svg", "first-metrics.jsonl", "first-curves.svg", "lr_range.json", "lr_range.svg", "tensorboard", "mlflow",
    "logits.safetensors", "audit.json", "report.html",
    "checkpoint.safetensors", "footing.json", "body.onnx", "seconds.json", "tries", "skipped.csv", COPIES, "run.json",
    "verdict.json", "bundle",
}  # fmt: skip
CHECKPOINT = "checkpoint.safetensors"  # a run that has one can be taken up; a finished run needs it no longer
FOOTING = "footing.json"  # what a training with a checkpoint began with
BODY = "body.onnx"  # a tuned network without its head, on the way into the bundle
TRIES = "tries"  # of --recipe auto, each as a run of its own would have it
SECONDS = "seconds.json"  # by phase, up to the last checkpoint
LOCK = ".lock"


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
    return bool(last_checkpoint(run))


def last_checkpoint(run: Path) -> int:
    """When the last checkpoint was written, of the run or of a try or a first phase in it, in ns; 0 where there is none."""
    written = [0]
    for path in (run / CHECKPOINT, *run.glob(f"{TRIES}/**/{CHECKPOINT}")):
        with contextlib.suppress(FileNotFoundError):
            written.append(path.stat().st_mtime_ns)
    return max(written)


def is_worth_keeping(run: Path) -> bool:
    return (run / "verdict.json").exists() or can_go_on(run)


def check_unfinished(run: Path) -> None:
    if not (run / "recipe.toml").is_file():
        raise RunError(
            what=f"{run} is no run.",
            fix="Name the folder of a run that was interrupted: --resume runs/... One that was killed before its folder "
            "was there is begun again by the same command.",
        )
    if (run / "verdict.json").is_file():
        check_bundle(run)
        raise RunError(what=f"The run {run} is finished.", fix=f"Its bundle is {run / 'bundle'}.")


def check_bundle(run: Path) -> None:
    """Raises RunError where the bundle of a finished run was moved out of it."""
    if not (run / "bundle" / FACTS).is_file():
        raise RunError(
            what=f"The bundle of the run {run} is not there any more.",
            fix=f"Bring it back to {run / 'bundle'}, or tune again.",
        )


def is_bare(path: Path) -> bool:
    """Whether this is a folder in which nothing is yet: it is empty, or a job that was killed had only begun in it."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else ["no folder"]
    rest = {name for name in names if not (name.startswith(".") and name.endswith(".part"))}  # see `durable.py`
    return not names or (LOCK in rest and rest <= {LOCK, "log.txt"})


def is_ours(path: Path) -> bool:
    """Whether a folder is a run of ours, or a race."""
    return (path / "recipe.toml").is_file() or (path / "race.json").is_file()


def not_ours(path: Path) -> list[str]:
    """The names in a run's folder that no run writes; hidden ones are of what was interrupted."""
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    return [name for name in names if name not in OURS and not name.startswith(".")]
