"""Features of images that are no catalog's: without labels, in a list, from memory or from files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
from numpy.typing import NDArray
from PIL import Image

from rehead.data.catalog import Catalog
from rehead.data.memory import encoded
from rehead.data.reading import checked
from rehead.data.rows import Photo
from rehead.errors import PhotoError, RecipeError, SourceError, TooManyBad
from rehead.extraction import extract_missing, open_store
from rehead.fitting import chosen_prefix
from rehead.job import Job
from rehead.tuning.recipe import Recipe

CHANNELS = (1, 3, 4)  # of a picture; an array of another third size is a stack of grey ones


def features_of(images: Sequence[Any], recipe: Recipe, *, cache: Path) -> tuple[list[bytes], NDArray[Any]]:
    """The digests and features (n, width) of images without labels, in their order, through the store.

    images: paths, encoded bytes, Pillow images or uint8 arrays. Raises SourceError for one that cannot be read, which names
    it: by its path, or by its place from 0 on; so for a file that changes meanwhile, and for a photo that is in no list.
    """
    _check_several(images)
    photos: list[Photo] = []
    by_digest: dict[bytes, Any] = {}  # files are read again, not held
    for i, image in enumerate(images):
        is_file = isinstance(image, str | os.PathLike)
        name = str(image) if is_file else f"image {i}"
        data = _encoded(image, name)
        photos.append(Photo(name, "", "train", blake3.blake3(data).digest()))
        by_digest[photos[-1].digest] = image if is_file else data
    digests = [photo.digest for photo in photos]

    def read(photo: Photo) -> bytes:
        return checked(encoded(by_digest[photo.digest]), photo, "when it was read first")

    catalog = Catalog("images", "dataset", tuple(photos), ("", " "), read)
    job = Job(catalog, cache)
    if recipe.fit == "auto":
        raise RecipeError(
            what="Here nothing decides which fit is best for these photos.",
            fix="Name one in place of auto: crop, pad or squash.",
        )
    prefix = chosen_prefix(job, recipe)
    with open_store(cache, prefix, recipe) as store:
        strict = replace(recipe, max_bad=0.0)
        try:
            extract_missing(job, list(range(len(photos))), prefix, strict, store)
        except TooManyBad as error:
            skip = error.skips[0]
            raise _unusable(f"{skip.path} {skip.reason}") from error
        return digests, store.read(digests)


def _check_several(images: Any) -> None:
    """Raises SourceError for a single photo, which would be taken apart: a name by its letters, a picture by its rows."""
    shape: tuple[int, ...] = getattr(images, "shape", ())
    is_array = len(shape) == 3 and (shape[-1] in CHANNELS or (hasattr(images, "detach") and shape[0] in CHANNELS))
    if is_array or isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        raise SourceError(
            what=f"Several photos are wanted, and this is one: {type(images).__name__}.",
            fix="Pass a list: predict([photo]).",
        )


def _encoded(image: Any, name: str) -> bytes:
    try:
        return encoded(image)
    except PhotoError as error:
        raise _unusable(f"{name}: {error.what}") from error
    except OSError as error:
        reason = (
            "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        )
        raise _unusable(f"{name} {reason}") from error


def _unusable(what: str) -> SourceError:
    return SourceError(
        what=f"{what.rstrip('.')}.",
        why="Every photo must be one that can be read here, as scikit-learn wants an answer for each.",
        fix="Leave it out, and its label; rehead.tune skips such photos and lists them.",
    )
