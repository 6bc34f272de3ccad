"""Small pictures inside a page: re-encoded, upright, without EXIF, each embedded once, all together within a budget.

They are CSS backgrounds, so that one picture can stand at several places of a page that runs without scripts.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.data.rows import Photo
from rehead.errors import PhotoError
from rehead.parallel import n_cores, ordered_map
from rehead.pixels import Box, Preprocess, prepare
from rehead.reporting.heatmaps import overlaid

GREY = (0.5, 0.5, 0.5)  # no network looks at these pixels: mean and std are not used
SMALL, LARGE = 160, 288  # pixels of the longer side
QUALITY, LEAST_QUALITY = 72, 40
HEAVY_BYTES = {SMALL: 12_000, LARGE: 30_000}  # a picture of noise; it is encoded again, with less quality
BUDGET_BYTES = 5_200_000  # of data URIs: a page below 8 MB whatever the photos are
MOST_PICTURES = 800  # pictures: reading and decoding more would be waited for


class Seen(Protocol):
    """Photos that can be shown, such as a story's; see `story.Story` for what each is."""

    @property
    def photos(self) -> tuple[Photo, ...]: ...
    @property
    def read(self) -> Callable[[Photo], bytes]: ...
    @property
    def heat(self) -> Callable[[bytes, int], NDArray[np.float32] | None] | None: ...


@dataclass(frozen=True)
class Wanted:
    """A photo to show, by its place. is_large: with room for details. heat: the class whose activation map is wanted."""

    place: int
    is_large: bool = False
    heat: int | None = None


@dataclass
class Album:
    """pictures, heats: data URIs by the photo's place. gone: photos that cannot be shown, with the reason."""

    pictures: dict[int, str] = field(default_factory=dict)
    heats: dict[int, str] = field(default_factory=dict)
    gone: dict[int, str] = field(default_factory=dict)

    def has(self, place: int) -> bool:
        """Whether a photo was looked for, be it there or gone."""
        return place in self.pictures or place in self.gone


def album(story: Seen, wanted: Sequence[Wanted], tell: Callable[[], None] = lambda: None) -> Album:
    """The pictures of the photos that are wanted, the first ones first, until the budget is spent. tell: after each."""
    by_place: dict[int, Wanted] = {}
    for want in wanted:
        by_place.setdefault(want.place, want)
    unique = list(by_place.values())[:MOST_PICTURES]
    made, left = Album(), BUDGET_BYTES
    with contextlib.closing(_made(story, unique)) as encoded:
        for want, (uris, reason) in zip(unique, encoded, strict=False):
            tell()
            left -= sum(map(len, uris))
            if left < 0:
                break
            if not uris:
                made.gone[want.place] = reason
                continue
            made.pictures[want.place] = uris[0]
            if len(uris) > 1:
                made.heats[want.place] = uris[1]
    return made


def _made(story: Seen, wanted: Sequence[Wanted]) -> Generator[tuple[list[str], str], None, None]:
    def work(want: Wanted) -> tuple[list[str], str]:
        try:
            data = story.read(story.photos[want.place])
            side = LARGE if want.is_large else SMALL
            picture = _small(data, side)
        except PhotoError as error:
            return [], error.what
        except OSError as error:
            return [], error.strerror or "it cannot be read"
        heat = None if want.heat is None or story.heat is None else story.heat(data, want.heat)
        return [_uri(picture, side)] + ([] if heat is None else [_uri(overlaid(picture, heat), side)]), ""

    yield from ordered_map(work, wanted, workers=n_cores(), ahead=4 * n_cores())


def _small(data: bytes, side: int) -> Image.Image:
    """The whole upright picture, its longer side at most `side`. Raises PhotoError."""
    size = (1, 1)

    def whole(full: tuple[int, int]) -> Box:
        nonlocal size
        scale = min(1.0, side / max(full))
        size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
        return 0.0, 0.0, float(full[0]), float(full[1])

    square = Preprocess(height=side, width=side, mean=GREY, std=GREY, fit="squash", interpolation="bilinear")
    return Image.fromarray(prepare(data, square, whole)).resize(size, Image.Resampling.BICUBIC)


def _uri(picture: Image.Image, side: int) -> str:
    """WebP, which all browsers have read since 2020, at about two thirds of JPEG's size."""
    data = _encoded(picture, QUALITY)
    if len(data) > HEAVY_BYTES[side]:
        data = _encoded(picture, LEAST_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")


def _encoded(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()
