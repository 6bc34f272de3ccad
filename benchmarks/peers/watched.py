"""A command from the shell: its wall time, CPU time, peak memory and what it said, for the whole tree of processes.

CPU seconds are exact: what the kernel gives when a process is waited for, with all the children that it waited for. This
process is made the reaper of orphans (prctl), so those that nobody waited for are added too. Memory is the largest sum of
proportional set sizes (PSS, smaps_rollup: a page that k processes share counts a k-th for each) over the tree, of samples
every 0.1 s; where reading the maps itself takes long, more rarely, so that sampling takes at most a twentieth of one core.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY_S = 0.1
SHARE = 0.05  # of one core, for sampling
SHOWN = 12  # last lines of what failed
POLL_S = 0.01  # a finished command is seen within this
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class Watched:
    """peak_mb: megabytes of 10^6. first_s: seconds until the words that were waited for stood in what it said, or None.
    answer: the last line of standard output. last_lines: of standard output and, after it, of standard error.
    """

    status: int
    timed_out: bool
    wall_s: float
    cpu_s: float
    peak_mb: float
    first_s: float | None
    answer: str = ""
    last_lines: list[str] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        return self.status == 0 and not self.timed_out


def watch(
    command: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    timeout_s: float,
    first_words: str | None = None,
) -> Watched:
    """Runs a command to its end, or for `timeout_s`; log: where what it says goes, errors beside it as .err."""
    errors_log = log.with_suffix(".err")
    others = _children()
    with _reaper(), log.open("wb") as output, errors_log.open("wb") as errors:
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        seen = _Seen(others, first_words, (log, errors_log), begun)
        timed_out = False
        try:
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if time.monotonic() - begun > timeout_s:
                    timed_out = True
                    _end(process.pid)
                seen.look()
                time.sleep(POLL_S)
            wall_s = time.monotonic() - begun
        finally:  # also where the matrix is stopped: nothing of it goes on
            orphans_s = _left_behind(others)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    output_lines, error_lines = (last_lines(path.read_text(errors="replace")) for path in (log, errors_log))
    return Watched(
        status=process.returncode,
        timed_out=timed_out,
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime + orphans_s,
        peak_mb=seen.peak / 1e6,
        first_s=seen.first_s,
        answer=output_lines[-1] if output_lines else "",
        last_lines=[*output_lines, *error_lines][-SHOWN:],
    )


@dataclass
class _Seen:
    """What looking at a command's processes shows from time to time. peak: bytes."""

    others: frozenset[int]
    first_words: str | None
    logs: tuple[Path, ...]
    begun: float
    peak: int = 0
    first_s: float | None = None
    next: float = 0.0

    def look(self) -> None:
        now, spent = time.monotonic(), time.thread_time()
        if now < self.next:
            return
        self.peak = max(self.peak, tree_pss(self.others))
        if self.first_words and self.first_s is None and _says(self.first_words, *self.logs):
            self.first_s = now - self.begun
        self.next = now + max(EVERY_S, (time.thread_time() - spent) / SHARE)


def _says(words: str, *logs: Path) -> bool:
    return any(words in log.read_text(errors="replace") for log in logs)


def last_lines(said: str) -> list[str]:
    """The last lines that say something; of a bar that was drawn over itself, the last state."""
    lines = [line.rstrip().split("\r")[-1] for line in said.split("\n")]
    return [line[:400] for line in lines if line.strip()][-SHOWN:]


def tree_pss(others: frozenset[int]) -> int:
    """Bytes of memory of all that this process began, but for `others` of its children; shared pages are counted once."""
    pids: list[int] = []
    for pid in _children() - others:
        with contextlib.suppress(psutil.NoSuchProcess):
            pids += [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:  # it ended
        pass
    return 0


@contextlib.contextmanager
def _reaper() -> Iterator[None]:
    """While it lasts this process is the parent of what its descendants leave behind, so that it is waited for and counted."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _end(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _left_behind(before: frozenset[int]) -> float:
    """Ends what the command left running, and gives the CPU seconds of all that nobody waited for."""
    cpu_s = 0.0
    while left := _children() - before:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _, _, usage = os.wait4(pid, 0)
            cpu_s += usage.ru_utime + usage.ru_stime
    return cpu_s


def _children() -> frozenset[int]:
    return frozenset(child.pid for child in psutil.Process().children())
