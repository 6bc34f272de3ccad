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

from rehead.data.spill import let_go
from rehead.data.split import seed_for
from rehead.parallel import batched, n_cores, ordered_map
from rehead.tuning.jpeg import Jpeg, on_device

Pair = tuple[torch.Tensor, torch.Tensor]
Request = tuple[int, tuple[int, int] | None]  # a photo's place, and the (epoch, seed) of its augmentation


PART = 16  # photos that are decoded at once: handing them over costs little beside decoding them


class Feed(Protocol):
    """labels: (n,) or (n, k), what is learned of all photos of the feed; positions are places in it."""

    labels: NDArray[Any]

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        """Inputs (m, ...) float32 and labels (m, ...) of `size` photos at a time, from batch number `first` on."""

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        """Inputs of these photos as they are."""


class StoredFeed:
    """Activations from the store. views: (n, *shape) float16 each, the photos as they are first, then other views; in files,
    where they are many, of which no more than a batch is in the memory of this process.

    Each photo goes through its views in turn, from a random one on: as many epochs as views see none twice.
    """

    def __init__(self, views: Sequence[NDArray[np.float16]], labels: NDArray[Any], seed: int) -> None:
        self.labels, self._views, self._seed = labels, views, seed

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        begins = np.random.default_rng(seed_for(self._seed, "view")).integers(len(self._views), size=len(self.labels))
        view = (begins + epoch) % len(self._views)
        for start in range(first * size, len(order), size):
            chosen = order[start : start + size]
            rows = np.stack([self._views[view[i]][i] for i in chosen])
            self._let_go()
            yield _floats(rows), torch.from_numpy(self.labels[chosen])

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        for start in range(0, len(positions), size):
            rows = np.stack([self._views[0][i] for i in positions[start : start + size]])
            self._let_go()
            yield _floats(rows)

    def _let_go(self) -> None:
        for view in self._views:
            let_go(view)


class PhotoFeed:
    """Photos decoded in threads beside the training, augmented anew each epoch. They cross to the device as bytes.

    pixels: (position, (epoch, seed) or None for the photo as it is) -> (h, w, 3) uint8, of one size in an epoch. mean, std:
    of the three channels, in 0..1. device, jpegs: what decodes JPEG files, and such a file by the arguments of `pixels`, or
    None where `pixels` has to be asked; photos as they are it is asked for always. many: the same as `pixels` for several
    photos at once, where that is faster; then nothing else is asked. learner: where training happens, and photos are
    normalised.
    """

    def __init__(
        self,
        pixels: Callable[[int, tuple[int, int] | None], NDArray[np.uint8]],
        labels: NDArray[Any],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
        device: torch.device | None = None,
        jpegs: Callable[[int, tuple[int, int]], Jpeg | None] = lambda *_: None,
        many: Callable[[Sequence[Request]], list[NDArray[np.uint8]]] | None = None,
        learner: torch.device | None = None,
    ) -> None:
        self.labels, self._pixels, self._seed, self._many = labels, pixels, seed, many
        self._device, self._jpegs, self._learner = device, jpegs, learner or torch.device("cpu")
        self._copying = torch.cuda.Stream(self._learner) if self._learner.type == "cuda" else None
        # where they are needed from the beginning: each copy to a device would wait for all that was asked of it before
        self._mean = torch.tensor(mean).reshape(1, 3, 1, 1).to(self._learner) * 255
        self._std = torch.tensor(std).reshape(1, 3, 1, 1).to(self._learner) * 255

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        chosen = order[first * size :].tolist()
        seeds = (seed_for(self._seed, "augment", epoch, i, place) for place, i in enumerate(chosen, first * size))
        requests = [(i, (epoch, seed)) for i, seed in zip(chosen, seeds, strict=True)]
        for batch in batched(self._read(requests, size), size):
            positions = np.array([request[0] for request, _ in batch])
            yield self._normalised(self._images(batch)), torch.from_numpy(self.labels[positions])

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        for batch in batched(self._read([(i, None) for i in positions.tolist()], size), size):
            yield self._normalised(self._images(batch))

    def shown(self, positions: Sequence[int]) -> NDArray[np.uint8]:
        """These photos as they are, (n, h, w, 3)."""
        return np.stack([self._pixels(i, None) for i in positions])

    def _read(self, requests: Sequence[Request], size: int) -> Iterator[tuple[Request, NDArray[np.uint8] | Jpeg]]:
        """Each photo decoded, or the file where the device is to decode it."""
        if (many := self._many) is not None:
            parts = ordered_map(
                lambda part: list(zip(part, many(part), strict=True)),
                batched(requests, PART), workers=2 * n_cores(), ahead=max(2 * n_cores(), 2 * size // PART),
            )  # fmt: skip
            return itertools.chain.from_iterable(parts)

        def work(request: Request) -> tuple[Request, NDArray[np.uint8] | Jpeg]:
            place, drawn = request
            file = self._jpegs(place, drawn) if self._device is not None and drawn is not None else None
            return request, file or self._pixels(place, drawn)

        return ordered_map(work, requests, workers=n_cores(), ahead=2 * size)

    def _images(self, batch: Sequence[tuple[Request, NDArray[np.uint8] | Jpeg]]) -> torch.Tensor:
        """(n, 3, h, w) float32 in 0..255, on the device that decodes or learns where there is one."""
        files = [photo for _, photo in batch if not isinstance(photo, np.ndarray)]
        try:
            decoded = iter(on_device(files, self._device) if self._device is not None and files else ())
        except RuntimeError:  # one of them is damaged, or of a kind that this device does not know
            return self._there([self._pixels(*request) for request, _ in batch])
        if not files:
            return self._there([photo for _, photo in batch if isinstance(photo, np.ndarray)])
        images = [
            self._there([p])[0].to(self._device) if isinstance(p, np.ndarray) else next(decoded) for _, p in batch
        ]
        return torch.stack(images)

    def _there(self, pixels: list[NDArray[np.uint8]]) -> torch.Tensor:
        """(n, 3, h, w) float32 in 0..255 where training happens; what crosses to CUDA does so beside what it computes."""
        batch = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=self._copying is not None)
        np.stack(pixels, out=batch.numpy())
        if self._copying is None:
            return batch.to(self._learner).permute(0, 3, 1, 2).float()
        with torch.cuda.stream(self._copying):
            there = batch.to(self._learner, non_blocking=True)
        computing = torch.cuda.current_stream(self._learner)
        computing.wait_stream(self._copying)
        there.record_stream(computing)
        return there.permute(0, 3, 1, 2).float()

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
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

    def pinned(_: int) -> Pair | None:
        with torch.cuda.device(device):  # of this thread
            return _pinned(next(batches, None))

    for pair in ordered_map(pinned, itertools.count(), workers=1, ahead=2):
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
    """In memory that a device copies from by itself; what is on one already stays there."""
    return pair and (pair[0] if pair[0].is_cuda else pair[0].pin_memory(), pair[1].pin_memory())


def _floats(rows: NDArray[np.float16]) -> torch.Tensor:
    return torch.from_numpy(rows.astype(np.float32))
