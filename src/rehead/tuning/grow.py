"""Progressive resizing: training from photos begins with small ones, which cost less, and ends with the network's own size.

After Howard (2018) and Tan and Le (2021, EfficientNetV2); a network that sees crops of photos in training wants smaller ones
there than when it predicts (Touvron et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rehead.pixels import Preprocess

STEP = 32  # pixels: what networks halve five times


def grown(preprocess: Preprocess, start: float, n_epochs: int) -> list[Preprocess]:
    """How photos are seen in each epoch: sides from `start` (a share, over 0) of their own, in whole steps, to all of them."""
    scales = [start + (1 - start) * epoch / max(1, n_epochs - 1) for epoch in range(n_epochs - 1)] + [1.0]
    return [
        replace(preprocess, height=_side(preprocess.height, scale), width=_side(preprocess.width, scale))
        for scale in scales
    ]


def refused(network: Any, sizes: Sequence[Preprocess]) -> Preprocess | None:
    """The first of these sizes that a network does not take, if any."""
    once = {(size.height, size.width): size for size in sizes}
    return next((size for size in once.values() if not takes(network, size)), None)


def takes(network: Any, preprocess: Preprocess) -> bool:
    """Whether a network takes photos of this size, (1, 3, h, w): transformers with a place for each patch often do not."""
    import torch

    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, preprocess.height, preprocess.width))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _side(side: int, scale: float) -> int:
    return side if scale == 1 else min(side, max(STEP, round(side * scale / STEP) * STEP))
