"""A photo seen otherwise: mirrored, cropped at random, and more. Which dice are thrown is decided by a seed alone.

The view "plain" is the photo as it is predicted. Views are stored (`extraction.py`) or made anew in each epoch
(`tuning/feed.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.errors import PhotoError
from rehead.pixels import Box, Preprocess, crop_box, prepare

PLAIN, FLIP = "plain", "flip"
SCALE = (0.35, 1.0)  # share of the photo that a random crop shows; as in timm's usual fine-tuning
RATIO = (3 / 4, 4 / 3)  # of its sides, as in Szegedy et al. 2014
TRIES = 10  # crops that may fall outside before the largest one is taken


def view_names(augment: str, n_views: int) -> tuple[str, ...]:
    """The views to store of each photo: itself, and others of this augmentation. A mirror image is only one."""
    if augment == "none" or n_views == 1:
        return (PLAIN,)
    if augment == "flip":
        return (PLAIN, FLIP)
    return (PLAIN, *(f"{augment}-{i}" for i in range(1, n_views)))


def stored_view(name: str, data: bytes, preprocess: Preprocess, seed: int) -> NDArray[np.uint8]:
    """A view by its name, (h, w, 3). seed: of the photo. Raises PhotoError."""
    if name == PLAIN:
        return prepare(data, preprocess)
    if name == FLIP:
        return np.ascontiguousarray(prepare(data, preprocess)[:, ::-1])
    augment, _, number = name.rpartition("-")
    return augmented(augment, data, preprocess, seed + int(number))


def stored_views(
    name: str, preprocess: Preprocess, jobs: Sequence[tuple[bytes, bytes]]
) -> list[NDArray[np.uint8] | PhotoError]:
    """The same of photos' bytes and their digests, or why a photo has none."""
    return [or_why(stored_view, name, data, preprocess, seed_of(digest)) for data, digest in jobs]


def seed_of(digest: bytes) -> int:
    """A photo's own seed, for views of it at random."""
    return int.from_bytes(digest[:6], "big")


def augmented_each(
    augment: str, jobs: Sequence[tuple[bytes, Preprocess, int | None]]
) -> list[NDArray[np.uint8] | PhotoError]:
    """`augmented` of photos' bytes by their seeds, as they are where there is none; or why a photo has none."""
    return [
        or_why(prepare, data, preprocess) if seed is None else or_why(augmented, augment, data, preprocess, seed)
        for data, preprocess, seed in jobs
    ]


def or_why(see: Callable[..., NDArray[np.uint8]], *arguments: Any) -> NDArray[np.uint8] | PhotoError:
    """What is seen, or why nothing is."""
    try:
        return see(*arguments)
    except PhotoError as error:
        return error


def augmented(augment: str, data: bytes, preprocess: Preprocess, seed: int) -> NDArray[np.uint8]:
    """The photo seen at random: "none", "flip", "crop" (and flip), "trivial" and "rand" (crop, flip and a policy).

    trivial: TrivialAugment (Mueller and Hutter 2021). rand: RandAugment (Cubuk et al. 2020), two steps of strength 9.
    """
    random = np.random.default_rng(seed)
    box = None if augment in ("none", "flip") else lambda size: _random_box(size, preprocess, random)
    pixels = prepare(data, preprocess, box)
    if augment in POLICIES:
        pixels = _by_policy(augment, pixels, int(random.integers(2**31)))
    mirrored = augment != "none" and random.random() < 0.5
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


@dataclass(frozen=True)
class Seen:
    """What of a photo a view shows: (left, top, right, bottom) in its pixels, its (width, height), and whether mirrored."""

    box: Box
    size: tuple[int, int]
    mirrored: bool


def seen(augment: str, size: tuple[int, int], preprocess: Preprocess, seed: int) -> Seen | None:
    """What `augmented` shows of a photo of this (width, height); None where that is no part of it: bars, or a policy."""
    if augment in POLICIES or (augment != "crop" and preprocess.fit == "pad"):
        return None
    random, (width, height) = np.random.default_rng(seed), size
    box: Box = (0, 0, width, height)
    if augment == "crop":
        box = _random_box(size, preprocess, random)
    elif preprocess.fit == "crop":
        box = crop_box(size, preprocess)
    return Seen(box, size, augment != "none" and bool(random.random() < 0.5))


def _random_box(size: tuple[int, int], preprocess: Preprocess, random: np.random.Generator) -> Box:
    width, height = size
    square = preprocess.width / preprocess.height
    for _ in range(TRIES):
        area = width * height * random.uniform(*SCALE)
        ratio = square * math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = random.uniform(0, width - w), random.uniform(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, height * square), min(height, width / square)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def _trivial() -> tuple[Any, int, int | None]:
    from torchvision.transforms.v2 import TrivialAugmentWide

    return TrivialAugmentWide(), 1, None


def _rand() -> tuple[Any, int, int | None]:
    from torchvision.transforms.v2 import RandAugment

    return RandAugment(2, 9), 2, 9


POLICIES: dict[str, Callable[[], tuple[Any, int, int | None]]] = {"trivial": _trivial, "rand": _rand}


def _by_policy(augment: str, pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The pixels after the steps of a policy of torchvision's, of its strength or of a random one.

    Dice are thrown here: torchvision's own are torch's, which a training beside this thread throws at the same time.
    """
    random, (policy, n_steps, strength) = np.random.default_rng(seed), POLICIES[augment]()
    image, table = Image.fromarray(pixels), policy._AUGMENTATION_SPACE
    for _ in range(n_steps):
        name = list(table)[int(random.integers(len(table)))]
        strengths, is_signed = table[name]
        steps = strengths(policy.num_magnitude_bins, *pixels.shape[:2])
        amount = 0.0
        if steps is not None:
            amount = float(steps[int(random.integers(len(steps))) if strength is None else strength])
            amount *= -1 if is_signed and random.random() < 0.5 else 1
        image = policy._apply_image_or_video_transform(
            image, name, amount, interpolation=policy.interpolation, fill=policy._fill
        )
    return np.asarray(image)
