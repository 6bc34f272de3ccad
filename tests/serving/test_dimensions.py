"""How many pixels the service takes: fewer where a decoder needs more memory for each."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from peaks import needs_status, peak_bytes
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngImageFile

from rehead.errors import PhotoError
from rehead.pixels import Preprocess, prepare
from rehead.serving.dimensions import BYTES, check_pixels

MOST = 200 * 100


def encoded(kind: str, mode: str, n_pixels: int, width: int = 100) -> bytes:
    with io.BytesIO() as file:
        Image.new(mode, (width, n_pixels // width), (9, 8, 7, 99)[: len(mode)]).save(file, kind)
        return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "share"),
    [("PNG", "RGB", 1), ("PNG", "RGBA", 1), ("JPEG", "RGB", 1), ("TIFF", "CMYK", 1), ("WEBP", "RGB", 1 / 2),
     ("WEBP", "RGBA", 2 / 5), ("AVIF", "RGB", 4 / 5), ("AVIF", "RGBA", 1 / 2), ("JPEG2000", "RGB", 2 / 5),
     ("JPEG2000", "RGBA", 2 / 7)],
)  # fmt: skip
def test_a_picture_whose_decoder_takes_more_memory_may_have_fewer_pixels(kind: str, mode: str, share: float) -> None:
    fits = int(MOST * share) // 100 * 100
    check_pixels(encoded(kind, mode, fits), MOST)
    with pytest.raises(
        PhotoError, match=rf"has 100 x \d+ pixels.*megapixels at most({f' of a {kind}' if share < 1 else '$'})"
    ):
        check_pixels(encoded(kind, mode, fits + 100), MOST)


@pytest.mark.parametrize("kind", ["ICO", "ICNS"])
def test_a_file_around_a_picture_of_another_size_is_refused_before_it_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = encoded("PNG", "RGB", 40_000, 200)
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 10, 10, 0, 0, 1, 32, len(inner), 22) + inner
    icons = b"icns" + struct.pack(">I", 16 + len(inner)) + b"icp4" + struct.pack(">I", 8 + len(inner)) + inner
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(PhotoError, match="is not an image"):
        check_pixels({"ICO": icon, "ICNS": icons}[kind], 1000)


def test_what_is_decoded_in_python_is_refused_before_it_is() -> None:
    run = io.BytesIO()
    Image.new("P", (10, 10)).save(run, "BMP")
    run_length = bytearray(run.getvalue())
    run_length[30] = 1  # BI_RLE8
    slow = {
        "QOI": b"qoif" + struct.pack(">2I", 10, 10) + b"\3\0" + b"\xfd\xe5" + bytes(7) + b"\1",
        "PPM": b"P3 10 10 255\n" + b"#\n" * 9 + b"7 " * 300,
        "BMP": bytes(run_length),
    }
    for kind, data in slow.items():
        with pytest.raises(PhotoError, match=f"is of a kind of {kind} that takes too long to decode: send it as PNG"):
            check_pixels(data, MOST)
    for kind in ("PPM", "BMP"):
        check_pixels(encoded(kind, "RGB", 1000), MOST)
    check_pixels(b"Pf 1 1 -1\n" + bytes(4), MOST)


def test_postscript_inside_an_iptc_file_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n"
    fields = [(3, 60, b"\1\0"), (3, 20, b"\0\x0a"), (3, 30, b"\0\x0a"), (3, 120, b"\5"), (8, 10, program)]
    data = b"".join(struct.pack(">3BH", 0x1C, *kind, len(value)) + value for *kind, value in fields)
    with pytest.raises(PhotoError, match="is not an image"):
        prepare(data, Preprocess(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1)))


@needs_status
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("kind", BYTES)
def test_decoders_take_no_more_memory_than_is_reckoned_with(kind: str, mode: str, tmp_path: Path) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    side = 4096
    taken = peak_bytes(encoded(kind, mode, side * side, side), kind, tmp_path)
    reckoned = BYTES[kind][mode == "RGBA"] * side * side
    assert 0.75 * reckoned < taken < reckoned + (16 << 20)  # what does not grow with the picture
