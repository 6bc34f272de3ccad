"""How much work a JPEG makes, by the order of its markers alone: nothing is decoded.

libjpeg goes over the whole picture again for each scan, and Pillow looks at each segment; a scan takes a hundred bytes, a
segment four. A file of some megabytes could so keep a thread busy for an hour, though its pixels are no more than is allowed.
"""

from __future__ import annotations

import re

from rehead.errors import PhotoError

MAX_SCANS = 100  # libtiff's bound, too; a progressive picture of colours has ten or so
MAX_SEGMENTS = 10_000  # tables of scans, and EXIF, a profile or other pictures in pieces of up to 64 kB
_BEGIN, _AGAIN, _END, _SCAN = b"\xff\xd8\xff", 0xD8, 0xD9, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # but those without a length, as within a scan


def check_jpeg(data: bytes) -> None:
    """Raises PhotoError for too many scans or segments of a JPEG, of several pictures the first."""
    if not data.startswith(_BEGIN):
        return
    at, n_scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or (kind := data[found.end() - 1]) in (_AGAIN, _END):
            return
        n_scans += kind == _SCAN
        if n_scans > MAX_SCANS:
            raise PhotoError(what=f"has over {MAX_SCANS} scans: refused as a decompression bomb")
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
    raise PhotoError(what=f"has over {MAX_SEGMENTS} segments: refused as a decompression bomb")
