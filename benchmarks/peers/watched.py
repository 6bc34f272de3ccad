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
from collections.abc import Mapping
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
    """peak_mb: megabytes of 10^6. first_s: seconds until the words that were waited for stood in what it said, or None."""

    status: int
    timed_out: bool
    wall_s: float
    cpu_s: float
    peak_mb: float
    first_s: float | None
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
    """Runs a command to its end, or for `timeout_s`; log: where what it says goes, standard error with it."""
    _reap_orphans()
    others = _children()
    with log.open("wb") as file:
        begun = time.monotonic()
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        peak, first_s, next_sample, timed_out = 0, None, begun, False
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            now = time.monotonic()
            if pid:
                break
            if now - begun > timeout_s and not timed_out:
                timed_out = True
                _end(process.pid)
            if now >= next_sample:
                peak = max(peak, tree_pss(process.pid))
                if first_words and first_s is None and first_words in log.read_text(errors="replace"):
                    first_s = now - begun
                took = time.monotonic() - now
                next_sample = now + max(EVERY_S, took / SHARE)
            time.sleep(POLL_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = usage.ru_utime + usage.ru_stime + _left_behind(others)
    said = log.read_text(errors="replace")
    return Watched(process.returncode, timed_out, now - begun, cpu_s, peak / 1e6, first_s, last_lines(said))


def last_lines(said: str) -> list[str]:
    """The last lines that say something; of a bar that was drawn over itself, the last state."""
    lines = [line.split("\r")[-1].rstrip() for line in said.splitlines()]
    return [line[:400] for line in lines if line.strip()][-SHOWN:]


def tree_pss(pid: int) -> int:
    """Bytes of memory of a process and all that it began, shared pages counted once; 0 where it has ended."""
    try:
        parent = psutil.Process(pid)
        tree = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_pss(process.pid) for process in tree)


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:  # it ended
        pass
    return 0


def _reap_orphans() -> None:
    """Makes this process the parent of what its descendants leave behind, so that it can be waited for and counted."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end(pid: int) -> None:
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
