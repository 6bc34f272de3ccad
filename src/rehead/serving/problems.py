"""What the service says when it refuses: a status, and what happened, why and what to do, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse


class Problem(Exception):
    """A request that is refused. status: of HTTP. what, why, fix: as in rehead's other errors."""

    def __init__(
        self, status: int, what: str, *, why: str = "", fix: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.why, self.fix = status, what, why, fix
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> JSONResponse:
        return JSONResponse(self.body(request_id), self.status, self.headers)

    def body(self, request_id: str) -> dict[str, Any]:
        return {"error": {"what": self.what, "why": self.why, "fix": self.fix}, "request_id": request_id}


def request_id_of(scope: Any) -> str:
    """The identity that `Journal` gave a request."""
    return str(scope.get("state", {}).get("request_id", ""))
