"""JPEG files decoded where training happens: the views that Pillow gives, within what decoders and filters differ."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from rehead.data.split import seed_for
from rehead.features.views import augmented
from rehead.pixels import Preprocess, prepare
from rehead.tuning.feed import PhotoFeed
from rehead.tuning.jpeg import Jpeg, decodes, jpeg_of, on_device

HERE = torch.device("cpu")
SQUARE = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="squash")
FAR = 3.0  # levels of 256 in the mean: a crop in whole pixels is up to half a pixel from Pillow's


def photo(mode: str = "RGB", kind: str = "JPEG", seed: int = 0, **settings: object) -> bytes:
    """A smooth picture of 180 x 120, without symmetry."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    image = Image.fromarray(small).resize((180, 120), Image.Resampling.BICUBIC).convert(mode)
    image.save(file := io.BytesIO(), kind, quality=95, **settings)
    return file.getvalue()


def turned() -> dict[str, object]:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return {"exif": exif}


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_view_is_the_one_that_pillow_gives(fit: str, augment: str, mode: str) -> None:
    preprocess = Preprocess(**{**vars(SQUARE), "fit": fit})
    for seed in range(8):
        jpeg = jpeg_of(augment, photo(mode, seed=seed), preprocess, seed)
        assert jpeg is not None
        ours = on_device([jpeg], HERE)[0].permute(1, 2, 0).numpy()
        theirs = augmented(augment, photo(mode, seed=seed), preprocess, seed).astype(np.float32)
        assert ours.shape == (64, 64, 3)
        assert np.abs(ours - theirs).mean() < FAR
        assert np.abs(ours - theirs[:, ::-1]).mean() > 3 * FAR, "a mirrored one would be seen"


@pytest.mark.parametrize(
    ("data", "augment", "fit"),
    [
        (photo(kind="PNG"), "crop", "squash"),
        (photo("CMYK"), "crop", "squash"),
        (photo(**turned()), "crop", "squash"),
        (photo()[:40], "crop", "squash"),
        (b"", "none", "squash"),
        (photo(), "trivial", "squash"),
        (photo(), "flip", "pad"),
    ],
)
def test_what_a_device_cannot_do_is_left_to_pillow(data: bytes, augment: str, fit: str) -> None:
    assert jpeg_of(augment, data, Preprocess(**{**vars(SQUARE), "fit": fit}), 0) is None


def test_this_device_decodes_and_one_that_is_not_there_does_not() -> None:
    assert decodes(HERE)
    if not torch.cuda.is_available():
        assert not decodes(torch.device("cuda"))


def fed(
    files: list[bytes], jpegs: Callable[[int, tuple[int, int]], Jpeg | None], device: torch.device | None
) -> PhotoFeed:
    def pixels(place: int, drawn: tuple[int, int] | None) -> np.ndarray:
        return prepare(files[place], SQUARE) if drawn is None else augmented("crop", files[place], SQUARE, drawn[1])

    labels = np.arange(len(files)) % 2
    return PhotoFeed(pixels, labels, SQUARE.mean, SQUARE.std, 0, device, jpegs)


def test_a_feed_mixes_both_ways_and_judges_by_pillow_alone() -> None:
    files = [photo(seed=i, kind="PNG" if i % 3 == 0 else "JPEG") for i in range(10)]
    by_pillow = fed(files, lambda *_: None, None)
    mixed = fed(files, lambda i, drawn: jpeg_of("crop", files[i], SQUARE, drawn[1]), HERE)
    order = np.random.default_rng(0).permutation(10)
    for (x, labels), (wanted, wanted_labels) in zip(
        mixed.batches(order, 1, 4, 0), by_pillow.batches(order, 1, 4, 0), strict=True
    ):
        assert torch.equal(labels, wanted_labels)
        for ours, theirs in zip(x, wanted, strict=True):
            assert (ours - theirs).abs().mean() < FAR / 127.5
    for ours, theirs in zip(mixed.plain(order, 4), by_pillow.plain(order, 4), strict=True):
        assert torch.equal(ours, theirs)


def test_a_file_that_the_device_cannot_decode_after_all_goes_by_pillow() -> None:
    files = [photo(seed=i) for i in range(4)]
    broken = lambda i, drawn: Jpeg(b"\xff\xd8 no more", jpeg_of("crop", files[i], SQUARE, drawn[1]).seen, SQUARE)  # noqa: E731
    order = np.arange(4)
    (x, _), *_ = fed(files, broken, HERE).batches(order, 0, 4, 0)
    (wanted, _), *_ = fed(files, lambda *_: None, None).batches(order, 0, 4, 0)
    assert torch.equal(x, wanted)


def test_photos_that_cross_as_bytes_are_normalised_to_the_bits_of_floats_that_cross() -> None:
    files = [photo(seed=i) for i in range(5)]

    def pixels(place: int, drawn: Any) -> np.ndarray:
        return augmented("crop", files[place], SQUARE, drawn[1])

    feed = PhotoFeed(
        pixels, np.arange(5), SQUARE.mean, SQUARE.std, 0, learner=HERE,
        many=lambda requests: [pixels(*request) for request in requests],
    )  # fmt: skip
    mean, std = (torch.tensor(values).reshape(3, 1, 1) * 255 for values in (SQUARE.mean, SQUARE.std))
    found = torch.cat([x for x, _ in feed.batches(np.arange(5), 0, 2, 0)])
    for place, one in enumerate(found):
        seed = seed_for(0, "augment", 0, place, place)
        as_floats = torch.from_numpy(augmented("crop", files[place], SQUARE, seed).copy()).permute(2, 0, 1).float()
        assert torch.equal(one, (as_floats - mean) / std)
