"""Files that browsers ask for: the page at `/`, and Swagger UI at `/docs`. They are few and small: all are read at the start,
and what was not there then is not served. Nothing comes from another host: Swagger UI is an installed package's."""

from __future__ import annotations

import importlib.resources
import mimetypes
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Response

HERE = Path(__file__).parent
OF_SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js")


def page() -> APIRouter:
    """The page for people: all files of `page/`, by their names; `index.html` at `/`."""
    return _router("", _read(HERE / "page"))


def documentation() -> APIRouter:
    """What can be asked, drawn from `/openapi.json`."""
    swagger = Path(str(importlib.resources.files("fastapi_offline") / "static"))
    return _router("/docs", _read(HERE / "docs") | {name: (swagger / name).read_bytes() for name in OF_SWAGGER})


def _read(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path.read_bytes() for path in paths if path.is_file() and not path.name.startswith(".")}


def _router(prefix: str, files: Mapping[str, bytes]) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    for name, content in files.items():
        path = prefix or "/" if name == "index.html" else f"{prefix}/{name}"
        router.api_route(path, methods=["GET", "HEAD"], name=path)(_giving(content, _kind_of(name)))
    return router


def _giving(content: bytes, kind: str):  # type: ignore[no-untyped-def]  # a handler as FastAPI takes it
    async def give() -> Response:
        return Response(content, media_type=kind)

    return give


def _kind_of(name: str) -> str:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return "text/javascript" if name.endswith((".js", ".mjs")) else kind
