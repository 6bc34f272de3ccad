"""Several processes that train one model, each on a share of every batch, and what they tell each other.

Gradients of shares are added up before each step, so a step is that of the whole batch, up to rounding, whatever the number
of processes (data-parallel training with summed gradients). All take the same steps from the same weights; on unlike
processors the last bits may differ, or one computes in bfloat16 alone, so each epoch begins with the weights of the first,
which decides when it was the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from rehead.tuning.feed import Feed, Pair


class Together(Protocol):
    """rank: which of the `n` processes this is, from 0."""

    @property
    def rank(self) -> int: ...

    @property
    def n(self) -> int: ...

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each of these becomes its sum over all processes."""

    def gathered(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows of all processes, in the order of their ranks."""

    def same(self, tensors: Sequence[torch.Tensor]) -> None:
        """Each of these becomes what it is in the first process."""

    def first_says(self, what: bool) -> bool:
        """What the first process says."""


@dataclass(frozen=True)
class Alone:
    """One process, which has nobody to tell."""

    rank: int = 0
    n: int = 1

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        del tensors

    def gathered(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows

    def same(self, tensors: Sequence[torch.Tensor]) -> None:
        del tensors

    def first_says(self, what: bool) -> bool:
        return what


@dataclass(frozen=True)
class Group:
    """The processes that `torch.distributed` has joined: Gloo on CPUs, NCCL on GPUs."""

    rank: int
    n: int

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        self._flat(tensors, distributed.all_reduce)

    def same(self, tensors: Sequence[torch.Tensor]) -> None:
        self._flat(tensors, lambda flat: distributed.broadcast(flat, 0))

    def gathered(self, rows: NDArray[Any]) -> NDArray[Any]:
        found: list[Any] = [None] * self.n
        distributed.all_gather_object(found, rows)
        return np.concatenate(found)

    def first_says(self, what: Any) -> Any:
        """What the first process has."""
        said = [what]
        distributed.broadcast_object_list(said)
        return said[0]

    def _flat(self, tensors: Sequence[torch.Tensor], told: Callable[[torch.Tensor], Any]) -> None:
        """These, of one kind, are told as one."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        told(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))


def share(items: NDArray[np.int64], together: Together) -> NDArray[np.int64]:
    """This process's part of these: all have as many, but for one."""
    return np.array_split(items, together.n)[together.rank]


@dataclass(frozen=True)
class Shared:
    """A feed of which each process is given its share of every batch. Where a batch has fewer photos than there are processes,
    one that has none is given the first, which `n_of` says does not count."""

    feed: Feed
    together: Together

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        parts = [share(whole, self.together) for whole in _wholes(order, size)]
        parts = [part if len(part) else whole[:1] for part, whole in zip(parts, _wholes(order, size), strict=True)]
        yield from self.feed.batches(np.concatenate(parts), epoch, len(parts[0]), first)

    def n_of(self, n: int) -> int:
        """How many photos of a batch of `n` are this process's."""
        return len(share(np.arange(n), self.together))


def _wholes(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
