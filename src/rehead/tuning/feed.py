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
from rehead.features.jpegs import Jpeg, Undecodable
from rehead.features.on_device import on_device
from rehead.parallel import batched, n_cores, ordered_map

Pair = tuple[torch.Tensor, torch.Tensor]
Request = tuple[int, tuple[int, int] | None]  # a photo's place, and the (epoch, seed) of its augmentation
Photo = NDArray[np.uint8] | Jpeg


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Views as plain arrays: those of a subclass, as files are mapped by, are copied into what is sent."""
        return StoredFeed, ([np.asarray(view) for view in self._views], self.labels, self._seed)

    @property
    def n_bytes(self) -> int:
        return sum(view.nbytes for view in self._views)

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
    """Photos decoded beside the training, augmented anew each epoch. They cross to the device as bytes.

    photos: of each place and (epoch, seed), or None for the photo as it is, the pixels (h, w, 3) uint8, of one size in an
    epoch, or a file that the learner decodes. mean, std: of the three channels, in 0..1. at_once: how many it is asked for.
    learner: where training happens, and photos are normalised.
    """

    def __init__(
        self,
        photos: Callable[[Sequence[Request]], Sequence[Photo]],
        labels: NDArray[Any],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        seed: int,
        at_once: int = 1,
        learner: torch.device | None = None,
    ) -> None:
        self.labels, self._photos, self._seed, self._at_once = labels, photos, seed, at_once
        self._learner = learner or torch.device("cpu")
        self._beside = torch.cuda.Stream(self._learner) if self._learner.type == "cuda" else None
        # where they are needed from the beginning: each copy to a device would wait for all that was asked of it before
        self._mean = (torch.tensor(mean).reshape(1, 3, 1, 1) * 255).to(self._learner)
        self._std = (torch.tensor(std).reshape(1, 3, 1, 1) * 255).to(self._learner)

    def batches(self, order: NDArray[np.int64], epoch: int, size: int, first: int) -> Iterator[Pair]:
        chosen = order[first * size :].tolist()
        seeds = (seed_for(self._seed, "augment", epoch, i, place) for place, i in enumerate(chosen, first * size))
        requests = [(i, (epoch, seed)) for i, seed in zip(chosen, seeds, strict=True)]
        for batch in batched(self._read(requests, size), size):
            positions = np.array([request[0] for request, _ in batch])
            yield self._normalised([photo for _, photo in batch]), torch.from_numpy(self.labels[positions])

    def plain(self, positions: NDArray[np.int64], size: int) -> Iterator[torch.Tensor]:
        for batch in batched(self._read([(i, None) for i in positions.tolist()], size), size):
            yield self._normalised([photo for _, photo in batch])

    def shown(self, positions: Sequence[int]) -> NDArray[np.uint8]:
        """These photos as they are, (n, h, w, 3)."""
        return np.stack([_pixels(photo) for photo in self._photos([(i, None) for i in positions])])

    def _read(self, requests: Sequence[Request], size: int) -> Iterator[tuple[Request, Photo]]:
        def work(part: list[Request]) -> list[tuple[Request, Photo]]:
            return [*zip(part, self._photos(part), strict=True)]

        n = self._at_once
        workers, ahead = (n_cores(), 2 * size) if n == 1 else (2 * n_cores(), max(2 * n_cores(), 2 * size // n))
        return itertools.chain.from_iterable(ordered_map(work, batched(requests, n), workers=workers, ahead=ahead))

    def _normalised(self, photos: list[Photo]) -> torch.Tensor:
        """(n, 3, h, w) float32, there where training happens; on CUDA what is done for it is done beside what learns."""
        if self._beside is None:
            return self._floats(photos)
        with torch.cuda.stream(self._beside):
            images = self._floats(photos)
            done = torch.cuda.Event(blocking=True)
            done.record()
        done.synchronize()  # here, asleep: a stream that waits for it would hold back what learns from the batch before
        images.record_stream(torch.cuda.current_stream(self._learner))
        return images

    def _floats(self, photos: list[Photo]) -> torch.Tensor:
        return (self._there(photos).permute(0, 3, 1, 2).float() - self._mean) / self._std

    def _there(self, photos: list[Photo]) -> torch.Tensor:
        """(n, h, w, 3) uint8 where training happens."""
        files = [photo for photo in photos if isinstance(photo, Jpeg)]
        try:
            decoded = on_device(files, self._learner) if files else None
        except Undecodable:
            photos, decoded = [*ordered_map(_pixels, photos, workers=n_cores(), ahead=len(photos))], None
        if decoded is not None and len(files) == len(photos):
            return decoded
        others = self._copied([photo for photo in photos if isinstance(photo, np.ndarray)])
        if decoded is None:
            return others
        is_file = torch.tensor([isinstance(photo, Jpeg) for photo in photos], device=self._learner)
        there = torch.empty((len(photos), *others.shape[1:]), dtype=torch.uint8, device=self._learner)
        there[is_file], there[~is_file] = decoded, others
        return there

    def _copied(self, pixels: list[NDArray[np.uint8]]) -> torch.Tensor:
        batch = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=self._beside is not None)
        np.stack(pixels, out=batch.numpy())
        return batch.to(self._learner, non_blocking=self._beside is not None)


def _pixels(photo: Photo) -> NDArray[np.uint8]:
    return photo.by_pillow() if isinstance(photo, Jpeg) else photo


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
