"""Memory: what is free is handed back to the system between the steps of a job, and the want of it is told from other errors.

glibc keeps what a thread freed for threads like it, so what one step needed would be held while the next one runs: a tenth of
a job's memory where layers learn on a CPU.
"""

from __future__ import annotations

import ctypes
import sys


def hand_back() -> None:
    """Takes about a millisecond; does nothing where the C library has no such call."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def is_want_of_memory(error: BaseException) -> bool:
    """Also of PyTorch's errors, which are RuntimeErrors: on the CPU by their words alone."""
    is_own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_own or "can't allocate memory" in str(error)
