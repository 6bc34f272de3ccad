"""JPEG files decoded, cut and resized on the device that trains, by torchvision, where it can; for learning only.

Decoders and filters differ by a few levels of 256 between devices, so photos that are judged go through `pixels.py`
everywhere. What a device cannot decode (other formats, photos turned by EXIF, other colours than RGB and grey) does too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import ExifTags, Image

from rehead.features.views import Seen, seen
from rehead.pixels import MAX_PIXELS, Preprocess

FILTERS = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "bicubic",
}  # torch has no Lanczos


@dataclass(frozen=True)
class Jpeg:
    """An encoded file, and what of it is shown at which size."""

    data: bytes
    seen: Seen
    preprocess: Preprocess


def decodes(device: torch.device) -> bool:
    """Whether torchvision decodes JPEG on a device here: it may have been built without, or be one that no longer does."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        _decoded([file.getvalue()], device)
    except (ImportError, RuntimeError):
        return False
    return True


def jpeg_of(augment: str, data: bytes, preprocess: Preprocess, seed: int) -> Jpeg | None:
    """The view of this seed as `features.views.augmented` has it, not decoded yet; None where Pillow has to decode it."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            fits = image.mode in ("RGB", "L") and 0 < image.width * image.height <= MAX_PIXELS
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            view = seen(augment, image.size, preprocess, seed) if fits and upright else None
    except Exception:  # whatever is wrong with it, Pillow says so when it decodes
        return None
    return Jpeg(data, view, preprocess) if view else None


def on_device(jpegs: Sequence[Jpeg], device: torch.device) -> torch.Tensor:
    """(n, 3, h, w) float32 in 0..255 of photos of one size. Raises RuntimeError when one cannot be decoded."""
    return torch.stack(
        [_view(x, jpeg) for x, jpeg in zip(_decoded([j.data for j in jpegs], device), jpegs, strict=True)]
    )


def _decoded(files: Sequence[bytes], device: torch.device) -> list[Any]:
    """Each (3, h, w) uint8, in one call for all: a device decodes many at a time."""
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a later torchvision leaves it to torchcodec
        return list(decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device))


def _view(image: torch.Tensor, jpeg: Jpeg) -> torch.Tensor:
    """The part that is seen, in whole pixels, at its size."""
    left, top, right, bottom = (round(side) for side in jpeg.seen.box)
    part = image[:, top : max(bottom, top + 1), left : max(right, left + 1)].float()[None]
    size, way = (jpeg.preprocess.height, jpeg.preprocess.width), FILTERS[jpeg.preprocess.interpolation]
    smooth = {} if way == "nearest" else {"antialias": True, "align_corners": False}
    x = torch.nn.functional.interpolate(part, size, mode=way, **smooth)[0].round().clamp(0, 255)  # as uint8 would be
    return x.flip(-1) if jpeg.seen.mirrored else x
