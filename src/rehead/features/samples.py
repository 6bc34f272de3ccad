"""The photos on which an engine is compared with the reference."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.rows import Skip
from rehead.errors import PhotoError
from rehead.features.bad import none_read, skip_of
from rehead.nets.card import Card
from rehead.parallel import ordered_map
from rehead.pixels import prepare

N_COMPARED = 8
N_COMPARED_INT8 = 32  # 8 bits with float32: rounding differs from photo to photo


def sample_pixels(catalog: Catalog, positions: Iterable[int], card: Card, n: int = N_COMPARED) -> NDArray[np.uint8]:
    """Pixels (n, h, w, 3) of the first `n` of these photos that can be read. Raises TooManyBad where none can."""

    bad: dict[int, Skip] = {}

    def read(i: int) -> NDArray[np.uint8] | None:
        try:
            return prepare(catalog.read(catalog.photos[i]), card.preprocess)
        except (PhotoError, OSError) as error:
            bad[i] = skip_of(catalog.photos[i], error)
            return None

    order = iter(positions)
    first = [*itertools.islice(order, 1)]
    at_once = n if any(catalog.uri(catalog.photos[i]) is not None for i in first) else 1
    with contextlib.closing(ordered_map(read, itertools.chain(first, order), workers=at_once, ahead=at_once)) as found:
        pixels = list(itertools.islice((one for one in found if one is not None), n))
    if not pixels:
        raise none_read([*bad.values()])
    return np.stack(pixels)
