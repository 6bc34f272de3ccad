"""Numbers that are learned, at mean 0 and deviation 1, so that a learning rate means the same whatever their unit is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head


@dataclass(frozen=True)
class Scale:
    """Where 0 and 1 of the standardised numbers lie among the numbers themselves."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Scale:
        """The scale of these numbers; those that do not differ are only moved to 0."""
        std = float(values.std(dtype=np.float64))
        return cls(float(values.mean(dtype=np.float64)), std if std > 0 else 1.0)

    def standardised(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        return ((values.astype(np.float64) - self.mean) / self.std).astype(np.float32)

    def on(self, head: Head) -> Head:
        """The head with its output, a standardised number, restored."""
        weight, bias = (array.astype(np.float64) * self.std for array in head.layers[-1])
        last = (weight.astype(np.float32), (bias + self.mean).astype(np.float32))
        return replace(head, layers=(*head.layers[:-1], last))
