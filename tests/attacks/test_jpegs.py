"""JPEG files that keep a decoder busy: refused by what they hold, before anything of them is decoded."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from rehead.auditing.facts import facts_of
from rehead.errors import PhotoError
from rehead.jpeg_markers import MAX_SCANS, MAX_SEGMENTS
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


def with_comments(data: bytes, *comments: bytes) -> bytes:
    segments = [b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment for comment in comments]
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("most", "over", "of_what"),
    [
        (of_scans(MAX_SCANS), of_scans(MAX_SCANS + 1), "scans"),
        (with_comments(jpeg(), *[b""] * (MAX_SEGMENTS // 2)), with_comments(jpeg(), *[b""] * MAX_SEGMENTS), "segments"),
    ],
    ids=["scans", "segments"],
)
def test_a_jpeg_of_too_many_parts_is_refused_before_it_is_decoded(
    way: str, most: bytes, over: bytes, of_what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](most)
    monkeypatch.setattr(JpegImageFile, "load", lambda _: pytest.fail("it was decoded"))
    monkeypatch.setattr(JpegImageFile, "_open", lambda _: pytest.fail("its segments were read one by one"))
    with pytest.raises(PhotoError, match=rf"over \d+ {of_what}: refused as a decompression bomb"):
        WAYS[way](over)


@pytest.mark.parametrize("progressive", [False, True])
def test_what_only_looks_like_scans_is_none(progressive: bool) -> None:
    scans = (SCAN + b"\0\2") * 2 * MAX_SCANS
    for data in (
        with_comments(jpeg(progressive=progressive), scans),  # as of a small picture in EXIF
        jpeg(progressive=progressive) + scans,  # a film, or other pictures of one file, behind the first
        jpeg(progressive=progressive, restart_marker_blocks=1),
    ):
        assert prepare(data, PLAIN).shape == (8, 8, 3)


@pytest.mark.parametrize("cut", [2, 3, 4, 5, 20, -3, -1])
def test_a_cut_off_jpeg_is_a_reason_in_one_line(cut: int) -> None:
    for data in (of_scans(40)[:cut], with_comments(jpeg(), b"x" * 90)[:cut]):
        with pytest.raises(PhotoError):
            facts_of(data)
