"""A prefix on PyTorch: the reference every engine is compared with, and what runs on a GPU."""

from __future__ import annotations

import contextlib
import copy
import math
import queue
import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rehead.errors import EngineError
from rehead.features.cuda_graphs import Numbers, recorded
from rehead.features.engines import Prefix
from rehead.parallel import n_cores

BATCH = {"cpu": 4, "mps": 32, "cuda": 128}
PINNED_BYTES = 32 << 20
LANES = 2  # calls under way on CUDA: one is computed, the other waits for it or is taken back


@dataclass(frozen=True)
class _Lane:
    """Pixels (batch, h, w, 3) uint8 and features (batch, *shape) float32 in memory that CUDA copies from and to by itself; none
    for features that are large, as those of early layers are."""

    pixels: torch.Tensor
    features: torch.Tensor | None
    done: torch.cuda.Event


class TorchEngine:
    """float32 on CPU and MPS, one call at a time; bfloat16 and channels-last on CUDA, where calls wait in a stream for each
    other, so that the device goes from one to the next by itself. Pixels cross to it as bytes and are normalised there."""

    name = "torch"

    def __init__(self, prefix: Prefix, device: str) -> None:
        check_device(device)
        if prefix.network is None:
            raise EngineError(
                what="The engine torch runs networks, and a bundle holds a graph alone.",
                fix="Leave --engine out, or name a backbone instead of the bundle.",
            )
        self.version = str(torch.__version__).split("+")[0]
        self.precision = "bf16" if device == "cuda" else "fp32"
        self.batch = BATCH[device]
        self.workers = 1 if device == "cpu" else n_cores() + 2 * LANES  # threads decode while others run the device
        self._device = torch.device(device)
        self._lock = threading.Lock()
        shape = (1, 3, 1, 1)
        preprocess = prefix.card.preprocess
        self._mean = torch.tensor(preprocess.mean, device=device).reshape(shape) * 255
        self._std = torch.tensor(preprocess.std, device=device).reshape(shape) * 255
        layout = by_pixel(prefix.network()) if device == "cuda" else torch.contiguous_format
        network = copy.deepcopy(prefix.network())  # another engine may have the same on another device
        self._network = network.eval().to(self._device, memory_format=layout)

        self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        if device == "cuda":
            size = (self.batch, preprocess.height, preprocess.width, 3)
            self._pixels = torch.zeros(size, dtype=torch.uint8, device=self._device)
            self._graph = self._recorded()
            self._stream = torch.cuda.Stream(self._device)
            for _ in range(LANES):
                pixels = torch.empty(size, dtype=torch.uint8, pin_memory=True)
                is_large = 4 * self.batch * math.prod(prefix.card.shape) > PINNED_BYTES
                features = None if is_large else torch.empty(self.batch, *prefix.card.shape, pin_memory=True)
                # one that sleeps: waiting awake would take a core from the decoders
                self._lanes.put(_Lane(pixels, features, torch.cuda.Event(blocking=True)))
            torch.cuda.synchronize(self._device)  # the network is there, whatever stream asks for it

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._device.type == "cuda":
            return self._in_lane(pixels)
        with self._lock, torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
            return np.asarray(self._features(batch).cpu().numpy())

    def _features(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 features, on the device, of pixels (n, h, w, 3) uint8 there."""
        images = (batch.permute(0, 3, 1, 2).float() - self._mean) / self._std
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self._network(images)
        return features.float()

    def _recorded(self) -> tuple[torch.cuda.CUDAGraph, torch.Tensor] | None:
        """The graph that computes the features of the pixels that lie on the device, and where it leaves them; None where it
        cannot be recorded."""
        with torch.inference_mode():
            with Numbers() as numbers:
                self._features(self._pixels)  # chooses its kernels, too
            with contextlib.suppress(RuntimeError):
                return recorded(lambda: self._features(self._pixels), self._device) if not numbers.found else None
        return None

    def _run(self) -> torch.Tensor:
        if self._graph is None:
            return self._features(self._pixels)
        graph, features = self._graph
        graph.replay()
        return features

    def _in_lane(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Always a whole batch, the last photo repeated: kernels chosen by its size would change the last bits."""
        lane = self._lanes.get()
        try:
            host, n = lane.pixels.numpy(), len(pixels)
            host[:n], host[n:] = pixels, pixels[-1]
            with self._lock, torch.cuda.stream(self._stream), torch.inference_mode():
                self._pixels.copy_(lane.pixels, non_blocking=True)
                features = self._run()
                if lane.features is None:
                    return np.asarray(features[:n].cpu().numpy())
                lane.features.copy_(features, non_blocking=True)
                lane.done.record()
            lane.done.synchronize()
            return lane.features[:n].numpy().copy()
        finally:
            self._lanes.put(lane)


def by_pixel(network: torch.nn.Module) -> torch.memory_format:
    """Channels last, but for a network with a tensor of five dimensions, as in lambda_resnet26t, which cannot lie so."""
    has_five = any(tensor.ndim == 5 for tensor in (*network.parameters(), *network.buffers()))
    return torch.contiguous_format if has_five else torch.channels_last


def best_device() -> str:
    """ "cuda" or "mps" where there is one, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str) -> None:
    """Raises EngineError for a device that PyTorch does not see."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise EngineError(what=f"There is no device {device} here.", why=f"PyTorch sees: {names}.")
