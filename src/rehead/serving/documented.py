"""`/docs`: Swagger UI from an installed package, so that nothing comes from another host."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

OWN = Path(__file__).parent / "docs"
OF_SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js")
router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> FileResponse:
    return FileResponse(OWN / "index.html")


@router.get("/docs/{name}")
async def asset(name: str) -> FileResponse:
    if name == "start.js":
        return FileResponse(OWN / name)
    if name not in OF_SWAGGER:
        raise HTTPException(404)
    return FileResponse(_swagger() / name, headers={"Cache-Control": "private, max-age=86400"})


def _swagger() -> Path:
    return Path(str(importlib.resources.files("fastapi_offline") / "static"))
