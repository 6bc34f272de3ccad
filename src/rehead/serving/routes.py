"""What can be asked: predictions, the models, and whether the service lives, is ready, and how it does."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from rehead.serving import schemas
from rehead.serving.answers import Wanted
from rehead.serving.bodies import received
from rehead.serving.limits import MAX_NEAREST, MAX_TOP
from rehead.serving.problems import request_id_of
from rehead.serving.service import Service

REFUSALS: dict[int, str] = {
    400: "The body is empty or damaged.",
    401: "The token is missing or wrong.",
    403: "Another site's page asks.",
    404: "No such model.",
    408: "The body did not come in time.",
    413: "The body is too large, or has too many pictures.",
    415: "Another content type.",
    421: "Asked for by a name that is not the service's.",
    503: "Too much waits already, or the service is shutting down. Retry-After says when to come again.",
    504: "No answer within the time for a request.",
}
_GATE = (401, 403, 421)
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": _PICTURE["schema"], "minItems": 1}},
                    "required": ["images"],
                    "additionalProperties": False,
                }
            },
            "application/octet-stream": _PICTURE,
            "image/*": _PICTURE,
        },
    }
}

Responses = dict[int | str, dict[str, Any]]


def refusals(*statuses: int) -> Responses:
    """These, and those of the gate, as FastAPI documents them."""
    return {s: {"model": schemas.Refusal, "description": REFUSALS[s]} for s in (*statuses, *_GATE)}


_UNREADABLE: Responses = {
    422: {"model": schemas.Unreadable | schemas.Refusal, "description": "No picture can be read, or bad parameters."}
}
router, health = APIRouter(), APIRouter()  # the token is asked for by all but health


@router.post(
    "/v1/predict",
    response_model=schemas.Answer,
    responses={**refusals(400, 404, 408, 413, 415, 503, 504), **_UNREADABLE},
    openapi_extra=_BODY,
    tags=["predict"],
)
async def predict(
    request: Request,
    model: Annotated[str | None, Query(description="Its name; the first one when left out.")] = None,
    top: Annotated[int, Query(ge=1, le=MAX_TOP, description="Classes listed for each picture.")] = 5,
    explain: Annotated[bool, Query(description="Also where the model looks.")] = False,
    nearest: Annotated[int, Query(ge=0, le=MAX_NEAREST, description="Photos learned from that are most alike.")] = 0,
) -> Response:
    """Say what is seen in one picture, or in many. A bad picture among others has its reason in its place."""
    service: Service = request.app.state.service
    loaded = service.shelf.named(model)
    logged = request.scope["state"]["logged"]
    logged["model"] = loaded.name
    with service.room.taken() as share:
        sent, is_single = await received(request, share, service.limits)
        logged["photos"] = len(sent)
        rows = await service.rows(request, loaded, [picture.data for picture in sent], Wanted(top, explain, nearest))
    answer: dict[str, Any] = {
        "model": loaded.name,
        "version": loaded.version,
        "task": loaded.model.task,
        "request_id": request_id_of(request.scope),
        "results": [{"name": picture.name, **row} for picture, row in zip(sent, rows, strict=True)],
    }
    if all("error" in row for row in rows):
        return JSONResponse({**answer, "detail": rows[0]["error"]} if is_single else answer, 422)
    return JSONResponse(answer)


@router.get("/v1/model", response_model=schemas.Models, responses=refusals(), tags=["models"])
async def models(request: Request) -> Response:
    """The models, what they know, and the service's limits."""
    return JSONResponse(request.app.state.service.models())


@health.get("/healthz", response_model=schemas.State, responses={421: refusals()[421]}, tags=["health"])
async def healthz() -> Response:
    """Whether the service lives."""
    return JSONResponse({"status": "alive"})


@health.get(
    "/readyz",
    response_model=schemas.State,
    responses={421: refusals()[421], 503: {"model": schemas.State, "description": "Not yet, or no more."}},
    tags=["health"],
)
async def readyz(request: Request) -> Response:
    """Whether it takes requests: the models are loaded, and it is not shutting down."""
    service: Service = request.app.state.service
    if service.is_ready and not service.is_closing:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "shutting down"}, 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals()},
    tags=["health"],
)
async def metrics(request: Request) -> Response:
    """Counts and times, as Prometheus reads them."""
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


# Who only wants to know whether there is an answer; nothing of it is documented twice.
health.add_api_route("/healthz", healthz, methods=["HEAD"], include_in_schema=False)
health.add_api_route("/readyz", readyz, methods=["HEAD"], include_in_schema=False)
router.add_api_route("/v1/model", models, methods=["HEAD"], include_in_schema=False)
router.add_api_route("/metrics", metrics, methods=["HEAD"], include_in_schema=False)
