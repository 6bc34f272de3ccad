"""How far a number is from the usual ones, not swayed by those that are far."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FAR = 3.5  # Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers", for the modified z-score
NORMAL_MAD = 0.6745  # the median absolute deviation of a normal distribution, in standard deviations


def modified_z(values: NDArray[Any]) -> NDArray[np.float64]:
    """The distance of each value (n,) from the median, in robust standard deviations; 0 where more than half are equal."""
    values = np.asarray(values, np.float64)
    deviation = values - np.median(values)
    spread = np.median(np.abs(deviation))
    return NORMAL_MAD * deviation / spread if spread > 0 else np.zeros(len(values))
