"""What tuning gives, whatever learned: a head, the network below it as a graph, and what both say of held-out photos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.data.rows import Skip
from rehead.nets.card import Card


@dataclass(frozen=True, kw_only=True)
class Solution:
    """train, held_out: positions in the catalog of the photos that were used. logits: (n, n_classes) of the held-out ones,
    or (n, 1) numbers.

    body: an ONNX graph, pixels -> "features" (n, width), which the head takes. features: the same by other means, for
    comparison, on pixels (n, h, w, 3). card: of the backbone. learned: the layers that were tuned besides the head.
    bad: photos that could not be read. n_stored: photos whose features were there already. thresholds: of several labels.
    watched: where that was asked for, training photos that the model did not learn from, or one like it in a k-fold, and
    whether it is right on them.
    """

    head: Head
    note: str
    train: list[int]
    held_out: list[int]
    logits: NDArray[np.floating[Any]]
    body: Path
    features: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    card: Card
    bad: dict[int, Skip]
    n_stored: int
    learned: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    watched: dict[int, bool] = field(default_factory=dict)
