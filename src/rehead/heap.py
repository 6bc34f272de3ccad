"""Memory that is free, handed back to the system between the steps of a job.

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
