"""What is known of a photo from its bytes alone, besides what it shows: size, JPEG quality, camera, how sharp, how dark.

Each photo is decoded once, at reduced size, and its facts are kept by digest in one file of the cache (`kept.py`). What is
odd about them is judged by others. Times of files and their order are the source's, not the bytes', and not here.
"""

from __future__ import annotations

import calendar
import functools
import io
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from rehead.colours import to_rgb, upright
from rehead.pixels import opened, upright_size

SIDE = 160  # the shorter side at which a picture is looked at; smaller ones are not made larger
LONGEST = 65_500  # pixels of the longer side of that: libjpeg writes no more
RING = 0.0125  # of the shorter side: how wide the border is, two pixels of SIDE, so that a thin frame is most of it
DEEPER = (0.12, 0.1325)  # of the shorter side: a ring inside, which a border that was added does not reach
HASH_SIDE = 16  # frequencies a side: 64 bits take two drawings of a digit for one, 256 do not
EXIF_IFD = 0x8769
DETAIL_QUALITY = 75  # libjpeg's usual one
Ring = tuple[float, ...]
FLAT = 3.0  # standard deviation of the luma


@dataclass(frozen=True)
class Facts:
    """width, height: of the upright picture, pixels. quality: of a JPEG, 1..100. camera: as EXIF has it. taken: seconds
    since 1970 by the camera's clock.

    Of the picture made small and grey: brightness, contrast: mean and standard deviation of the luma, 0..255. sharpness:
    variance of its Laplacian. detail: bits per pixel that it takes as a JPEG of DETAIL_QUALITY. hash: perceptual, 256 bits.

    In colour: border, inside: of the top, right, bottom and left edge of the outermost ring and of one further in, mean red,
    green and blue and their spread along the edge, 16 numbers, 0..255.
    """

    width: int
    height: int
    n_bytes: int
    format: str
    quality: int | None
    camera: str | None
    taken: float | None
    brightness: float
    contrast: float
    sharpness: float
    detail: float
    hash: int
    border: Ring
    inside: Ring

    @property
    def is_flat(self) -> bool:
        """Whether the picture is so plain that its hash is that of noise."""
        return self.contrast <= FLAT


@dataclass(frozen=True)
class Hashed:
    """hash, is_flat: of `Facts`, by which near copies are told."""

    hash: int
    is_flat: bool


def hash_of(data: bytes) -> Hashed:
    """What tells near copies, at two thirds of the work; the third that is left out is Python's own, for which threads wait for
    each other: so twice as many photos are looked at a second. Raises PhotoError where the picture cannot be decoded."""
    with opened(data) as image:
        _reduce(image)
        small = _small(_in_colour(image).convert("L"))
        contrast = round(float(np.asarray(small, np.float32).std()), 2)
        return Hashed(_hash(small), contrast <= FLAT)


def facts_of(data: bytes) -> Facts:
    """The facts of an encoded picture. Raises PhotoError where it cannot be decoded."""
    with opened(data) as image:
        width, height = upright_size(image)
        form, quality, exif = str(image.format), _quality(image), image.getexif()
        camera, taken = _camera(exif), _taken(exif)
        _reduce(image)
        picture = _in_colour(image)
        small = _small(picture.convert("L"))
        luma = np.asarray(small, np.float32)
        border, inside = _rings(picture)
        return Facts(
            width=width,
            height=height,
            n_bytes=len(data),
            format=form,
            quality=quality,
            camera=camera,
            taken=taken,
            brightness=round(float(luma.mean()), 2),
            contrast=round(float(luma.std()), 2),
            sharpness=round(_sharpness(luma), 3),
            detail=_detail(small),
            hash=_hash(small),
            border=border,
            inside=inside,
        )


def _reduce(image: Image.Image) -> None:
    """Has a JPEG decoded at the smallest scale that is no smaller than SIDE."""
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (SIDE, SIDE))


def _in_colour(image: Image.Image) -> Image.Image:
    """The upright picture as RGB. What it was made of is closed: a large one is not held twice any longer."""
    turned = upright(image)
    if turned is not image:
        image.close()
    rgb = to_rgb(turned)
    if rgb is not turned:
        turned.close()
    return rgb


def _small(picture: Image.Image) -> Image.Image:
    scale = min(1.0, SIDE / min(picture.size))
    size = (min(LONGEST, round(picture.width * scale)), min(LONGEST, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BOX)


def _camera(exif: Image.Exif) -> str | None:
    parts = [str(exif.get(tag) or "").strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
    return " ".join(filter(None, parts))[:80] or None


def _taken(exif: Image.Exif) -> float | None:
    """When the photo was taken; None where EXIF does not say, or not in its own form."""
    text = exif.get_ifd(EXIF_IFD).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return float(calendar.timegm(time.strptime(str(text).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")))
    except (ValueError, OverflowError):
        return None


def _quality(image: Image.Image) -> int | None:
    """The quality at which libjpeg writes the most similar table of quantisation; None for what is no JPEG."""
    tables = getattr(image, "quantization", None)
    if not tables or len(tables[min(tables)]) != 64:
        return None
    table = np.array(tables[min(tables)], np.float32)
    return 1 + int(np.abs(_tables() - table).sum(axis=1).argmin())


@functools.cache
def _tables() -> NDArray[np.float32]:
    """libjpeg's table for luma at each quality from 1 to 100, (100, 64), as it writes them itself."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            tables.append(getattr(image, "quantization", {})[0])
    return np.array(tables, np.float32)


def _hash(picture: Image.Image) -> int:
    """pHash: the 256 lowest frequencies of a 64 x 64 thumbnail, above their median or not (Zauner 2010).

    As the library imagehash makes it, without the 0.24 s that this takes to be imported, for two products of matrices.
    """
    side = 4 * HASH_SIDE
    luma = np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS), np.float64)
    low = _lowest(side) @ luma @ _lowest(side).T
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


@functools.cache
def _lowest(n: int) -> NDArray[np.float64]:
    """The lowest HASH_SIDE of n cosines, (HASH_SIDE, n): a row by a signal is the DCT-II at its frequency."""
    return np.cos(np.pi * np.outer(np.arange(HASH_SIDE), np.arange(n) + 0.5) / n)


def _sharpness(luma: NDArray[np.float32]) -> float:
    """The variance of the Laplacian (Pech-Pacheco et al. 2000)."""
    if min(luma.shape) < 3:
        return 0.0
    middle = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * middle
    return float(laplacian.var())


def _detail(picture: Image.Image) -> float:
    file = io.BytesIO()
    picture.save(
        file, "JPEG", quality=DETAIL_QUALITY, comment=b""
    )  # Pillow would write the file's own, which is no detail
    return round(8 * file.tell() / (picture.width * picture.height), 3)


def _rings(picture: Image.Image) -> tuple[Ring, Ring]:
    """The outermost ring of an RGB picture and one further in, as `Facts` has them."""
    edges = [edge.reshape(-1, 3) for bounds in ((0.0, RING), DEEPER) for edge in _edges(picture, *bounds)]
    pixels = np.concatenate(edges).astype(np.float32)  # all at once: small calls cost more than the sums
    sizes = np.array([len(edge) for edge in edges])[:, None]
    starts = np.cumsum(sizes) - sizes.ravel()
    mean = np.add.reduceat(pixels, starts) / sizes
    apart = np.repeat(mean, sizes.ravel(), axis=0)
    apart -= pixels  # in place: of a large picture these are megabytes
    variance = np.add.reduceat(np.square(apart, out=apart), starts) / sizes
    numbers = np.concatenate([mean, np.sqrt(variance).mean(axis=1, keepdims=True)], axis=1).round(2)
    return tuple(numbers[:4].ravel().tolist()), tuple(numbers[4:].ravel().tolist())


def _edges(picture: Image.Image, begin: float, end: float) -> list[NDArray[np.uint8]]:
    """Top, right, bottom and left of a ring, from `begin` to `end` of the shorter side away from the picture's edge."""
    w, h = picture.size
    a = min(int(begin * min(h, w)), (min(h, w) - 1) // 2)
    b = max(a + 1, int(end * min(h, w)))
    boxes = (a, a, w - a, b), (w - b, a, w - a, h - a), (a, h - b, w - a, h - a), (a, a, b, h - a)
    return [np.asarray(picture.crop(box)) for box in boxes]  # an array of all of it takes twice its memory
