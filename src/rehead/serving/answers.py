"""A batch of encoded pictures -> a row of JSON each: what `rehead predict` says, and on demand where the model looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.errors import PhotoError
from rehead.pixels import prepare
from rehead.prediction import Prediction
from rehead.serving.dimensions import check_pixels
from rehead.serving.likeness import like
from rehead.serving.models import Loaded
from rehead.serving.warmth import explained

Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a request wants of each photo. top: classes listed. nearest: photos learned from that are like it."""

    top: int = 5
    explain: bool = False
    nearest: int = 0


def answered(loaded: Loaded, photos: Sequence[tuple[bytes, Wanted]], pixels: int) -> list[Row]:
    """A row for each picture, in order: `{"error": why}` for one that cannot be read. pixels: how many one may have."""
    seen = [_prepared(data, loaded, pixels) for data, _ in photos]
    good = [one for one in seen if not isinstance(one, PhotoError)]
    with_nearest = any(wanted.nearest for _, wanted in photos)
    said, near = _asked(loaded, good, with_nearest)
    return [
        {"error": one.what} if isinstance(one, PhotoError) else _row(loaded, data, wanted, one, next(said), next(near))
        for one, (data, wanted) in zip(seen, photos, strict=True)
    ]


def _asked(
    loaded: Loaded, good: list[NDArray[np.uint8]], with_nearest: bool
) -> tuple[Iterator[Prediction], Iterator[list[Row]]]:
    """What is said of prepared pixels, and which photos learned from they are like, in one run of the network."""
    if not good:
        return iter(()), iter(())
    if not with_nearest:
        return iter(loaded.model.predict_pixels(np.stack(good))), iter([[]] * len(good))
    said, places, similarity = loaded.model.predict_with_nearest(np.stack(good))
    return iter(said), iter(like(loaded, places, similarity))


def _prepared(data: bytes, loaded: Loaded, pixels: int) -> NDArray[np.uint8] | PhotoError:
    try:
        check_pixels(data, pixels)
        return prepare(data, loaded.preprocess)
    except PhotoError as error:
        return error


def _row(
    loaded: Loaded, data: bytes, wanted: Wanted, pixels: NDArray[np.uint8], said: Prediction, near: list[Row]
) -> Row:
    row = said.to_dict(loaded.model.task, wanted.top)
    if wanted.explain:
        row["heat"] = explained(loaded, data, pixels, said)
    if wanted.nearest:
        row["nearest"] = near[: wanted.nearest]
    return row
