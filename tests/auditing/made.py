"""Catalogs and facts that are made up, so that a test reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from rehead.auditing.facts import Facts
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.data.targets import classes_of

PLAIN = Facts(
    width=400, height=300, n_bytes=20_000, format="JPEG", quality=80, camera=None, taken=None, brightness=120.0,
    contrast=50.0, sharpness=500.0, detail=1.5, hash=0, border=(0.0,) * 16, inside=(0.0,) * 16,
)  # fmt: skip


def catalog_of(labels: Sequence[str], sides: Sequence[str] | None = None, *, ours: bool = True) -> Catalog:
    """A catalog of photos 0.jpg, 1.jpg, ... with these labels, of the training side where no sides are given."""
    photos = tuple(
        Photo(f"{i}.jpg", label, sides[i] if sides else "train", i.to_bytes(32, "big"))
        for i, label in enumerate(labels)
    )
    return Catalog("made", "manifest", photos, classes_of(labels, "classification"), lambda photo: b"", ours=ours)


def facts_with(n: int, **columns: Sequence[object]) -> dict[int, Facts]:
    """The facts of n photos, alike but for these columns."""
    return {i: replace(PLAIN, **{name: values[i] for name, values in columns.items()}) for i in range(n)}  # type: ignore[arg-type]


def shapes(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with shapes of many sizes, as photos have."""
    rough = np.random.default_rng(seed).integers(0, 256, (18, 24, 3), np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
