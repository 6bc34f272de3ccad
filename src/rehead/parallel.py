"""Work done by several threads, its results in order, with a bounded number of items under way.

Threads suffice wherever the time is spent in C code that releases the interpreter lock: reading files, hashing, decoding
and resizing pictures, running a network.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def n_cores() -> int:
    """The cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    ahead: int,
    is_full: Callable[[], bool] | None = None,
) -> Generator[R, None, None]:
    """function(item) for every item, in the order of the items; at most `ahead` are under way or waiting to be taken.
    is_full: whether so much waits that nothing more is begun; until it is known how much comes, that is one for each worker.

    An exception of `function` is raised where its result would have come. When the caller stops early, items that have
    not begun are dropped and those under way are waited for.
    """
    source = iter(items)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="rehead")
    try:
        waiting.extend(pool.submit(function, item) for item in islice(source, ahead if is_full is None else workers))
        while waiting:
            result = waiting.popleft().result()
            n = 0 if waiting and is_full is not None and is_full() else min(2, ahead - len(waiting))
            waiting.extend(pool.submit(function, item) for item in islice(source, n))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
