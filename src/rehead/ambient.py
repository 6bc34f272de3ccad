"""PyTorch's ambient state, which is the process's and so the user's: set for as long as it is needed, and put back.

No torch until it is loaded: a process that has not loaded it has changed nothing of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def own_settings() -> Iterator[None]:
    """Within it, numbers are float32 and on the CPU where nothing else is said, and gradients can be taken.

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
