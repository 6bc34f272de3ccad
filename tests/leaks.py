"""What a test may leave behind when it is careless: threads, child processes, open files, environment variables."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 2.0  # for threads and processes that were told to end and are about to
OF_LIBRARIES = ("KMP_", "TORCH", "TRITON", "PYTEST_")  # set once, when a library is imported; pytest's own
OF_SYSTEM = ("/dev/", "/proc/", "/sys/")
KEPT_OPEN = ("/.onnxruntime/", "/site-packages/")  # a database of ONNX Runtime's own; fonts of matplotlib
# Of tqdm, of OpenVINO, of fsspec and what asks for names of hosts under it; our own threads are called rehead.
KEPT_RUNNING = ("tqdm_monitor", "ThreadPoolExecutor-", "fsspecIO", "asyncio_")
TRACKER = "resource_tracker"  # Python's own child, which lives as long as the process


@dataclass(frozen=True)
class Held:
    """What this process holds now. children: process ids. files: paths."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]
    files: frozenset[str]
    variables: frozenset[tuple[str, str]]

    @classmethod
    def now(cls) -> Held:
        ours = [t for t in threading.enumerate() if not t.name.startswith(KEPT_RUNNING)]
        threads = frozenset(t for t in ours if not isinstance(t, threading._DummyThread))
        variables = frozenset(pair for pair in os.environ.items() if not pair[0].startswith(OF_LIBRARIES))
        return cls(threads, _children(), _files(), variables)


def left_since(before: Held) -> list[str]:
    """What is held now and was not then, in words; those that are ending are waited for."""
    ends = time.monotonic() + GRACE_S
    while (left := _difference(before, Held.now())) and time.monotonic() < ends:
        gc.collect()
        time.sleep(0.02)
    return left


def _difference(before: Held, now: Held) -> list[str]:
    changed = sorted({name for name, _ in before.variables ^ now.variables})
    return [
        *(f"the thread {thread.name}" for thread in now.threads - before.threads if thread.is_alive()),
        *(f"the process {number}" for number in sorted(now.children - before.children)),
        *(f"the open file {path}" for path in sorted(now.files - before.files)),
        *(f"a change of the variable {name}" for name in changed),
    ]


def _children() -> frozenset[int]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(int(number) for number in path.read_text().split())
        except OSError:  # the thread has ended
            continue
    return frozenset(number for number in found if TRACKER not in _command(number))


def _command(number: int) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _files() -> frozenset[str]:
    """Regular files that are open; none where the system does not tell."""
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if (
            target.startswith("/")
            and not target.startswith(OF_SYSTEM)
            and not any(part in target for part in KEPT_OPEN)
        ):
            found.add(target)
    return frozenset(found)
