"""Bytes of a picture -> upright RGB of the size a network wants: uint8 (h, w, 3).

The one way in for tuning, verifying, predicting and serving. `Preprocess` holds its constants and travels in the bundle.
Which photos there are, and what they show, is left to others.
Colours are `colours.py`'s. Of several frames the first counts. EXIF orientation is applied.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from rehead.colours import to_rgb, upright
from rehead.errors import BundleError, PhotoError
from rehead.jpeg_markers import check_jpeg

Fit = Literal["crop", "pad", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

FITS: tuple[Fit, ...] = ("crop", "pad", "squash")
LARGEST = 1e6  # a mean or deviation of values in 0..1 is far below: float32 holds it
MAX_PIXELS = 178_956_970  # Pillow's own bound against decompression bombs: 512 MiB of RGB
_DAMAGED = (  # Pillow's decoders raise all of these for damaged files
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip
COMMON = ("JPEG", "PNG", "WEBP")  # some others have to read a file before they know that it is not theirs
NOT_PICTURES = {
    "EPS", "WMF", "PDF", "MPEG", "FITS", "GRIB", "HDF5", "BUFR",  # run another program, or only name the format
    "IPTC", "ICO", "ICNS", "BLP",  # hold a picture of another kind, EPS too, or of another size than they say
}  # fmt: skip
IS_HEIC = 'is HEIC: install with pip install "rehead[heic]"'
# Pillow's: a picture is shrunk by whole numbers first, to no less than so many times the wanted size.
REDUCING_GAP = 3.0
# A scaled JPEG decode keeps at least twice the wanted size, so the final resize still decides the pixels.
DRAFT_FACTOR = 2


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a picture becomes a network's input.

    height, width: pixels of the network's input.
    mean, std: of the three channels, for values in 0..1; applied inside the network's graph: (x / 255 - mean) / std.
    fit: "crop" takes the middle, `crop_pct` of the shorter side; "pad" shows the whole picture with bars of the mean
        colour; "squash" shows the whole picture stretched.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "crop"
    crop_pct: float = 0.875
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if not (0 < self.height <= 4096 and 0 < self.width <= 4096):
            raise BundleError(what=f"The input size {self.height} x {self.width} is out of range (1 to 4096).")
        for name, value, known in (("fit", self.fit, FITS), ("interpolation", self.interpolation, tuple(_RESAMPLING))):
            if value not in known:
                raise BundleError(what=f"There is no {name} {value!r}.", fix=f"It is one of {', '.join(known)}.")
        numbers = (self.crop_pct, *self.mean, *self.std)
        if any(isinstance(x, bool) or not isinstance(x, (int, float)) or not abs(x) < LARGEST for x in numbers):
            raise BundleError(what="crop_pct, mean and std must be numbers, and finite.")
        if not 0 < self.crop_pct <= 1 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BundleError(what="crop_pct must be in (0, 1], mean and std three numbers, std above 0.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, under the names of the fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The opposite of `to_dict`. Raises BundleError when a key is missing or unknown."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise BundleError(what=f"The preprocessing must have exactly the keys {', '.join(sorted(names))}.")
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


Box = tuple[float, float, float, float]


def prepare(
    data: bytes, preprocess: Preprocess, box: Callable[[tuple[int, int]], Box] | None = None
) -> NDArray[np.uint8]:
    """The picture in `data` (an encoded file) as (height, width, 3). Raises PhotoError with the reason in one line.

    box: for augmentation, the part (left, top, right, bottom) to show of a picture of this (width, height), instead of
    the fit.
    """
    with opened(data) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft(None, _draft_size(preprocess))
        turned = upright(image)
        if turned is not image:
            image.close()  # a large picture is not held twice
        return _fitted(turned, preprocess, box)


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The picture in an encoded file, not decoded yet. What fails when it is becomes a PhotoError, as in `prepare`."""
    with decoding():
        check_jpeg(data)
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
        except UnidentifiedImageError:
            raise PhotoError(what=why_unidentified(data)) from None
        with image:
            _check_size(image)
            yield image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of a picture that was opened, once it is turned as its EXIF orientation says. Of the usual formats only a
    PNG without EXIF before its pixels is decoded for it."""
    width, height = image.size
    # of a TIFF Pillow says the upright size
    is_turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (height, width) if is_turned else (width, height)


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """What Pillow's decoders raise becomes a PhotoError."""
    try:
        yield
    except PhotoError:
        raise
    except Image.DecompressionBombError:
        raise PhotoError(what=f"more than {MAX_PIXELS / 1e6:.0f} megapixels: refused as a decompression bomb") from None
    except AssertionError as e:  # Pillow's word for an image without a file
        raise PhotoError(what="was closed before it was decoded: image.load() decodes it") from e
    except _DAMAGED as e:
        raise PhotoError(what=f"cannot be decoded: {_one_line(e)}") from e


def fit_image(
    image: Image.Image, preprocess: Preprocess, box: Callable[[tuple[int, int]], Box] | None = None
) -> NDArray[np.uint8]:
    """A Pillow image as (height, width, 3). The image is not changed, but decoded where it was only opened.

    box, and what is raised: as in `prepare`.
    """
    with decoding():
        _check_size(image)
        return _fitted(upright(image), preprocess, box)


def _fitted(
    picture: Image.Image, preprocess: Preprocess, box: Callable[[tuple[int, int]], Box] | None
) -> NDArray[np.uint8]:
    """The same of one that is upright."""
    rgb = to_rgb(picture)
    size = (preprocess.width, preprocess.height)
    resample = _RESAMPLING[preprocess.interpolation]
    if box is not None:
        return np.asarray(rgb.resize(size, resample, box=box(rgb.size), reducing_gap=REDUCING_GAP))
    if preprocess.fit == "pad":
        return _padded(rgb, size, resample, preprocess.mean)
    middle = crop_box(rgb.size, preprocess) if preprocess.fit == "crop" else None
    return np.asarray(rgb.resize(size, resample, box=middle, reducing_gap=REDUCING_GAP))


def fit_array(array: NDArray[Any], preprocess: Preprocess) -> NDArray[np.uint8]:
    """An array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), uint8 or floats in 0..1, as (height, width, 3)."""
    return fit_image(as_image(array), preprocess)


def as_image(array: NDArray[Any]) -> Image.Image:
    """Such an array as a Pillow image. Raises PhotoError for what is none."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise PhotoError(
            what=f"an array of shape {array.shape} is no picture: (h, w), (h, w, 3) or (h, w, 4) is wanted"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise PhotoError(what="an array of floating point numbers must lie in 0..1: pass photos before normalising")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise PhotoError(what=f"an array of {array.dtype} is no picture: uint8 or floats in 0..1 are wanted")
    return Image.fromarray(np.ascontiguousarray(array))


def is_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes (64 suffice) is of a format Pillow reads."""
    return bool(head) and any(accept(head.ljust(64, b"\0")) for accept in _accepts())


def why_unidentified(head: bytes) -> str:
    """Why a file that begins with these bytes (64 suffice) is no picture."""
    if not head:
        return "is empty (0 bytes)"
    is_heic = head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
    if is_heic and "HEIF" not in _formats():
        return IS_HEIC
    return "is not an image that can be read"


def crop_box(size: tuple[int, int], preprocess: Preprocess) -> tuple[float, float, float, float]:
    """The middle of the picture with the input's proportions, in the picture's own coordinates."""
    width, height = size
    scale = min(width / preprocess.width, height / preprocess.height) * preprocess.crop_pct
    w, h = preprocess.width * scale, preprocess.height * scale
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def _padded(
    rgb: Image.Image, size: tuple[int, int], resample: Image.Resampling, mean: tuple[float, float, float]
) -> NDArray[np.uint8]:
    scale = min(size[0] / rgb.width, size[1] / rgb.height)
    w, h = max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))
    canvas = np.empty((size[1], size[0], 3), np.uint8)
    canvas[:] = [round(255 * m) for m in mean]
    top, left = (size[1] - h) // 2, (size[0] - w) // 2
    canvas[top : top + h, left : left + w] = np.asarray(rgb.resize((w, h), resample, reducing_gap=REDUCING_GAP))
    return canvas


def _draft_size(preprocess: Preprocess) -> tuple[int, int]:
    """The smallest whole picture from which the wanted size can still be cut; width and height may be swapped by EXIF."""
    part = preprocess.crop_pct if preprocess.fit == "crop" else 1.0
    side = math.ceil(max(preprocess.width, preprocess.height) / part) * DRAFT_FACTOR
    return (side, side)


def is_reduced(size: tuple[int, int], preprocess: Preprocess) -> bool:
    """Whether a JPEG of this (width, height) may be decoded at a fraction of it, or shrunk before it is resized."""
    shown = max(size[0] / preprocess.width, size[1] / preprocess.height)
    return min(size) >= 2 * _draft_size(preprocess)[0] or shown >= 2 * REDUCING_GAP


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(what=f"{image.width} x {image.height} pixels: refused as a decompression bomb")
    if 0 in image.size:
        raise PhotoError(what="has no pixels")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats Pillow reads here by itself, HEIC too when the plugin is installed; the common ones are tried first."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    known = [name for name in Image.ID if name not in NOT_PICTURES]
    return tuple(sorted(known, key=lambda name: name not in COMMON))


@functools.cache
def _accepts() -> list[Any]:
    accepts = [Image.OPEN[name][1] for name in _formats()]
    return [accept for accept in accepts if accept is not None]


_RESAMPLING: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
