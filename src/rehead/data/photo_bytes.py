"""The bytes of one photo: all of an image, of anything else no more than its beginning, and never without bound.

A class folder may hold a film of gigabytes, and an address may send for ever. Whether a picture can be opened is left to
`pixels.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rehead.errors import PhotoError
from rehead.pixels import MAX_PIXELS, is_image

HEAD_BYTES = 64  # by which a format is told
PIECE_BYTES = 8 << 20  # of a store that is first asked for: most photos are smaller, and each piece is a request
MOST_BYTES = 8 * MAX_PIXELS  # of the largest picture that is opened, four samples of 16 bits a pixel, not compressed
TOO_LARGE = f"has over {MOST_BYTES / 1e9:.1f} GB, more than any photo that can be opened"


def photo_in(path: str | os.PathLike[Any]) -> bytes:
    """The bytes of a file. Raises OSError, and PhotoError for an image of more than MOST_BYTES."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(HEAD_BYTES)
        if not is_image(head):
            return head
        check_size(os.fstat(file.fileno()).st_size)
        file.seek(0)
        return file.readall()


def photo_from(read: Callable[[int], bytes], size_bytes: int) -> bytes:
    """The same of what is read from its begin, so many bytes at a time."""
    beginning = bytes(read(min(size_bytes, PIECE_BYTES)))
    if len(beginning) == size_bytes or not is_image(beginning[:HEAD_BYTES]):
        return beginning
    check_size(size_bytes)
    return beginning + bytes(read(size_bytes - len(beginning)))


def check_size(size_bytes: int) -> None:
    """Raises PhotoError for more than a photo can have."""
    if size_bytes > MOST_BYTES:
        raise PhotoError(what=TOO_LARGE)
