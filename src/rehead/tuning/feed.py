"""What a training is fed with: stored activations at a cut, or photos decoded beside it. One protocol.

Laws: `batches` gives the same batches for the same order, epoch and size, whatever the first one asked for; a photo's
augmentation depends on the seed, the epoch and the photo alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rehead.data.split import seed_for
from rehead.parallel import batched, n_cores, ordered_map

Pair = tuple[torch.Tensor, torch.Tensor]


class Feed(Protocol):
    """labels: (n,) or (n, k), what is learned of all photos of the feed; positions are places in it."""

    labels: NDArray[Any]

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        """Inputs (m, ...) float32 and labels (m, ...) of `size` photos at a time, from batch number `first` on."""

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        """Inputs of these photos as they are."""


class StoredFeed:
    """Activations from the store. views: (n, *shape) float16 each, the photos as they are first, then other views."""

    def __init__(self, views: Sequence[NDArray[np.float16]], labels: NDArray[Any], seed: int) -> None:
        self.labels, self._views, self._seed = labels, views, seed

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        view = np.random.default_rng(seed_for(self._seed, "view", epoch)).integers(
            len(self._views), size=len(self.labels)
        )
        for start in range(first * size, len(order), size):
            chosen = order[start : start + size]
            rows = np.stack([self._views[view[i]][i] for i in chosen])
            yield _floats(rows), torch.from_numpy(self.labels[chosen])

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        for start in range(0, len(positions), size):
            yield _floats(np.stack([self._views[0][i] for i in positions[start : start + size]]))


class PhotoFeed:
    """Photos decoded in threads beside the training, augmented anew each epoch.

    pixels: (position, (epoch, seed) or None for the photo as it is) -> (h, w, 3) uint8, of one size in an epoch. mean, std:
    of the three channels, in 0..1.
    """

    def __init__(
        self,
        pixels: Callable[[int, tuple[int, int] | None], NDArray[np.uint8]],
        labels: NDArray[Any],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
    ) -> None:
        self.labels, self._pixels, self._seed = labels, pixels, seed
        self._mean = torch.tensor(mean).reshape(1, 3, 1, 1) * 255
        self._std = torch.tensor(std).reshape(1, 3, 1, 1) * 255

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        chosen = order[first * size :].tolist()
        seeds = (seed_for(self._seed, "augment", epoch, i, place) for place, i in enumerate(chosen, first * size))
        jobs = [(i, (epoch, seed)) for i, seed in zip(chosen, seeds, strict=True)]
        for rows in batched(self._decoded(jobs, size), size):
            positions = np.array([i for i, _ in rows])
            yield self._normalised([pixels for _, pixels in rows]), torch.from_numpy(self.labels[positions])

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        for rows in batched(self._decoded([(i, None) for i in positions.tolist()], size), size):
            yield self._normalised([pixels for _, pixels in rows])

    def _decoded(
        self, jobs: Sequence[tuple[int, tuple[int, int] | None]], size: int
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        def work(job: tuple[int, tuple[int, int] | None]) -> tuple[int, NDArray[np.uint8]]:
            return job[0], self._pixels(*job)

        return ordered_map(work, jobs, workers=n_cores(), ahead=2 * size)

    def _normalised(self, pixels: list[NDArray[np.uint8]]) -> torch.Tensor:
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
        return (images - self._mean) / self._std


def ahead(batches: Iterator[Pair], device: torch.device) -> Iterator[Pair]:
    """The batches on the device, each one's copy under way while the one before is learned from.

    On CUDA a thread gathers a batch and pins it, so that copying it needs no waiting, and a stream of its own copies it.
    Elsewhere the batches as they are: a copy there takes less than handing it over.
    """
    if device.type != "cuda":
        for x, y in batches:
            yield x.to(device), y.to(device)
        return
    copying = torch.cuda.Stream(device)
    waiting: Pair | None = None
    for pair in ordered_map(lambda _: _pinned(next(batches, None)), itertools.count(), workers=1, ahead=2):
        if pair is None:
            break
        with torch.cuda.stream(copying):
            coming = pair[0].to(device, non_blocking=True), pair[1].to(device, non_blocking=True)
        if waiting is not None:
            yield waiting
        torch.cuda.current_stream(device).wait_stream(copying)
        for tensor in coming:
            tensor.record_stream(torch.cuda.current_stream(device))
        waiting = coming
    if waiting is not None:
        yield waiting


def _pinned(pair: Pair | None) -> Pair | None:
    return pair and (pair[0].pin_memory(), pair[1].pin_memory())


def _floats(rows: NDArray[np.float16]) -> torch.Tensor:
    return torch.from_numpy(rows.astype(np.float32))
