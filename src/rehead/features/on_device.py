"""JPEG files decoded by torchvision on the device that uses them, then cut and resized there, all of a batch at once.

The resize is Pillow's: the same filters over the same pixels, columns first, rounded to whole levels after each of two
passes. Decoders differ by a few levels of 256 between devices, so that is for photos that are learned from alone: those
that are judged go through `pixels.py` everywhere. What a device cannot decode is left to Pillow (`jpegs.py`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rehead.features.jpegs import Jpeg, Undecodable

ROOM = 32 << 20  # pixels that are resized at once, of which each takes some forty bytes


@functools.cache
def decodes(device: torch.device) -> bool:
    """Whether torchvision decodes JPEG on a device here: it may have been built without, or be one that no longer does."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        _decoded([_encoded(file.getvalue())], device)
    except (ImportError, RuntimeError):
        return False
    return True


def on_device(jpegs: Sequence[Jpeg], device: torch.device) -> torch.Tensor:
    """(n, h, w, 3) uint8 of photos that are shown at one size. Raises Undecodable."""
    sizes = [jpeg.seen.size for jpeg in jpegs]
    try:
        images = _decoded([_encoded(jpeg.data) for jpeg in jpegs], device)
        if any((image.shape[2], image.shape[1]) != size for image, size in zip(images, sizes, strict=True)):
            raise Undecodable("a photo is of another size than its header says")
        return torch.cat([_resized(images[part], jpegs[part]) for part in _parts(sizes)])
    except RuntimeError as error:  # also where there is no memory for it
        with contextlib.suppress(RuntimeError):  # not while another thread records
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # it may still write into what it was given for the others
        raise Undecodable(str(error)) from error


def _parts(sizes: Sequence[tuple[int, int]]) -> Iterator[slice]:
    """So many at a time that there is room for each in the shape of the largest."""
    begin = widest = highest = 0
    for i, (width, height) in enumerate(sizes):
        widest, highest = max(widest, width), max(highest, height)
        if i > begin and (i + 1 - begin) * widest * highest > ROOM:
            yield slice(begin, i)
            begin, widest, highest = i, width, height
    yield slice(begin, len(sizes))


def _encoded(data: bytes | NDArray[np.uint8]) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if isinstance(data, bytes) else torch.from_numpy(data)


def _decoded(files: list[torch.Tensor], device: torch.device) -> list[Any]:
    """Each (3, h, w) uint8, in one call for all: a device decodes many at a time."""
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a later torchvision leaves it to torchcodec
        return list(decode_jpeg(files, mode=ImageReadMode.RGB, device=device))


def _resized(images: Sequence[torch.Tensor], jpegs: Sequence[Jpeg]) -> torch.Tensor:
    """The views of decoded photos, (n, h, w, 3) uint8. Two products of matrices do it: of what each column, then each row of
    the view shows of the photo. Nothing is asked of the device for one photo alone: asking takes longer than doing."""
    preprocess, device = jpegs[0].preprocess, images[0].device
    sizes = np.array([jpeg.seen.size for jpeg in jpegs])
    boxes = np.array([jpeg.seen.box for jpeg in jpegs], np.float32)
    begins = np.concatenate([[0], 3 * np.cumsum(sizes.prod(1))[:-1]])
    facts = np.column_stack([sizes, begins, [jpeg.seen.mirrored for jpeg in jpegs]])
    width, height, begin, mirrored = torch.from_numpy(facts).to(device).unbind(1)
    left, top, right, bottom = torch.from_numpy(boxes).to(device).unbind(1)
    widest, highest = (-(-int(side) // 16) * 16 for side in sizes.max(0))  # such widths are multiplied fastest
    pixels = _side_by_side(images, begin, width, height, widest, highest)
    way = preprocess.interpolation
    columns = _weights(left, right, width, preprocess.width, widest, way, (boxes[:, 2] - boxes[:, 0]).max())
    rows = _weights(top, bottom, height, preprocess.height, highest, way, (boxes[:, 3] - boxes[:, 1]).max())
    columns = torch.where(mirrored[:, None, None] > 0, columns.flip(1), columns).to(pixels.dtype)
    x = _levels(pixels @ columns.mT[:, None])
    x = _levels(rows.to(pixels.dtype)[:, None] @ x)
    return x.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _side_by_side(
    images: Sequence[torch.Tensor],
    begin: torch.Tensor,
    width: torch.Tensor,
    height: torch.Tensor,
    widest: int,
    highest: int,
) -> torch.Tensor:
    """(n, 3, highest, widest) of images (3, h, w), which begin there when they lie in a row; anything beside and below them.
    On CUDA in float16, which holds every level, and weights to a tenth of one."""
    flat, device = torch.cat([image.reshape(-1) for image in images]), begin.device
    x = torch.arange(widest, device=device).minimum(width[:, None] - 1)[:, None, None, :]
    y = torch.arange(highest, device=device).minimum(height[:, None] - 1)[:, None, :, None]
    channel = torch.arange(3, device=device)[None, :, None, None]
    width, height, begin = (one[:, None, None, None] for one in (width, height, begin))
    place = (begin + (channel * height + y) * width).int() + x.int()
    return flat[place].to(torch.float16 if device.type == "cuda" else torch.float32)


def _levels(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.5).floor_().clamp_(0, 255)


def _weights(
    begin: torch.Tensor, end: torch.Tensor, size: torch.Tensor, n: int, n_in: int, interpolation: str, longest: float
) -> torch.Tensor:
    """(photos, n, n_in): what each pixel of a row counts in each of `n` that show it from `begin` to `end`, (photos,) each in
    pixels, at most `longest` of them; behind `size` there are none."""
    radius, shape = FILTERS[interpolation]
    step = ((end - begin) / n)[:, None, None]
    stretch = step.clamp(min=1)
    centre = begin[:, None, None] + (torch.arange(n, device=begin.device)[None, :, None] + 0.5) * step
    n_near = 2 * math.ceil(radius * max(1.0, float(longest) / n)) + 2
    first = (centre - radius * stretch).floor()
    place = first + torch.arange(n_near if radius else 1, device=begin.device)
    near = shape(((place + 0.5 - centre) / stretch).abs()) if radius else torch.ones_like(place)
    near = near * ((place >= 0) & (place < size[:, None, None]))
    near = near / near.sum(2, keepdim=True)
    weights = torch.zeros(len(begin), n, n_in, device=begin.device)
    return weights.scatter_add_(2, place.clamp(0, n_in - 1).long(), near)


def _triangle(x: torch.Tensor) -> torch.Tensor:
    return (1 - x).clamp(min=0)


def _cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys 1981, with a = -0.5."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


FILTERS: dict[
    str, tuple[float, Callable[[torch.Tensor], torch.Tensor]]
] = {  # Pillow's: how far each reaches, and its shape
    "nearest": (0, _triangle),
    "bilinear": (1, _triangle),
    "bicubic": (2, _cubic),
    "lanczos": (3, _lanczos),
}
