"""Memory: what is free is handed back to the system between the steps of a job, kept while layers learn, and the want of it is
told from other errors.

glibc keeps what a thread freed for threads like it, so what one step needed would be held while the next one runs: a tenth of
a job's memory where layers learn on a CPU. Large blocks it gives back at once instead, and the system clears each page of them
again when the next batch takes it: a seventh to a third of the time of steps on two cores (`benchmarks/steps.py`).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of mallopt(3): the bytes at the end of the heap from which on
# they are given back, those of a block from which on it is mapped by itself, and how many such blocks there may be
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}  # none, and never
# From then on glibc no longer settles these by itself.
GIVEN_BACK = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 1 << 20, TRIM_THRESHOLD: 2 << 20}

# Of the environment, as is GLIBC_TUNABLES.
BY_HAND = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

_lock = threading.Lock()
_n_keeping = 0  # trainings under way: they may overlap in threads, and the heap is one


def hand_back() -> None:
    """Takes about a millisecond; does nothing where the C library has no such call."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@contextmanager
def kept(device: str) -> Iterator[None]:
    """Within it, memory that the main thread frees stays with this process, so that every batch after the first takes it as it
    is; it is handed back at the end. Of other threads glibc maps blocks above 64 MB by themselves all the same.

    device: what computes. Does nothing where that is not the CPU, where the C library is another, and where the environment
    says how it is to behave."""
    global _n_keeping
    if not device.startswith("cpu"):
        yield
        return
    with _lock:
        _n_keeping += 1
    try:
        _set(KEPT)
        yield
    finally:
        with _lock:
            _n_keeping -= 1
            if is_last := not _n_keeping:
                _set(GIVEN_BACK)
        if is_last:
            hand_back()


def _set(thresholds: dict[int, int]) -> None:
    if sys.platform != "linux" or any(name in os.environ for name in BY_HAND):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version") and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
        for name, value in thresholds.items():
            library.mallopt(name, value)


def is_want_of_memory(error: BaseException) -> bool:
    """Also of PyTorch's errors, which are RuntimeErrors: on the CPU by their words alone."""
    is_own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_own or "can't allocate memory" in str(error)
