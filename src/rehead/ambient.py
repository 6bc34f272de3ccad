"""PyTorch's ambient state, settings and dice, which is the process's and so the user's: set while it is needed, and put back.

No torch until it is loaded: a process that has not loaded it has changed nothing of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def own_settings() -> Iterator[None]:
    """Within it, numbers are float32 and on the CPU where nothing else is said, and gradients can be taken: no autocast either.

    Only what differs is set, so that nothing is slower where all is as PyTorch begins. Gradients and the device are this
    thread's; the kind of number is that of all threads, so it is set around a whole job.
    """
    if sys.modules.get("torch") is None:
        yield
        return
    import torch

    with ExitStack() as settings:
        settings.enter_context(gradients())
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            settings.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


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
