"""Activation maps laid over pictures. Colours that people who see red and green alike can tell apart, by matplotlib."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.pixels import Preprocess, crop_box

COLOURS = "inferno"
STRENGTH = 0.55  # of the colours over the picture, which must stay recognisable


def over_picture(heat: NDArray[np.float32], size: tuple[int, int], preprocess: Preprocess) -> NDArray[np.float32]:
    """A map over a network's input as one over the whole upright picture, (h, w) float32, NaN where it does not look.

    heat: any (h', w') over the square. size: (width, height) of the picture; that of the result at most 256 along a side.
    """
    width, height = size
    scale = min(1.0, 256 / max(size))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    if preprocess.fit == "crop":
        left, top, right, bottom = crop_box(size, preprocess)
    elif preprocess.fit == "pad":
        side = max(width / preprocess.width, height / preprocess.height)
        left, top = (width - side * preprocess.width) / 2, (height - side * preprocess.height) / 2
        right, bottom = width - left, height - top
    else:
        left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    x0, y0, x1, y1 = (round(v * scale) for v in (left, top, right, bottom))
    part = Image.fromarray(np.asarray(heat, np.float32)).resize(
        (max(1, x1 - x0), max(1, y1 - y0)), Image.Resampling.BICUBIC
    )
    whole = np.full((h, w), np.nan, np.float32)
    inside = np.clip(np.asarray(part), 0, 1)
    top_cut, left_cut = max(0, -y0), max(0, -x0)
    shown = inside[top_cut : top_cut + h - max(0, y0), left_cut : left_cut + w - max(0, x0)]
    whole[max(0, y0) : max(0, y0) + shown.shape[0], max(0, x0) : max(0, x0) + shown.shape[1]] = shown
    return whole


def overlaid(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The picture, grey, under the colours of its map; darkened where the map is NaN. picture: RGB."""
    from matplotlib import colormaps

    filled = np.nan_to_num(np.asarray(heat, np.float32), nan=0.0)
    seen = np.isfinite(heat).astype(np.float32)
    size = picture.size
    scaled = np.clip(np.asarray(Image.fromarray(filled).resize(size, Image.Resampling.BICUBIC)), 0, 1)
    inside = np.asarray(Image.fromarray(seen).resize(size, Image.Resampling.NEAREST))[..., None] > 0.5
    grey = np.asarray(picture.convert("L").convert("RGB"), np.float32) / 255
    colours = colormaps[COLOURS](scaled)[..., :3]
    mixed = np.where(inside, (1 - STRENGTH) * grey + STRENGTH * colours, 0.35 * grey)
    return Image.fromarray((255 * np.clip(mixed, 0, 1)).astype(np.uint8))
