"""A first number while photos are still being extracted: the head refitted on what is there, checked on what is held out.

Keeps a bounded sample of features, so memory does not grow with the job. Nothing is chosen by these numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rehead.bundle import Head
from rehead.features.store import LARGEST

FIRST_AFTER_S = 1.5  # the first check: early enough to be the first number on screen within seconds
EVERY_S = 5.0
MAX_SHARE = 0.05  # of the time, at most, goes into checks
MAX_TRAIN, MAX_HELD_OUT = 3000, 2000  # features kept
MIN_TRAIN = 4  # photos, and at least two classes, before a head is worth fitting


class Anytime:
    """`add` batches as they come; `check` tells how a head does on the held-out photos when a new number is due.

    labels: what is learned of each photo, (n,) or (n, k). fit: a head from features and labels, quickly. tell: a line from
    its logits and the labels, "" where there is nothing to tell.
    """

    def __init__(
        self,
        labels: NDArray[Any],
        is_train: NDArray[np.bool_],
        fit: Callable[[NDArray[np.float32], NDArray[Any]], Head],
        tell: Callable[[NDArray[np.float32], NDArray[Any]], str],
    ) -> None:
        self._labels, self._is_train, self._fit, self._tell = labels, is_train, fit, tell
        self._kept: dict[bool, list[tuple[int, NDArray[np.float16]]]] = {True: [], False: []}
        self._due = time.monotonic() + FIRST_AFTER_S

    def add(self, positions: list[int], features: NDArray[np.float32]) -> None:
        """positions: places in `labels`. features: (n, width)."""
        for i, row in zip(positions, np.clip(features, -LARGEST, LARGEST).astype(np.float16), strict=True):
            kept = self._kept[bool(self._is_train[i])]
            if len(kept) < (MAX_TRAIN if self._is_train[i] else MAX_HELD_OUT):
                kept.append((i, row))

    def check(self) -> str:
        """The line on the held-out photos that are there, or "" when it is too early or too soon after the last."""
        if time.monotonic() < self._due or len(self._kept[True]) < MIN_TRAIN or not self._kept[False]:
            return ""
        begun = time.monotonic()
        x, y = self._arrays(True)
        if (y == y[0]).all():
            return ""
        held_x, held_y = self._arrays(False)
        with threadpool_limits(1):  # extraction uses the other cores; threads that wait for each other lose to it
            line = self._tell(self._fit(x, y).logits(held_x), held_y)
        took = time.monotonic() - begun
        self._due = time.monotonic() + max(EVERY_S, took / MAX_SHARE)
        return line

    def _arrays(self, train: bool) -> tuple[NDArray[np.float32], NDArray[Any]]:
        positions, rows = zip(*self._kept[train], strict=True)
        return np.stack(rows).astype(np.float32), self._labels[list(positions)]
