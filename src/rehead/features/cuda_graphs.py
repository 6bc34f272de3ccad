"""What is asked of a CUDA device recorded once, as a graph, and asked for at once from then on.

A batch asks for hundreds of kernels, one by one, each through the interpreter, whose lock threads that hand photos over hold
too. What needs a number of the device on the way cannot be recorded. To try it leaves PyTorch in disorder (in 2.11 nothing
could throw dice afterwards), so it is looked for first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")
NUMBERS = (
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "equal", "repeat_interleave", "bincount",
)  # fmt: skip


class Numbers(TorchDispatchMode):  # type: ignore[misc]
    """Within it, in this thread, found names what waits for a device: an operation whose shape or branch depends on what was
    computed, or a copy between it and the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket.__name__)
        copies = name in ("_to_copy", "copy_") and isinstance(made, torch.Tensor)
        crosses = copies and (made.device.type == "cpu") != (args[0 if name == "_to_copy" else 1].device.type == "cpu")
        masks = name in ("index", "index_put_", "index_put") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if name.startswith(NUMBERS) or crosses or masks:
            self.found = self.found or name
        return made


def recorded(work: Callable[[], T], device: torch.device) -> tuple[torch.cuda.CUDAGraph, T]:
    """The graph of what `work` asks the current device for, and what it gave: memory that each replay fills anew. Nothing is
    computed yet.

    Raises RuntimeError where it cannot be recorded, as when there is no memory. Dice that were recorded before are then no
    longer those that are thrown here.
    """
    graph, dice = torch.cuda.CUDAGraph(), torch.cuda.default_generators[torch.cuda.current_device()]
    thrown, before = dice.get_state(), torch.cuda.current_stream(device)
    # one that nothing else is asked in, of those that are served first: graphs of one stream share cuBLAS's scratch memory
    # (github.com/pytorch/pytorch/issues/193402)
    stream = torch.cuda.Stream(device, priority=-1)
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):  # others copy photos meanwhile
            return graph, work()
    except RuntimeError:  # what throws dice there believes that the recording goes on
        torch.cuda.set_stream(before)
        dice.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
        dice.set_state(thrown)
        raise
