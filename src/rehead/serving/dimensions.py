"""How large a picture may be for the service: by its header, before anything of it is decoded. A few hundred kilobytes can hold
so many pixels that others wait for seconds."""

from __future__ import annotations

from rehead.errors import PhotoError
from rehead.pixels import opened


def check_pixels(data: bytes, most: int) -> None:
    """Raises PhotoError for more pixels than that, and for what is no picture."""
    with opened(data) as image:
        width, height = image.size
    if width * height > most:
        raise PhotoError(
            what=f"has {width} x {height} pixels, and the service takes {most / 1e6:.0f} megapixels at most"
        )
