"""JPEG files that keep a decoder busy: refused by what they hold, before anything of them is decoded."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from rehead.auditing.facts import facts_of
from rehead.errors import PhotoError
from rehead.jpeg_markers import MAX_BETWEEN, MAX_SCANS, MAX_SEGMENTS, MAX_TAKEN_APART
from rehead.pixels import Preprocess, prepare
from rehead.serving.dimensions import check_pixels

PLAIN = Preprocess(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1))
END, SCAN = b"\xff\xd9", b"\xff\xda"
WAYS = {
    "prepare": lambda data: prepare(data, PLAIN),
    "facts": facts_of,
    "serve": lambda data: check_pixels(data, 10_000),
}


def jpeg(*, progressive: bool = True, **options: object) -> bytes:
    with io.BytesIO() as file:
        Image.new("L", (16, 16), 99).save(file, "JPEG", progressive=progressive, **options)
        return file.getvalue()


def of_scans(n: int) -> bytes:
    """A progressive picture whose last scan is repeated until there are so many."""
    data = jpeg()
    last = data[data.rindex(SCAN) : -len(END)]
    return data[: -len(END)] + last * (n - data.count(SCAN)) + END


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + (2 + len(content)).to_bytes(2, "big") + content


def beginning_with(*parts: bytes, progressive: bool = True) -> bytes:
    """A plain picture with these parts before its own."""
    data = jpeg(progressive=progressive)
    return data[:2] + b"".join(parts) + data[2:]


def with_restarts(n: int) -> bytes:
    """A progressive picture of so many more scans, each hidden from who gives a length to each marker."""
    data = jpeg(restart_marker_blocks=1)
    last = data[data.rindex(SCAN) : -len(END)]
    at = last.index(b"\xff\xd0")
    hidden = last[:at] + b"\xff\x02\xff\xff" + last[at:]
    return data[: -len(END)] + hidden * n + END


COMMENT, EXIF = segment(0xFE, b""), segment(0xE1, b"Exif\0\0")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("most", "over", "of_what"),
    [
        (of_scans(MAX_SCANS), of_scans(MAX_SCANS + 1), "scans"),
        (beginning_with(COMMENT * (MAX_SEGMENTS // 2)), beginning_with(COMMENT * MAX_SEGMENTS), "segments"),
        (jpeg(), beginning_with(b"\xff\xd9", COMMENT * MAX_SEGMENTS), "segments"),
        (jpeg(), beginning_with(b"\xff\xd8", COMMENT * MAX_SEGMENTS), "segments"),
        (jpeg(), beginning_with(b"\xff\xc8", COMMENT * MAX_SEGMENTS), "segments"),
        (jpeg(), beginning_with(b"\xff\xf0", COMMENT * 16_000), "segments"),
        (beginning_with(EXIF * 90), beginning_with(EXIF * (MAX_TAKEN_APART + 1)), "segments of EXIF"),
        (jpeg(), beginning_with(segment(0xC0, b"\x08\0\1\0\1\1") * (MAX_TAKEN_APART + 1)), "segments of EXIF, sizes"),
        (jpeg(), beginning_with(segment(0xDB, bytes(65)) * (MAX_TAKEN_APART + 1)), "segments of EXIF, sizes or tables"),
        (beginning_with(b"\xff" * 1000), beginning_with(b"\xff" * (MAX_BETWEEN + 9)), "bytes between its segments"),
        (jpeg(), b"\xff\xd8" + b"\xff" * (MAX_BETWEEN + 9), "bytes between its segments"),
    ],
    ids=["scans", "segments", "end", "begin", "c8", "f0", "exif", "sizes", "tables", "filled", "nothing"],
)
def test_a_jpeg_of_too_many_parts_is_refused_before_it_is_decoded(
    way: str, most: bytes, over: bytes, of_what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](most)
    monkeypatch.setattr(JpegImageFile, "load", lambda _: pytest.fail("it was decoded"))
    monkeypatch.setattr(JpegImageFile, "_open", lambda _: pytest.fail("its segments were read one by one"))
    with pytest.raises(PhotoError, match=rf"over \d+ {of_what}.*: refused as a decompression bomb"):
        WAYS[way](over)


def test_scans_are_counted_behind_what_stands_in_for_a_marker_of_restart() -> None:
    assert prepare(with_restarts(9), PLAIN).shape == (8, 8, 3)
    with pytest.raises(PhotoError, match="over 100 scans"):
        prepare(with_restarts(MAX_SCANS), PLAIN)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_only_looks_like_scans_is_none(progressive: bool) -> None:
    scans = (SCAN + b"\0\2") * 2 * MAX_SCANS
    for data in (
        beginning_with(segment(0xFE, scans), progressive=progressive),  # as of a small picture in EXIF
        jpeg(progressive=progressive) + scans,  # a film, or other pictures of one file, behind the first
        jpeg(progressive=progressive, restart_marker_blocks=1),
    ):
        assert prepare(data, PLAIN).shape == (8, 8, 3)


@pytest.mark.parametrize("cut", [2, 3, 4, 5, 20, -3, -1])
def test_a_cut_off_jpeg_is_a_reason_in_one_line(cut: int) -> None:
    for data in (of_scans(40)[:cut], beginning_with(segment(0xFE, b"x" * 90))[:cut]):
        with pytest.raises(PhotoError):
            facts_of(data)
