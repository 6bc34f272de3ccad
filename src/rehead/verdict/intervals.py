"""Shares of photos with their 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class Interval:
    """A share of `n` photos, in 0..1, and the 95 % interval around it."""

    value: float
    low: float
    high: float
    n: int

    def __repr__(self) -> str:
        return f"Interval({self.value:.3f}, low={self.low:.3f}, high={self.high:.3f})"

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(right: int, n: int) -> Interval:
    """`right` of `n` with its 95 % score interval (E. B. Wilson, 1927). Of nothing nothing is known: 0 to 1."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    share, z2 = right / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), n)  # of rounding
