"""A prefix on PyTorch: the reference every engine is compared with, and what runs on a GPU."""

from __future__ import annotations

import copy
import threading

import numpy as np
import torch
from numpy.typing import NDArray

from rehead.errors import EngineError
from rehead.features.engines import Prefix
from rehead.parallel import n_cores

BATCH = {"cpu": 8, "mps": 32, "cuda": 128}


class TorchEngine:
    """float32 on CPU and MPS; bfloat16 and channels-last on CUDA. One call at a time: a device runs one anyway."""

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
        self.workers = 1 if device == "cpu" else n_cores()  # threads decode while one of them runs the device
        self._device = torch.device(device)
        self._lock = threading.Lock()
        shape = (1, 3, 1, 1)
        preprocess = prefix.card.preprocess
        self._mean = torch.tensor(preprocess.mean, device=device).reshape(shape) * 255
        self._std = torch.tensor(preprocess.std, device=device).reshape(shape) * 255
        layout = torch.channels_last if device == "cuda" else torch.contiguous_format
        network = copy.deepcopy(prefix.network())  # another engine may have the same on another device
        self._network = network.eval().to(self._device, memory_format=layout)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._lock, torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
            images = (batch.permute(0, 3, 1, 2).float() - self._mean) / self._std
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                features = self._network(images)
            return np.asarray(features.float().cpu().numpy())


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
