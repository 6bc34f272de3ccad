"""What can be asked of corrections: keep a picture with the label it should have had, and forget it again."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from rehead.serving import schemas
from rehead.serving.bodies import received
from rehead.serving.feedback import Feedback
from rehead.serving.problems import Problem, request_id_of
from rehead.serving.routes import refusals
from rehead.serving.service import Service

_STATUSES: dict[int | str, dict[str, Any]] = {
    409: {"model": schemas.Refusal, "description": "The folder holds something that it does not go with."},
    422: {"model": schemas.Refusal, "description": "No picture that can be read, or a label that cannot be kept."},
    500: {"model": schemas.Refusal, "description": "The folder cannot be written."},
    507: {"model": schemas.Refusal, "description": "There is no room for more."},
}
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": _PICTURE, "image/*": _PICTURE}}}
_Model = Annotated[str | None, Query(description="Its name; the first one when left out.")]
router = APIRouter(tags=["feedback"])


@router.post(
    "/v1/feedback",
    status_code=201,
    response_model=schemas.Kept,
    responses={**refusals(400, 404, 408, 413, 415, 503), **_STATUSES},
    openapi_extra=_BODY,
)
async def keep(
    request: Request,
    label: Annotated[
        str, Query(max_length=4_000, description="What it should have been named; several are joined by `;`.")
    ],
    model: _Model = None,
) -> Response:
    """Keep one picture with the label it should have had, for the next tuning. Corrected again, it is kept as that."""
    service: Service = request.app.state.service
    loaded, feedback = _of(request, model)
    with service.room.taken() as share:
        sent, is_single = await received(request, share, service.limits)
        if not is_single:
            raise Problem(415, "A correction is of one picture.", fix="Send it as image/* or application/octet-stream.")
        kept = await asyncio.to_thread(feedback.keep, loaded, sent[0].data, label)
    said = {"path": kept.path, "label": kept.label, "digest": kept.digest, "request_id": request_id_of(request.scope)}
    return JSONResponse(said, 201)


@router.delete(
    "/v1/feedback/{digest}", status_code=204, response_class=Response, responses={**refusals(404), **_STATUSES}
)
async def forget(
    request: Request,
    digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="As it was said when the picture was kept.")],
    model: _Model = None,
) -> Response:
    """Forget a correction."""
    _, feedback = _of(request, model)
    await asyncio.to_thread(feedback.forget, digest)
    return Response(status_code=204)


def _of(request: Request, model: str | None) -> tuple[Any, Feedback]:
    """The model that is meant, and where its corrections are kept. Raises Problem 404."""
    service: Service = request.app.state.service
    loaded = service.shelf.named(model)
    request.scope["state"]["logged"]["model"] = loaded.name
    feedback: dict[str, Feedback] = request.app.state.feedback
    if loaded.name not in feedback:
        raise Problem(404, "This service keeps no corrections.", fix="Start it with --feedback FOLDER.")
    return loaded, feedback[loaded.name]
