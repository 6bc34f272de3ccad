"""Two models on the same photos: whether one is clearly better, or what it gains may be chance. Arrays in, numbers out.

The rule is one standard error, after Breiman et al. 1984: of models that cannot be told apart, take the simpler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9  # a single photo's difference is one standard error exactly, and is never clear


@dataclass(frozen=True)
class Gain:
    """What one model is right on beyond another, as a share of the photos, and one standard error of that."""

    value: float
    error: float

    @property
    def is_clear(self) -> bool:
        return self.value > self.error * (1 + ROUNDING)


def gain(right: NDArray[np.bool_], other: NDArray[np.bool_]) -> Gain:
    """What `right` gains over `other`, photo by photo: (n,) each, whether a model is right on it.

    Photos that both get right, or both wrong, say nothing of the difference, and so its error is far smaller than that of
    either share. Of one photo or none nothing is known: the error is infinite.
    """
    if len(right) < 2:
        return Gain(0.0, math.inf)
    difference: NDArray[Any] = right.astype(np.float64) - other.astype(np.float64)
    return Gain(float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference))))
