"""Photos decoded beside a device, by processes: threads would wait for the interpreter's lock more than they decode.

Seen on 16 cores beside an H200: threads decode 1,700 photos a second whatever their number, one process alone 290, and 16
processes 3,100 (`benchmarks/gpu.py`). On the CPU the network is what takes time, and threads suffice.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.errors import PhotoError
from rehead.parallel import n_cores

FEW_CORES = 8  # below which processes cost more than the lock does
FEW_PHOTOS = 2_000  # below which they are hardly there before the work is done
IDLE_S = 30.0  # after which a process that has nothing to do leaves

Job = TypeVar("Job")
Decode = Callable[[Sequence[Job]], list[NDArray[np.uint8] | PhotoError]]


def beside(device: str, n_photos: int, decode: Decode[Job]) -> Decode[Job]:
    """`decode`, or the same done in a process: where photos are decoded for a device, on cores enough and photos enough.

    decode: a function of a module, or a partial of one, whose arguments and results can be pickled.
    """
    if device == "cpu" or n_cores() < FEW_CORES or n_photos < FEW_PHOTOS:
        return decode
    return functools.partial(in_process, decode)


def in_process(decode: Decode[Job], jobs: Sequence[Job]) -> list[NDArray[np.uint8] | PhotoError]:
    """decode(jobs), done by a process; by this one where the processes are gone, as when memory ran out."""
    try:
        found: list[NDArray[np.uint8] | PhotoError] = executor().submit(decode, jobs).result()
    except BrokenProcessPool:
        executor.cache_clear()
        return decode(jobs)
    return found


@functools.cache
def executor() -> Any:
    """As many processes as cores. They do not import the program's main module, which need not be ready for that; they
    leave by themselves when they have nothing to do. Ctrl-C is for the main process to hear."""
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(
        n_cores(), timeout=IDLE_S, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
