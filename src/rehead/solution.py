"""What tuning gives, whatever learned: a head, the network below it as a graph, and what both say of held-out photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Familiar, Head
from rehead.data.catalog import Catalog
from rehead.data.rows import Skip
from rehead.nets.card import Card


@dataclass(frozen=True, kw_only=True)
class Solution:
    """catalog: with near copies on one side, where the split is ours. train, held_out: positions in it of the photos that
    were used. logits: (n, n_classes) of the held-out ones, or (n, 1) numbers.

    body: an ONNX graph, pixels -> "features" (n, width), which the head takes. features: the same by other means, for
    comparison, on pixels (n, h, w, 3). card: of the backbone. learned: the layers that were tuned besides the head.
    bad: photos that could not be read. n_stored: photos whose features were there already. thresholds: of several labels.
    apart: of classes, training photos that the model, or one like it in a k-fold, did not learn from: their positions
    and logits (m, n_classes). n_watched: of `train`, those that only said which epoch is kept. penalty: that a linear head
    alone was solved with. familiar: the photos that it knows, None where they are too few. bank: their positions in the
    catalog, in the order of its rows. distances: (n,), of the held-out photos to those. alone: what a head alone says of
    each held-out photo where layers learned: (n, 1) places of classes, or as `logits`; None where that was not looked at.
    int8_cosine: of a network in 8 bits, the mean cosine of its features with those in float32, where it was measured.
    """

    catalog: Catalog
    head: Head
    note: str
    train: Sequence[int]
    held_out: Sequence[int]
    logits: NDArray[np.floating[Any]]
    body: Path
    features: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    card: Card
    bad: dict[int, Skip]
    n_stored: int
    learned: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    apart: tuple[Sequence[int], NDArray[np.float32]] | None = None
    n_watched: int = 0
    penalty: float | None = None
    familiar: Familiar | None = None
    bank: tuple[int, ...] = ()
    distances: NDArray[np.float32] | None = None
    alone: NDArray[np.floating[Any] | np.int64] | None = None
    int8_cosine: float | None = None

    @property
    def is_far(self) -> NDArray[np.bool_] | None:
        """Whether each held-out photo is unlike those that the model knows, (n,); None where that is not known."""
        if self.familiar is None or self.distances is None:
            return None
        return np.asarray(self.distances > self.familiar.threshold)

    def right_apart(self) -> dict[int, bool]:
        """Whether each of those photos is named right, by its position."""
        if self.apart is None:
            return {}
        positions, logits = self.apart
        return dict(zip(positions, (logits.argmax(axis=1) == self.catalog.labels(positions)).tolist(), strict=True))
