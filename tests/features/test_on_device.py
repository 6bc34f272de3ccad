"""JPEG files decoded where training happens: the views that Pillow gives, within what decoders and filters differ."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from rehead.data.split import seed_for
from rehead.features.jpegs import augmented_files, jpeg_of
from rehead.features.on_device import decodes, on_device
from rehead.features.views import augmented, augmented_each
from rehead.pixels import Preprocess
from rehead.tuning.feed import Photo, PhotoFeed, Request

HERE = torch.device("cpu")
SQUARE = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="squash")
FAR = 0.1  # levels of 256 in the mean: here the decoder is Pillow's too, and a sum may be rounded the other way


def photo(
    mode: str = "RGB", kind: str = "JPEG", seed: int = 0, size: tuple[int, int] = (180, 120), **settings: object
) -> bytes:
    """A smooth picture without symmetry."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(file := io.BytesIO(), kind, quality=95, **settings)
    return file.getvalue()


def turned() -> dict[str, object]:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return {"exif": exif}


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("augment", ["none", "flip", "crop"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
def test_a_view_is_the_one_that_pillow_gives(fit: str, augment: str, mode: str, interpolation: str) -> None:
    preprocess = Preprocess(**{**vars(SQUARE), "fit": fit, "interpolation": interpolation})
    for seed in range(8):
        jpeg = jpeg_of(augment, photo(mode, seed=seed), preprocess, seed)
        assert jpeg is not None
        ours = on_device([jpeg], HERE)[0].numpy().astype(np.float32)
        theirs = augmented(augment, photo(mode, seed=seed), preprocess, seed).astype(np.float32)
        assert ours.shape == (64, 64, 3)
        assert np.abs(ours - theirs).mean() < FAR
        assert np.abs(ours - theirs[:, ::-1]).mean() > 3, "a mirrored one would be seen"
        np.testing.assert_array_equal(jpeg.by_pillow(), theirs)


@pytest.mark.parametrize(
    ("data", "augment", "fit"),
    [
        (photo(kind="PNG"), "crop", "squash"),
        (photo("CMYK"), "crop", "squash"),
        (photo(**turned()), "crop", "squash"),
        (photo()[:40], "crop", "squash"),
        (photo()[:-100], "crop", "squash"),
        (photo(size=(256, 300)), "crop", "squash"),
        (photo(size=(400, 100)), "crop", "squash"),
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


def test_photos_of_all_sizes_are_shown_at_one_in_their_order() -> None:
    files = [photo(seed=i, size=size) for i, size in enumerate([(180, 120), (30, 40), (64, 64), (380, 90), (240, 255)])]
    jpegs = [jpeg_of("crop", file, SQUARE, i) for i, file in enumerate(files)]
    wanted = np.stack([augmented("crop", file, SQUARE, i) for i, file in enumerate(files)])
    found = on_device([jpeg for jpeg in jpegs if jpeg], HERE).numpy()
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).mean(axis=(1, 2, 3)).max() < FAR


def test_no_more_are_resized_at_once_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    jpegs = [jpeg_of("none", photo(seed=i), SQUARE, 0) for i in range(5)]
    at_once = on_device([jpeg for jpeg in jpegs if jpeg], HERE)
    monkeypatch.setattr("rehead.features.on_device.ROOM", 2 * 180 * 120)
    assert torch.equal(on_device([jpeg for jpeg in jpegs if jpeg], HERE), at_once)


def fed(files: list[bytes], see: Callable[..., Sequence[Photo]]) -> PhotoFeed:
    def photos(requests: Sequence[Request]) -> Sequence[Photo]:
        return see("crop", [(files[place], SQUARE, drawn and drawn[1]) for place, drawn in requests])

    return PhotoFeed(photos, np.arange(len(files)) % 2, SQUARE.mean, SQUARE.std, 0, at_once=3)


def test_a_feed_mixes_both_ways_and_judges_by_pillow_alone() -> None:
    files = [photo(seed=i, kind="PNG" if i % 3 == 0 else "JPEG") for i in range(10)]
    by_pillow, mixed = fed(files, augmented_each), fed(files, augmented_files)
    order = np.random.default_rng(0).permutation(10)
    for (x, labels), (wanted, wanted_labels) in zip(
        mixed.batches(order, 1, 4, 0), by_pillow.batches(order, 1, 4, 0), strict=True
    ):
        assert torch.equal(labels, wanted_labels)
        for ours, theirs in zip(x, wanted, strict=True):
            assert (ours - theirs).abs().mean() < FAR / 127.5
    for ours, theirs in zip(mixed.plain(order, 4), by_pillow.plain(order, 4), strict=True):
        assert torch.equal(ours, theirs)


def test_a_file_that_the_device_cannot_decode_after_all_goes_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise RuntimeError("no such file")

    files = [photo(seed=i, kind="PNG" if i == 2 else "JPEG") for i in range(4)]
    monkeypatch.setattr("rehead.features.on_device._decoded", cannot)
    order = np.arange(4)
    (x, _), *_ = fed(files, augmented_files).batches(order, 0, 4, 0)
    (wanted, _), *_ = fed(files, augmented_each).batches(order, 0, 4, 0)
    assert torch.equal(x, wanted)


def test_photos_that_cross_as_bytes_are_normalised_to_the_bits_of_floats_that_cross() -> None:
    files = [photo(seed=i) for i in range(5)]
    mean, std = (torch.tensor(values).reshape(3, 1, 1) * 255 for values in (SQUARE.mean, SQUARE.std))
    found = torch.cat([x for x, _ in fed(files, augmented_each).batches(np.arange(5), 0, 2, 0)])
    for place, one in enumerate(found):
        seed = seed_for(0, "augment", 0, place, place)
        as_floats = torch.from_numpy(augmented("crop", files[place], SQUARE, seed).copy()).permute(2, 0, 1).float()
        assert torch.equal(one, (as_floats - mean) / std)
