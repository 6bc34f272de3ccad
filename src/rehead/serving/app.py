"""`make_app`: the service as a function of its models. No module holds state, so any number may run in a process."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from rehead.serving import corrections, neighbours, routes
from rehead.serving.ending import Ending
from rehead.serving.feedback import opened_feedback
from rehead.serving.files import documentation, page
from rehead.serving.gate import Gate
from rehead.serving.headers import Secured
from rehead.serving.journal import CLOSED_REQUEST, Answered, Journal, Journaled
from rehead.serving.limits import Limits
from rehead.serving.lingering import Lingering
from rehead.serving.models import Loaded
from rehead.serving.problems import Problem, request_id_of
from rehead.serving.service import Service, service_of


def make_app(
    models: Mapping[str, Loaded],
    *,
    limits: Limits | None = None,
    token: str | None = None,
    cors: Collection[str] = (),
    hosts: Collection[str] | None = None,
    workers: int | None = None,
    feedback: Path | None = None,
    journal: Journal | None = None,
) -> FastAPI:
    """The service of these models, by name; the first is the one that is meant when none is named.

    token: what all but health asks for. cors: origins of other pages that may use it. hosts: names it answers to, None for
    any: see `gate.own_names`. workers: photos under way at once, by default one a core. feedback: where corrected photos are
    kept. journal: where it says what happens, by default lines of JSON on standard error.
    """
    service = service_of(models, limits or Limits(), workers=workers, feedback=feedback, journal=journal)
    app = FastAPI(
        title="rehead",
        version=importlib.metadata.version("rehead"),
        summary="Say what is seen in pictures, by models that rehead tuned.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=_layers(service, token, cors, hosts),
        exception_handlers=HANDLERS,
        generate_unique_id_function=lambda route: str(route.name),
    )
    app.state.service = service
    app.state.feedback = {}
    if feedback is not None:
        app.state.feedback = opened_feedback(feedback, list(models.values()), pixels=service.limits.pixels)
    app.state.tiles = neighbours.Tiles()
    # What /docs says of a token: `Gate` is what asks for it.
    known = [Security(HTTPBearer(auto_error=False))] if token is not None else []
    for router in (routes.router, corrections.router, neighbours.router):
        app.include_router(router, dependencies=known)
    app.include_router(routes.health)
    for router in (documentation(), page()):
        app.include_router(router)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.service.running():
        yield


def _layers(
    service: Service, token: str | None, cors: Collection[str], hosts: Collection[str] | None
) -> list[Middleware]:
    """From the outside in. Other origins come before the gate: a browser asks for permission without a token."""
    layers = [
        Middleware(Journaled, journal=service.journal, observe=service.metrics.request),
        Middleware(Ending, is_closing=lambda: service.is_closing),
        Middleware(Lingering, linger_s=service.limits.linger_s),
        Middleware(Secured),
    ]
    if cors:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(cors),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
                expose_headers=["Retry-After", "X-Request-ID"],
            )
        )
    answered = Middleware(Answered, journal=service.journal)
    return [*layers, answered, Middleware(Gate, token=token, hosts=hosts, origins=cors)]


async def _refused(request: Request, problem: Any) -> Response:
    return problem.response(request_id_of(request.scope))  # type: ignore[no-any-return]


async def _of_http(request: Request, error: Any) -> Response:
    """What the framework itself refuses: an address that is not there, another method."""
    what = {404: "There is nothing at this address.", 405: "This address does not take that method."}
    problem = Problem(error.status_code, what.get(error.status_code, str(error.detail)), fix="See /docs.")
    problem.headers.update(error.headers or {})
    return problem.response(request_id_of(request.scope))


async def _invalid(request: Request, error: Any) -> Response:
    wrong = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    problem = Problem(422, "A parameter is not as it must be.", why=f"{'; '.join(wrong)[:500]}.", fix="See /docs.")
    return problem.response(request_id_of(request.scope))


async def _gone(_request: Request, _error: Any) -> Response:
    return Response(status_code=CLOSED_REQUEST)  # nobody reads it


HANDLERS: dict[Any, Any] = {
    Problem: _refused,
    HTTPException: _of_http,
    RequestValidationError: _invalid,
    ClientDisconnect: _gone,
}
