"""PyTorch's ambient state, settings and dice, and a setting of Pillow's, which are the process's and so the user's: set while
they are needed, and put back.

No torch until it is loaded: a process that has not loaded it has changed nothing of it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from PIL import ImageFile

if TYPE_CHECKING:
    import torch


class _WholePictures:
    """Within it, a picture whose end is lost is no picture. Jobs may overlap in threads: the first one remembers what Pillow
    took, the last one puts it back."""

    def __init__(self) -> None:
        self._lock, self._n_within, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_within:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
            self._n_within += 1
            ImageFile.LOAD_TRUNCATED_IMAGES = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_within -= 1
            if not self._n_within:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_WHOLE_PICTURES = _WholePictures()  # one for all threads, as is what Pillow takes


@contextmanager
def own_settings() -> Iterator[None]:
    """Within it, numbers are float32 and on the CPU where nothing else is said, and gradients can be taken: no autocast either.
    A picture whose end is lost is no picture.

    Only what differs is set, so that nothing is slower where all is as PyTorch begins. Gradients and the device are this
    thread's; the kind of number and what Pillow decodes are those of all threads, so they are set around a whole job.
    """
    with ExitStack() as settings:
        settings.enter_context(_WHOLE_PICTURES)
        if sys.modules.get("torch") is not None:
            _set_torch(settings)
        yield


def _set_torch(settings: ExitStack) -> None:
    import torch

    settings.enter_context(gradients())
    if torch.get_default_device().type != "cpu":
        settings.enter_context(torch.device("cpu"))
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            settings.enter_context(torch.autocast(kind, enabled=False))
    if (dtype := torch.get_default_dtype()) != torch.float32:
        settings.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)


@contextmanager
def gradients() -> Iterator[None]:
    """Within it, gradients can be taken, also where a notebook has turned them off at its top."""
    import torch

    with ExitStack() as settings:
        if not torch.is_grad_enabled():
            settings.enter_context(torch.inference_mode(False))  # which ends no_grad too
        yield


@contextmanager
def dice(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within it, the dice of the CPU and of this device are those of the seed. No other device's are touched."""
    import torch

    kind = "cpu" if device is None else device.type
    with ExitStack() as ends, torch.random.fork_rng(devices=[device] if kind == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds every device that there is
        if kind == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif kind == "mps":
            ends.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
            torch.mps.manual_seed(seed)
        yield
