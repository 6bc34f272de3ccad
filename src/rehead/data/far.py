"""What lies at addresses: a store far away answers after tens of milliseconds, and many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from rehead.parallel import n_cores

T = TypeVar("T")
R = TypeVar("R")

A_CORE, MOST = 16, 512  # photos that are waited for at once: a core works on 60 a second, a bucket answers after 150 ms
FEW = 4  # addresses that a thread here reads, one after the other: with more, few photos would keep few threads busy
CHUNK = 32  # addresses that another machine is given at a time: its answer comes within seconds
AT_ONCE = 16  # of a chunk that a machine reads at once: a core that computes 60 a second waits for 9 that take 150 ms


DECODING = threading.BoundedSemaphore(n_cores())  # many threads wait for bytes; decoded ones take megabytes each


class Besides(Protocol):
    """What a job will want of a photo besides its digest: taken when it is read, it costs no second reading.

    look: by a photo's bytes what that is, None where it cannot be had; a function of a module, which other machines call too.
    """

    @property
    def look(self) -> Callable[[bytes], Any]: ...

    def keep(self, found: Sequence[tuple[bytes, Any]]) -> None:
        """What was found of photos, by their digests."""


class Readers(Protocol):
    """Machines that read what has an address. at_once: how many calls they take."""

    at_once: int

    def each(self, work: Callable[[list[R]], list[T]], rows: Sequence[R]) -> list[T | str]:
        """work(rows), done by one of them; why there is nothing of a row on which each process that tried ended. work: a
        function of a module, or a partial of one."""


def n_readers() -> int:
    """The threads that read here; they do little but wait."""
    return min(MOST, A_CORE * n_cores())
