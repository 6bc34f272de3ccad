"""A batch of labelled photos as tensors, for those who write their own loop."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict

import blake3
import numpy as np
import torch
from numpy.typing import NDArray

from rehead.data.rows import Row
from rehead.data.sources import open_source
from rehead.data.split import seed_for, side_of, split_keys
from rehead.errors import PhotoError, SourceError
from rehead.features.cache import default_cache_folder
from rehead.pixels import Preprocess, prepare
from rehead.tuning.recipe import Recipe

IMAGENET = Preprocess(height=224, width=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def load_batch(
    photos: object, n: int, *, preprocess: Preprocess = IMAGENET, side: str | None = None, seed: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` photos at random, as many of each class as can be: images (n, 3, h, w) float32, labels (n, n_classes) one-hot.

    photos: what `rehead.tune` takes. preprocess: of the backbone they are for, `backbone.preprocess`; by default 224 x 224
    with the mean and deviation of ImageNet, which are those of torchvision's networks. side: only photos of "train",
    "valid" or "test"; where the photos bring no split, that of `rehead.tune`. seed: the same photos again; by default
    others each time. Classes stand in alphabetical order. Photos that cannot be read are passed over.
    Raises SourceError when there are too few photos.
    """
    source = open_source(photos, cache=default_cache_folder(os.environ))
    ours = not any(row.side for row in source.rows)
    rows = [row for row in source.rows if side is None or ours or row.side == side]
    classes = sorted({row.label for row in rows})
    random = np.random.default_rng(seed_for(secrets.randbits(62) if seed is None else seed, "batch"))
    taken = _balanced(rows, random)
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for row in taken:
        if len(images) == n:
            break
        try:
            data = source.read(row)
            if side is None or not ours or _side(data, row) == side:
                images.append(prepare(data, preprocess))
                labels.append(classes.index(row.label))
        except (PhotoError, OSError):
            continue
    if len(images) < n:
        raise SourceError(what=f"{source.name} has {len(images)} photos that can be read, and {n} are wanted.")
    order = random.permutation(n)
    pixels = torch.from_numpy(np.stack(images)[order]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    one_hot = torch.eye(len(classes))[torch.from_numpy(np.array(labels)[order])]
    return ((pixels - mean) / std).contiguous(), one_hot


def _side(data: bytes, row: Row) -> str:
    """The side that `rehead.tune` puts a photo on by itself."""
    (key,) = split_keys([blake3.blake3(data).digest()], [row.group])
    recipe = Recipe()
    return side_of(key, seed=recipe.seed, valid_fraction=recipe.valid_fraction)


def _balanced(rows: list[Row], random: np.random.Generator) -> list[Row]:
    """All rows in random order, one of each class in turn; of the classes too, which comes first is random."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for i in random.permutation(len(rows)):
        by_label[rows[i].label].append(rows[i])
    labels = sorted(by_label)
    random.shuffle(labels)
    ranked = [(rank, turn, row) for turn, label in enumerate(labels) for rank, row in enumerate(by_label[label])]
    return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])]
