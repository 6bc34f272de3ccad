"""What every form of a model is made from, and what its making gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle


@dataclass(frozen=True)
class Made:
    """files: the one to open first, first. settings: what a reader may want to know of how they were made."""

    files: tuple[Path, ...]
    settings: Mapping[str, Any]


Calibration: TypeAlias = Callable[[], NDArray[np.uint8]]  # training photos as the network sees them, (m, h, w, 3)
Make: TypeAlias = Callable[[Bundle, Path, Calibration], Made]
