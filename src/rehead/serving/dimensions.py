"""How large a picture may be for the service, and of which kind: by its header, before anything of it is decoded. A few hundred
kilobytes can hold so many pixels that others wait for seconds, and that memory is filled."""

from __future__ import annotations

from PIL import Image

from rehead.errors import PhotoError
from rehead.pixels import opened

USUAL = 8  # bytes of memory that a pixel takes until the picture is small: four as it is decoded, four as RGB
# Where a decoder takes more: without transparency, and with it. Measured with Pillow 13 and pillow_heif 1.8.
BYTES = {"WEBP": (16, 20), "AVIF": (10, 16), "JPEG2000": (20, 28), "HEIF": (8, 12)}


def check_pixels(data: bytes, most: int) -> None:
    """Raises PhotoError for more pixels than that, for what is no picture, and for one whose decoder is written in Python:
    while that runs, nothing else of the service does. Where a format's decoder takes more memory than others, a picture may
    have as many pixels fewer."""
    with opened(data) as image:
        (width, height), kind = image.size, image.format or ""
        if any(part.codec_name in Image.DECODERS for part in getattr(image, "tile", ())):
            raise PhotoError(what=f"is of a kind of {kind} that takes too long to decode: send it as PNG")
        taken = BYTES[kind][image.has_transparency_data] if kind in BYTES else USUAL
    if width * height > most * USUAL // taken:
        of_kind = f" of a {kind} picture" if taken > USUAL else ""
        raise PhotoError(
            what=f"has {width} x {height} pixels, and the service takes {most * USUAL / taken / 1e6:.0f} megapixels at most"
            f"{of_kind}"
        )
