"""An answer that is given while the service ends says that its connection closes with it: a client that keeps connections would
else send the next request into one that is closed."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOSE = (b"connection", b"close")


class Ending:
    """The layer that says so. is_closing: whether the service ends."""

    def __init__(self, app: ASGIApp, is_closing: Callable[[], bool]) -> None:
        self._app, self._is_closing = app, is_closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_closing():
                headers = list(message.get("headers", ()))
                message = {**message, "headers": headers if CLOSE in headers else [*headers, CLOSE]}
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)
