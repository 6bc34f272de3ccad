"""Small pictures of the photos a model learned from, cut from its bundle's sheet. Which of them a picture is
like: likeness.py."""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
import threading
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from PIL import Image

from rehead.data.photo_bytes import photo_in
from rehead.errors import PhotoError
from rehead.pixels import opened
from rehead.serving.models import Loaded
from rehead.serving.problems import Problem
from rehead.serving.routes import refusals
from rehead.serving.service import Service

QUALITY = 85  # of a tile, which was a JPEG before
router = APIRouter(tags=["predict"])


class Tiles:
    """The small pictures of the models' bundles, cut once for each version."""

    def __init__(self) -> None:
        self._tiles: dict[str, tuple[str, list[bytes]]] = {}
        self._mutex = threading.Lock()

    def tile(self, loaded: Loaded, place: int) -> bytes:
        """A JPEG. Raises Problem 404 where the bundle has none there, or is gone."""
        with self._mutex:
            version, tiles = self._tiles.get(loaded.name, ("", []))
            if version != loaded.version:
                cut = _cut(loaded)
                tiles = cut or []
                if cut is not None:  # what cannot be read now may be there the next time
                    self._tiles[loaded.name] = loaded.version, tiles
        if place >= len(tiles):
            raise Problem(404, "The bundle shows no such photo.", fix="Ask for the places that a prediction names.")
        return tiles[place]


@router.get(
    "/v1/neighbours/{model}/{place}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}, **refusals(404)},
)
async def neighbour(request: Request, model: str, place: Annotated[int, Path(ge=0, le=1_000_000)]) -> Response:
    """A small picture of a photo that the model learned from."""
    service: Service = request.app.state.service
    loaded = service.shelf.named(model)
    version = request.query_params.get("v")
    if version not in (None, loaded.version):
        raise Problem(404, "The bundle of this photo was replaced.", fix="Ask about the picture again.")
    data = await asyncio.to_thread(request.app.state.tiles.tile, loaded, place)
    kept = "private, max-age=31536000, immutable" if version else "no-store"
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": kept})


def _cut(loaded: Loaded) -> list[bytes] | None:
    """All tiles of a bundle, each a JPEG; none where it shows none, or its sheet is not the one it was read with, is no picture
    that is opened, or is smaller than its tiles. None where that cannot be read."""
    about = loaded.model.bundle.facts["neighbours"]
    if about is None:
        return []
    side, columns, n = about["tile"], about["columns"], len(about["labels"])
    try:
        data = photo_in(loaded.folder / about["file"])
        if hashlib.sha256(data).hexdigest() != loaded.model.bundle.facts["files"][about["file"]]:
            return []
        with opened(data) as image:
            if image.width < side * min(n, columns) or image.height < side * math.ceil(n / columns):
                return []
            sheet = image.convert("RGB")
    except OSError:
        return None
    except PhotoError:
        return []
    boxes = [(side * (i % columns), side * (i // columns)) for i in range(n)]
    return [_jpeg(sheet.crop((x, y, x + side, y + side))) for x, y in boxes]


def _jpeg(tile: Image.Image) -> bytes:
    with io.BytesIO() as file:
        tile.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()
