"""Who may come in: with a token only who knows it; from a browser only our own page, or an origin that was named; and under
our own name only, so that no foreign page that renames itself to this machine reads answers (DNS rebinding)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rehead.serving.problems import Problem, request_id_of

OPEN = ("/healthz", "/readyz")  # for whoever keeps the service running, and say nothing
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OURS = ("same-origin", "none")  # values of Sec-Fetch-Site: our page, and what a person typed


class Gate:
    """The layer that keeps others out. token: None for an open service. hosts: names it answers to, None for any.
    origins: of other pages that may use it."""

    def __init__(
        self, app: ASGIApp, token: str | None, hosts: Collection[str] | None, origins: Collection[str]
    ) -> None:
        self._app, self._hosts, self._origins = app, hosts, frozenset(origins)
        self._token = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._refusal(scope)):
            await problem.response(request_id_of(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            return Problem(421, "The service does not answer to that name.", fix="Ask for it by its own address.")
        if scope["path"] in OPEN:
            return None
        if scope["method"] not in SAFE_METHODS and self._is_foreign(headers, host):
            return Problem(
                403,
                "Another site's page may not use this service.",
                fix="Start it with --cors ORIGIN to allow one.",
            )
        if self._token is not None and not self._knows(headers.get("authorization", "")):
            return _unknown(scope["path"])
        return None

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return origin not in self._origins and _place_of(origin) != host.lower()
        return headers.get("sec-fetch-site", "none") not in OURS

    def _knows(self, authorization: str) -> bool:
        """As a bearer's token, or as the password of any user, which is what browsers ask for."""
        scheme, _, said = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                said = base64.b64decode(said, validate=True).decode().partition(":")[2]
            except ValueError:  # no base64, other letters than its own, or no UTF-8
                return False
        elif scheme.lower() != "bearer":
            return False
        assert self._token is not None
        return hmac.compare_digest(_digest(said.strip()), self._token)


def _place_of(origin: str) -> str | None:
    """The host and port in an Origin header, None where it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as http://[
        return None


def _digest(token: str) -> bytes:
    """Of one length for all, so that a comparison says nothing of the token's."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _unknown(path: str) -> Problem:
    # Basic alone for what people open: Chromium takes a line of two challenges for one that it does not know.
    asks = "Bearer" if path.startswith("/v1/") else 'Basic realm="rehead", charset="UTF-8"'
    return Problem(
        401,
        "The token is missing, or is not the service's.",
        fix="Send the header: Authorization: Bearer TOKEN",
        headers={"WWW-Authenticate": asks},
    )


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def own_names(host: str, origins: Collection[str] = ()) -> frozenset[str] | None:
    """The names a service that is bound to `host` answers to; None for any, where others can reach it anyway. origins: those
    that may use it are names that it may be called by too, when a proxy stands before it."""
    if not is_loopback(host):
        return None
    own = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host.lower()}
    return frozenset(own | {_name_of(urlsplit(origin).netloc) for origin in origins})
