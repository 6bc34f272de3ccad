"""Which dimensions of what a layer gives are places of the photo; the one that is left are its channels. No torch.

Networks say it of their last map at most, and some turn their maps around on the way, so it is told by the shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def places_of(shape: Sequence[int], size: Sequence[int], *, channels_last: bool = False) -> tuple[int, ...]:
    """Of a map (c, h, w) or (h, w, c) the two that have the photo's proportions, of tokens (t, c) the first, of a row none.

    shape: of a layer's output for one photo. size: the photo's height and width. channels_last: what a map is taken for
    whose shape does not tell.
    """
    if len(shape) != 3:
        return (0,) if len(shape) == 2 else ()
    last, first = (_off(shape[i : i + 2], size) for i in (0, 1))
    if last == first:
        return (0, 1) if channels_last else (1, 2)
    return (0, 1) if last < first else (1, 2)


def _off(places: Sequence[int], size: Sequence[int]) -> float:
    """How far the proportions are from those of the photo."""
    return abs(math.log(places[0] * size[1] / (places[1] * size[0])))
