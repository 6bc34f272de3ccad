"""JPEG files left as they are, for a device that decodes them: what of each is to be seen, read from its header alone.

What no device decodes goes by Pillow: other formats, photos turned by EXIF, other colours than RGB and grey, files that do
not end where they should, large photos, which Pillow decodes at a fraction of their size, and views that are more than a part
of the photo. No torch here: processes that read files for a
device (`decoders.py`) need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags

from rehead.errors import PhotoError
from rehead.features.views import Seen, augmented, or_why, seen
from rehead.pixels import Preprocess, is_reduced, opened, prepare

MOST_PIXELS = (
    2 << 20
)  # larger ones Pillow decodes at a fraction of their size; a device has no such way, nor room for many
JPEG = ("JPEG", "MPO")  # one of several frames is a JPEG file too
END, TAIL = (
    b"\xff\xd9",
    64,
)  # of a JPEG file, and how many bytes may stand behind it: a file that was cut off has no end


class Undecodable(Exception):
    """A device cannot decode a file: it is damaged, or of a kind that the device does not know. Pillow is asked instead."""


@dataclass(frozen=True)
class Jpeg:
    """An encoded file, and what of it is shown at which size."""

    data: bytes | NDArray[np.uint8]
    seen: Seen
    preprocess: Preprocess

    def by_pillow(self) -> NDArray[np.uint8]:
        """The same view decoded here, (h, w, 3). Raises PhotoError."""
        box, whole = self.seen.box, self.seen.size

        def part(size: tuple[int, int]) -> tuple[float, float, float, float]:
            x, y = size[0] / whole[0], size[1] / whole[1]  # a large file may be decoded smaller
            return box[0] * x, box[1] * y, box[2] * x, box[3] * y

        pixels = prepare(bytes(self.data), self.preprocess, part)
        return np.ascontiguousarray(pixels[:, ::-1]) if self.seen.mirrored else pixels


Found: TypeAlias = "NDArray[np.uint8] | Jpeg | PhotoError"


def jpeg_of(augment: str, data: bytes, preprocess: Preprocess, seed: int) -> Jpeg | None:
    """The view of this seed as `features.views.augmented` has it, not decoded yet; None where Pillow has to decode it."""
    try:
        with opened(data) as image:
            fits = image.format in JPEG and image.mode in ("RGB", "L") and image.width * image.height <= MOST_PIXELS
            fits = fits and not is_reduced(image.size, preprocess) and END in data[-TAIL:]
            upright = fits and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            view = seen(augment, image.size, preprocess, seed) if upright else None
    except PhotoError:  # Pillow says so again when it decodes
        return None
    return Jpeg(data, view, preprocess) if view else None


def augmented_files(augment: str, jobs: Sequence[tuple[bytes, Preprocess, int | None]]) -> list[Found]:
    """As `views.augmented_each`, with the files of those that a device can decode; photos as they are Pillow decodes, as
    they are judged."""
    return [
        or_why(prepare, data, preprocess)
        if seed is None
        else jpeg_of(augment, data, preprocess, seed) or or_why(augmented, augment, data, preprocess, seed)
        for data, preprocess, seed in jobs
    ]
