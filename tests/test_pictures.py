"""From bytes to pixels: the stated rules for colours, orientation and geometry, and what is refused."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from peaks import needs_status, peak_bytes
from PIL import Image

from rehead import colours
from rehead.colours import to_rgb
from rehead.errors import BundleError, PhotoError
from rehead.pixels import Preprocess, fit_array, fit_image, is_image, opened, prepare, upright_size

PLAIN = Preprocess(height=32, width=32, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 0.5), crop_pct=1.0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (40, 40), 77), (77, 77, 77)),
        (Image.new("1", (40, 40), 1), (255, 255, 255)),
        (Image.new("RGBA", (40, 40), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("RGBA", (40, 40), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("LA", (40, 40), (50, 255)), (50, 50, 50)),
        (Image.fromarray(np.full((40, 40), 0x7F00, np.uint16)), (127, 127, 127)),
        (Image.new("RGB", (40, 40), (1, 2, 3)).convert("P", palette=Image.Palette.ADAPTIVE), (1, 2, 3)),
    ],
)
def test_every_mode_becomes_rgb_by_its_rule(image: Image.Image, colour: tuple[int, int, int]) -> None:
    assert prepare(encoded(image), PLAIN)[16, 16].tolist() == list(colour)


def test_cmyk_becomes_rgb() -> None:
    pixels = prepare(encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"), PLAIN)
    assert pixels[16, 16, 0] > 200
    assert pixels[16, 16, 1:].max() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = picture(48, 32)
    turned = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright if turned is None else upright.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(prepare(encoded(stored, exif=exif), PLAIN), fit_image(upright, PLAIN))


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_upright_size_is_told_of_a_picture_that_is_not_decoded(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with opened(encoded(picture(48, 32), kind, exif=exif)) as image:
        told = upright_size(image)
        assert told == colours.upright(image).size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_formats_are_told_by_content_and_read(kind: str) -> None:
    data = encoded(picture(64, 48), kind)
    assert is_image(data[:64])
    assert prepare(data, PLAIN).shape == (32, 32, 3)


def test_text_and_nothing_are_no_images() -> None:
    assert not is_image(b"")
    assert not is_image(b"path,label\na.jpg,cat\n")


def test_crop_is_the_middle_that_resizing_and_cropping_would_give() -> None:
    image = picture(300, 200)
    preprocess = Preprocess(height=64, width=64, mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.8)
    whole = image.resize((120, 80), Image.Resampling.BICUBIC)
    wanted = np.asarray(whole.crop((28, 8, 92, 72))).astype(int)
    assert np.abs(fit_image(image, preprocess).astype(int) - wanted).max() <= 3


def test_pad_shows_the_whole_picture_on_the_mean_colour() -> None:
    preprocess = Preprocess(height=32, width=32, mean=(0.5, 0.25, 0.0), std=(0.5,) * 3, fit="pad")
    pixels = fit_image(Image.new("RGB", (64, 32), (9, 9, 9)), preprocess)
    assert pixels[0, 0].tolist() == [128, 64, 0]
    assert pixels[16, 0].tolist() == [9, 9, 9]


def test_a_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    image = picture(4000, 3000)
    small = prepare(encoded(image, "JPEG", quality=95), PLAIN).astype(int)
    assert np.abs(small - fit_image(image, PLAIN).astype(int)).mean() < 2


def test_arrays_are_pictures_when_they_say_what_they_are() -> None:
    array = np.asarray(picture(40, 40))
    assert np.array_equal(fit_array(array, PLAIN), fit_image(Image.fromarray(array), PLAIN))
    assert np.array_equal(fit_array(array / 255.0, PLAIN), fit_array(array, PLAIN))
    for bad in (np.zeros((3, 4, 5)), np.zeros(7), np.zeros((4, 4), np.int64), np.full((4, 4, 3), 2.0)):
        with pytest.raises(PhotoError):
            fit_array(bad, PLAIN)


@pytest.mark.parametrize("cut", [0, 3, 100, 400])
def test_truncated_files_are_a_reason_in_one_line(cut: int) -> None:
    data = encoded(picture(64, 64), "JPEG")
    with pytest.raises(PhotoError) as error:
        prepare(data[:cut], PLAIN)
    assert "\n" not in error.value.what


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it finds in damaged files
def test_flipped_bytes_never_raise_anything_but_a_photo_error() -> None:
    random = np.random.default_rng(0)
    for kind, _ in itertools.product(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"], range(40)):
        data = bytearray(encoded(picture(32, 32), kind))
        for place in random.integers(0, len(data), 6):
            data[place] = int(random.integers(256))
        try:
            assert prepare(bytes(data), PLAIN).shape == (32, 32, 3)
        except PhotoError:
            continue


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_an_image_that_was_closed_before_it_was_decoded_says_so(kind: str, tmp_path: Path) -> None:
    picture(32, 32).save(tmp_path / "a", kind)
    with Image.open(tmp_path / "a") as image:
        pass
    with pytest.raises(PhotoError) as error:
        fit_image(image, PLAIN)
    assert error.value.what == "was closed before it was decoded: image.load() decodes it"


def test_preprocess_survives_a_dictionary_and_refuses_what_it_does_not_know() -> None:
    assert Preprocess.from_dict(PLAIN.to_dict()) == PLAIN
    with pytest.raises(BundleError):
        Preprocess.from_dict({**PLAIN.to_dict(), "surprise": 1})
    with pytest.raises(BundleError):
        Preprocess.from_dict({**PLAIN.to_dict(), "std": (0, 1, 1)})


@needs_status
@pytest.mark.parametrize("look", ["prepare", "facts"])
@pytest.mark.parametrize("case", ["transparent", "turned", "grey and transparent", "floating", "whole numbers"])
def test_a_large_picture_is_held_twice_at_most(case: str, look: str, tmp_path: Path) -> None:
    size, turned = (4000, 3000), Image.Exif()
    turned[0x0112] = 6
    numbers = np.full((3000, 4000), 70_000)
    kind = "TIFF" if case in ("floating", "whole numbers") else "PNG"
    data = {
        "transparent": lambda: encoded(Image.new("RGBA", size, (9, 8, 7, 99)), compress_level=1),
        "turned": lambda: encoded(Image.new("RGBA", size, (9, 8, 7, 99)), compress_level=1, exif=turned),
        "grey and transparent": lambda: encoded(Image.new("LA", size, (9, 99)), compress_level=1),
        "floating": lambda: encoded(Image.fromarray(numbers.astype(np.float32)), kind),
        "whole numbers": lambda: encoded(Image.fromarray(numbers.astype(np.int32)), kind),
    }[case]()
    # Four bytes as Pillow keeps it and four as RGB, and what a few rows take.
    assert peak_bytes(data, kind, tmp_path, look) < 9 * size[0] * size[1]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "I", "F"])
def test_what_is_converted_row_by_row_is_as_it_is_in_one_piece(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0).integers(0, 65536, (50, 60))
    image = {
        "RGBA": lambda: Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 4), np.uint8)),
        "LA": lambda: Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 4), np.uint8)).convert("LA"),
        "P": lambda: picture(60, 50).convert("P", palette=Image.Palette.ADAPTIVE),
        "I;16": lambda: Image.fromarray(numbers.astype(np.uint16)),
        "I": lambda: Image.fromarray((numbers * 3 - 9).astype(np.int32)),
        "F": lambda: Image.fromarray((numbers / 7).astype(np.float32)),
    }[mode]()
    if mode == "P":
        image.info["transparency"] = bytes(range(256))
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr(colours, "BAND_PIXELS", 7 * 60)  # the last of eight bands is one row
    assert image.mode == mode
    assert np.array_equal(np.asarray(to_rgb(image)), whole)
    monkeypatch.setattr(colours, "BAND_PIXELS", 1)  # less than a row
    assert np.array_equal(np.asarray(to_rgb(image)), whole)


def test_numbers_are_stretched_from_the_smallest_of_the_whole_picture_to_the_largest() -> None:
    numbers = np.zeros((1200, 1200), np.float32)  # several bands
    numbers[0, 0], numbers[1199, 1199], numbers[600, 600] = -1, 3, np.nan
    found = np.asarray(to_rgb(Image.fromarray(numbers)))[..., 0]
    assert (found[0, 0], found[1199, 1199], found[600, 600], found[5, 5]) == (0, 255, 63, 63)


@pytest.mark.parametrize("highest", [255, 1000, 4095, 65535, 70_000])
def test_floating_point_is_stretched_whatever_its_numbers(highest: int) -> None:
    numbers = np.linspace(0, highest, 1600).reshape(40, 40).astype(np.float32)
    wanted = (numbers.astype(float) * (255 / highest)).astype(np.uint8)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(numbers)))[..., 0], wanted)
    whole = np.round(numbers)
    wanted = (whole.astype(float) * (255 / highest)).astype(np.uint8)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(whole)))[..., 0], wanted)


@pytest.mark.parametrize(
    ("lowest", "highest", "greys"),
    [(0, 65535, (0, 255)), (0, 256, (0, 1)), (512, 4095, (2, 15)), (0, 255, (0, 255)), (-1, 4095, (0, 255)),
     (0, 65536, (0, 255))],
)  # fmt: skip
def test_32_bit_whole_numbers_are_those_of_16_bits_where_they_can_be(
    lowest: int, highest: int, greys: tuple[int, int]
) -> None:
    image = Image.fromarray(np.array([[lowest, highest]], np.int32))
    assert image.mode == "I"
    assert tuple(np.asarray(to_rgb(image))[0, :, 0].tolist()) == greys


def test_a_file_of_16_bits_that_pillow_opens_as_32_keeps_its_upper_8() -> None:
    samples = np.full((40, 40), 0x7F00, ">u2")
    image = Image.open(io.BytesIO(b"P5 40 40 65535\n" + samples.tobytes()))
    assert image.mode == "I"
    assert prepare(encoded(image, "PPM"), PLAIN)[16, 16].tolist() == [127, 127, 127]


def test_a_grey_that_is_declared_to_be_transparent_stays_and_the_image_is_not_changed() -> None:
    image = Image.new("L", (40, 40), 7)
    image.info["transparency"] = 7
    assert (fit_image(image, PLAIN) == 7).all()
    assert image.info == {"transparency": 7}


@pytest.mark.parametrize(("is_grey", "colour"), [(True, 9), (False, 255)])
def test_the_transparent_index_of_a_gif_is_laid_over_white_unless_its_palette_is_the_greys_in_order(
    is_grey: bool, colour: int
) -> None:
    image = Image.new("P", (40, 40), 9)
    image.putpalette([i for i in range(256) for _ in range(3)] if is_grey else [9, 9, 9] * 256)
    data = encoded(image, "GIF", transparency=9, optimize=False)
    with Image.open(io.BytesIO(data)) as opened:
        for pixels in (prepare(data, PLAIN), fit_image(opened, PLAIN), fit_image(opened.copy(), PLAIN)):
            assert (pixels == colour).all()
