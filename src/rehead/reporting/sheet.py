"""The sheet of small pictures that a bundle carries, so that people see which photos a model knows look most like theirs.

One JPEG of square tiles, as `docs/bundle.md` says; upright, without EXIF, a grey tile for a photo that is gone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.data.catalog import Catalog
from rehead.data.targets import names_in
from rehead.errors import PhotoError
from rehead.parallel import n_cores, ordered_map
from rehead.pixels import Preprocess, prepare

FILE = "neighbours.jpg"
TILE = 96  # pixels; a multiple of the 16 that JPEG's colours are blocked by: a tile and its neighbour share no block
COLUMNS = 40  # 2,000 photos are 3,840 x 4,800 pixels
QUALITY = 80  # 2,000 photos are 3 MB (flowers) to 5 MB (insects)
NOTHING = np.full((TILE, TILE, 3), 128, np.uint8)
GREY = (0.5, 0.5, 0.5)  # no network looks at these pixels: mean and std are not used
SQUARE = Preprocess(height=TILE, width=TILE, mean=GREY, std=GREY, fit="crop", crop_pct=1.0, interpolation="bicubic")


def sheet(
    catalog: Catalog, positions: Sequence[int], tell: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], bytes, int]:
    """What a bundle says of its sheet, the sheet as JPEG, and how many of the photos at these positions are gone.

    tell: after each photo.
    """

    def work(position: int) -> NDArray[np.uint8] | None:
        try:
            return prepare(catalog.read(catalog.photos[position]), SQUARE)
        except (PhotoError, OSError):
            return None

    n_rows = math.ceil(len(positions) / COLUMNS)
    pixels = np.full((n_rows * TILE, min(COLUMNS, len(positions)) * TILE, 3), 128, np.uint8)
    n_gone = 0
    for place, tile in enumerate(ordered_map(work, positions, workers=n_cores(), ahead=4 * n_cores())):
        top, left = TILE * (place // COLUMNS), TILE * (place % COLUMNS)
        pixels[top : top + TILE, left : left + TILE] = NOTHING if tile is None else tile
        n_gone += tile is None
        tell()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    labels = [_read_by_people(catalog, position) for position in positions]
    return {"file": FILE, "tile": TILE, "columns": COLUMNS, "labels": labels}, file.getvalue(), n_gone


def _read_by_people(catalog: Catalog, position: int) -> str:
    label = catalog.photos[position].label
    return ", ".join(names_in(label)) if catalog.task == "multilabel" else label
