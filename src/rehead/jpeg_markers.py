"""How much work a JPEG makes, by the order of its markers alone: nothing is decoded.

libjpeg goes over the whole picture again for each scan, and Pillow looks at each segment before the first one; a scan takes
a hundred bytes, a segment four. A file of some megabytes could so keep a thread busy for an hour, though its pixels are no
more than is allowed. The markers are gone through as both do: where they differ, one of them refuses the file.
"""

from __future__ import annotations

import re

from rehead.errors import PhotoError

MAX_SCANS = 100  # libtiff's bound, too; a progressive picture of colours has ten or so
MAX_SEGMENTS = 10_000  # tables of scans, and EXIF, a profile or other pictures in pieces of up to 64 kB
MAX_TAKEN_APART = 100  # EXIF, of which Pillow copies all again for each piece, and what it makes many small things of
MAX_BETWEEN = 1 << 20  # bytes between segments before the first scan, which Pillow reads one by one: as a rule none
_BEGIN, _END, _SCAN, _EXIF = b"\xff\xd8\xff", 0xD9, 0xDA, 0xE1
_MARKER = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe]")  # the end, and those that have a length for both
_TAKEN_APART = {*range(0xC0, 0xD0), 0xDB, 0xDE, 0xED} - {0xC4, 0xC8, 0xCC}  # and EXIF


def check_jpeg(data: bytes) -> None:
    """Raises PhotoError for too many scans or segments of a JPEG, of several pictures the first."""
    if not data.startswith(_BEGIN):
        return
    at, n_scans, n_taken_apart, n_between = 2, 0, 0, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if not n_scans:
            n_between += (found.start() if found else len(data)) - at
            if n_between > MAX_BETWEEN:
                raise _bomb(MAX_BETWEEN, "bytes between its segments")
        if found is None:
            return
        at = found.end()
        kind = data[at - 1]
        if kind == _END:
            if n_scans:
                return
            continue  # as Pillow does before a scan
        if kind in _TAKEN_APART or (kind == _EXIF and data.startswith(b"Exif\0\0", at + 2)):
            n_taken_apart += not n_scans
            if n_taken_apart > MAX_TAKEN_APART:
                raise _bomb(MAX_TAKEN_APART, "segments of EXIF, sizes or tables")
        elif kind == _SCAN:
            n_scans += 1
            if n_scans > MAX_SCANS:
                raise _bomb(MAX_SCANS, "scans")
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise _bomb(MAX_SEGMENTS, "segments")


def _bomb(most: int, of_what: str) -> PhotoError:
    return PhotoError(what=f"has over {most} {of_what}: refused as a decompression bomb")
