"""Photos seen otherwise: the same seed the same view, on any thread, and the photo itself untouched."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import noise

from rehead.errors import PhotoError
from rehead.features.views import FLIP, PLAIN, augmented, stored_view, view_names
from rehead.pixels import Preprocess, prepare

FIT = Preprocess(height=32, width=48, mean=(0.5,) * 3, std=(0.5,) * 3)


def photo(seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise(seed, (200, 90, 40), size=80).resize((120, 70)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("augment", "n", "wanted"),
    [
        ("none", 4, ("plain",)),
        ("flip", 4, ("plain", "flip")),
        ("crop", 3, ("plain", "crop-1", "crop-2")),
        ("crop", 1, ("plain",)),
    ],
)
def test_views_are_named_for_what_they_are(augment: str, n: int, wanted: tuple[str, ...]) -> None:
    assert view_names(augment, n) == wanted


def test_the_mirror_image_is_the_photo_mirrored() -> None:
    plain = stored_view(PLAIN, photo(), FIT, seed=1)
    assert np.array_equal(plain, prepare(photo(), FIT))
    assert np.array_equal(stored_view(FLIP, photo(), FIT, seed=1), plain[:, ::-1])


@pytest.mark.parametrize("augment", ["none", "flip", "crop", "trivial", "rand"])
def test_a_seed_decides_a_view_on_any_thread(augment: str) -> None:
    wanted = [augmented(augment, photo(), FIT, seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda seed: augmented(augment, photo(), FIT, seed), range(24)))
    assert all(np.array_equal(a, b) for a, b in zip(wanted, got, strict=True))
    assert all((view.shape, view.dtype) == ((32, 48, 3), np.uint8) for view in wanted)
    assert len({view.tobytes() for view in wanted}) == {"none": 1, "flip": 2}.get(augment, 24)


def test_stored_crops_differ_from_each_other_and_stay_the_same() -> None:
    first, second = (stored_view(name, photo(), FIT, seed=5) for name in ("crop-1", "crop-2"))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, stored_view("crop-1", photo(), FIT, seed=5))


def test_a_photo_that_cannot_be_read_has_no_view() -> None:
    with pytest.raises(PhotoError):
        augmented("crop", photo()[:100], FIT, 0)


@pytest.mark.parametrize("augment", ["trivial", "rand"])
def test_a_policy_throws_its_own_dice_and_leaves_those_of_torch_alone(
    augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def thrown(*_: object, **__: object) -> None:
        raise AssertionError("a training beside it would lose its dice")

    for name in ("rand", "randint", "manual_seed", "set_rng_state"):
        monkeypatch.setattr(torch, name, thrown)
    square = Preprocess(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    views = [augmented(augment, photo(), square, seed) for seed in range(20)]
    assert len({view.tobytes() for view in views}) > 10
