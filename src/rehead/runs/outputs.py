"""What a model gives for the photos of its run, kept so that a report asks nothing again: `logits.safetensors`.

Rows are those of `catalog.csv`. Logits are as the head gives them, before any temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehead.durable import write_bytes
from rehead.errors import RunError
from rehead.solution import Solution

FILE = "logits.safetensors"


@dataclass(frozen=True)
class Outputs:
    """train, held_out: rows of the photos that were used, (t,) and (n,) int64. logits: (n, k) of the held-out photos, or
    their numbers, (n, 1). apart, apart_logits: rows (m,) and logits (m, k) of training photos that the model, or one like it
    in a k-fold, did not learn from. distances: (n,) of the held-out photos to what is familiar, NaN where that is not known.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    logits: NDArray[np.float32]
    apart: NDArray[np.int64]
    apart_logits: NDArray[np.float32]
    distances: NDArray[np.float32]

    @property
    def used(self) -> NDArray[np.int64]:
        """Rows of all photos that were used, (t + n,), in their order."""
        return np.sort(np.concatenate([self.train, self.held_out]))


def write_outputs(run: Path, solution: Solution) -> None:
    """Writes what a solution gave, whole or not at all."""
    from safetensors.numpy import save

    n, k = solution.logits.shape
    apart, apart_logits = solution.apart or ([], np.empty((0, k), np.float32))
    far = solution.distances
    tensors = {
        "train": np.array(solution.train, np.int64),
        "held_out": np.array(solution.held_out, np.int64),
        "logits": np.ascontiguousarray(solution.logits, np.float32),
        "apart": np.array(apart, np.int64),
        "apart_logits": np.ascontiguousarray(apart_logits, np.float32),
        "distances": np.full(n, np.nan, np.float32) if far is None else np.ascontiguousarray(far, np.float32),
    }
    write_bytes(run / FILE, save(tensors))


def read_outputs(run: Path) -> Outputs:
    """What was written. Raises RunError where it is not there or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return Outputs(**load_file(run / FILE))
    except (OSError, SafetensorError, TypeError) as error:
        raise RunError(
            what=f"What the model of {run} gave for its photos cannot be read.",
            why=f"{run / FILE}: {error}".split("\n")[0],
            fix="Tune again on the same photos: their features are kept, so it takes seconds.",
        ) from error
