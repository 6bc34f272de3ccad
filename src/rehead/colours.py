"""A picture of any mode -> upright RGB.

Grey is repeated; palettes are looked up; transparency is laid over white, but a colour that a PNG declares to be transparent
stays as it is, and so does that of a GIF whose palette is the greys in order, as which Pillow opens it: an image in memory no
longer says which of the two it was. CMYK, YCbCr, LAB and HSV are converted by Pillow's formulas (embedded colour profiles are
not applied); 16-bit samples keep their upper 8 bits, and so do 32-bit ones from 0 on with a largest in 256..65535, as which
Pillow opens 16-bit PGM; other 32-bit samples, and floating point, are stretched from their smallest to their largest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

WHITE = (255, 255, 255)
BAND_PIXELS = 1 << 18  # of a picture that are converted at a time: numbers and transparency take megabytes


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB by the rules above. Beside the two it takes a few megabytes of memory."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return _by_bands(image, lambda band: _grey(np.asarray(band).astype(np.uint16) >> 8))
    if image.mode in ("I", "F"):
        stretched = _stretch(image)
        return _by_bands(image, lambda band: _grey(stretched(_numbers(band))))
    if image.mode in ("P", "LA", "PA", "La", "RGBA", "RGBa") and image.has_transparency_data:
        return _by_bands(image, _over_white)
    if image.mode == "L":
        return Image.merge("RGB", (image,) * 3)  # a conversion warns of a grey that is declared to be transparent
    return image.convert("RGB")


def _by_bands(image: Image.Image, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB image of what `change`, which looks at each pixel alone, makes of a few rows at a time."""
    if image.width * image.height <= BAND_PIXELS:
        return change(image)
    whole = Image.new("RGB", image.size)
    for top, band in _bands(image):
        whole.paste(change(band), (0, top))
    return whole


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in pieces of whole rows, from the top, and where each begins."""
    n_rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, n_rows):
        yield top, image.crop((0, top, image.width, min(top + n_rows, image.height)))


def _over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image.convert("RGBA")).convert("RGB")


def _grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _stretch(image: Image.Image) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """How the numbers of this image become 0..255."""
    low, high = math.inf, -math.inf
    for _, band in _bands(image):
        values = _numbers(band)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if image.mode == "I" and low >= 0 and 255 < high <= 65535:
        return lambda values: values.astype(np.uint16) >> 8  # 16 bits in a 32-bit container
    scale = 255.0 / (high - low) if high > low else 0.0
    return lambda values: (values - low) * scale


def _numbers(band: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(band).astype(np.float64))
