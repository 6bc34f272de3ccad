"""A batch of labelled photos as tensors, for those who write their own loop."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from functools import partial

import blake3
import numpy as np
import torch
from numpy.typing import NDArray

from rehead.ambient import own_settings
from rehead.data.folders import is_picture
from rehead.data.reading import identified
from rehead.data.rows import Row, Skip, Source, bounded
from rehead.data.sources import open_source
from rehead.data.split import seed_for, side_of, split_keys
from rehead.data.targets import task_of
from rehead.errors import PhotoError, RecipeError, SourceError, counted
from rehead.features.bad import skip_of
from rehead.features.cache import cache_folder
from rehead.pixels import Preprocess, prepare
from rehead.tuning.recipe import Recipe

SIDES = ("train", "valid", "test")
IMAGENET = Preprocess(height=224, width=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@own_settings()
def load_batch(
    photos: object, n: int, *, preprocess: Preprocess = IMAGENET, side: str | None = None, seed: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` photos at random, as many of each class as can be: images (n, 3, h, w) float32, labels (n, n_classes) one-hot.

    photos: what `rehead.tune` takes. preprocess: of the backbone they are for, `backbone.preprocess`; by default 224 x 224
    with the mean and deviation of ImageNet, which are those of torchvision's networks. side: only photos of "train",
    "valid" or "test"; where the photos bring no split, the side that its bytes, or its group, draw for each photo alone. A
    job of `rehead.tune` moves some: near copies (but for tie_copies=False), groups that share a photo, and one of a class that
    would lack a side. Its sides are in the run's `catalog.csv`, which in the photos' folder is a table that is taken here.
    seed: the same photos again; by default others each time. Classes stand in alphabetical order, those of all sides, so
    that a column means the same on each; a folder without photos is none. Photos that cannot be read are passed over.
    Raises SourceError when there are too few photos, or their labels are no classes.
    """
    _check_arguments(n, preprocess, side)
    source = open_source(photos, cache=cache_folder(None))
    if (task := task_of((row.label for row in source.rows), source.layout)) != "classification":
        raise SourceError(
            what=f"{source.name} has {'several labels' if task == 'multilabel' else 'a number'} a photo.",
            why="A batch is of photos of one class each, with one-hot labels.",
            fix="Tune on them with `rehead tune`, or read them in a loop of your own.",
        )
    ours = not any(row.side for row in source.rows)
    given = [] if ours else sorted({row.side or "train" for row in source.rows})  # as in a job
    if (ours and side == "test") or (given and side is not None and side not in given):
        raise SourceError(
            what=f"{source.name} has no side {side!r}.",
            why=f"It has: {', '.join(given or ['train', 'valid'])}{' (drawn)' if ours else ''}.",
            fix="Name one of them, or leave side out for all photos.",
        )
    classes = sorted(_labels(source))  # of all sides: a class has one number in batches of each
    rows = [row for row in source.rows if side is None or ours or (row.side or "train") == side]
    random = np.random.default_rng(seed_for(secrets.randbits(62) if seed is None else seed, "batch"))
    unread: list[Skip] = []
    photos_of = [
        _usable(source, own, side if ours else None, preprocess, unread) for own in _by_class(rows, classes, random)
    ]
    taken = list(itertools.islice(_in_turn(photos_of, random), n))
    if len(taken) < n:
        place = f" on its side {side!r}" if side else ""
        wanted = "photos that can be read" if unread else "more photos"  # where none was drawn to this side
        raise SourceError(
            what=f"{source.name} has {counted(len(taken), 'photo')} that can be read{place}, and {n} are wanted.",
            why=f"{len(unread)} cannot be read; {bounded(unread[0].path)} {unread[0].reason}." if unread else "",
            fix=f"Ask for {len(taken)} or fewer, or bring more photos." if taken else f"Bring {wanted}.",
        )
    order = random.permutation(n)
    images, labels = [pixels for pixels, _ in taken], [label for _, label in taken]
    pixels = torch.from_numpy(np.stack(images)[order]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    one_hot = torch.eye(len(classes))[torch.from_numpy(np.array(labels)[order])]
    return ((pixels - mean) / std).contiguous(), one_hot


def _check_arguments(n: int, preprocess: object, side: str | None) -> None:
    if not isinstance(n, int) or n < 1:
        raise RecipeError(
            what=f"A batch of {n} photos cannot be made.", fix="Ask for 1 or more: load_batch(photos, 10)"
        )
    if not isinstance(preprocess, Preprocess):
        raise RecipeError(
            what=f"preprocess= is {type(preprocess).__name__}, which says nothing of pixels.",
            fix="Pass that of the backbone: preprocess=backbone.preprocess",
        )
    if side not in (None, *SIDES):
        raise RecipeError(
            what=f"There is no side {side!r}.", fix=f"One of: {', '.join(SIDES)}; or None for all photos."
        )


def _side(data: bytes, row: Row) -> str:
    """The side that a photo draws by itself."""
    (key,) = split_keys([blake3.blake3(data).digest()], [row.group])
    recipe = Recipe()
    return side_of(key, seed=recipe.seed, valid_fraction=recipe.valid_fraction)


def _labels(source: Source) -> set[str]:
    """The labels of photos. Where neither a list nor a name says that a file is one, its content is read."""
    labels, unsure = set[str](), list[Row]()
    for row in source.rows:
        if source.is_named(row) or is_picture(row.path):
            labels.add(row.label)
        else:
            unsure.append(row)
    for row in unsure:
        if row.label not in labels and _is_photo(source, row):
            labels.add(row.label)
    return labels


def _is_photo(source: Source, row: Row) -> bool:
    return not isinstance(identified(partial(source.read, row), row.path, named=False), str)


def _by_class(rows: list[Row], classes: list[str], random: np.random.Generator) -> list[list[Row]]:
    """The rows of each class, in random order; others are left out."""
    found: dict[str, list[Row]] = {label: [] for label in classes}
    for i in random.permutation(len(rows)):
        if rows[i].label in found:
            found[rows[i].label].append(rows[i])
    return list(found.values())


def _usable(
    source: Source, rows: list[Row], side: str | None, preprocess: Preprocess, unread: list[Skip]
) -> Iterator[NDArray[np.uint8]]:
    """The pixels of those rows that can be read, and that are on this side where one is wanted. unread: gets the others, each
    with its reason."""
    for row in rows:
        try:
            data = source.read(row)
            if side is None or _side(data, row) == side:
                yield prepare(data, preprocess)
        except (PhotoError, OSError) as error:
            unread.append(skip_of(row, error))


def _in_turn(
    photos_of: list[Iterator[NDArray[np.uint8]]], random: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """One photo of each class in turn, with the class's place, until none is left; which class comes first is random."""
    left = random.permutation(len(photos_of)).tolist()
    while left:
        for label in tuple(left):
            pixels = next(photos_of[label], None)
            if pixels is None:
                left.remove(label)
            else:
                yield pixels, label
