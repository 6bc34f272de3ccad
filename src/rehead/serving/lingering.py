"""A request that is refused before its body was read: the answer is sent, and the rest is read and thrown away for a moment.

To close a connection on which data is still arriving makes the system discard the answer too, and the sender sees a
broken pipe instead of the reason.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_TIMEOUT = 408  # a body that does not come is not waited for a second time


class Lingering:
    """The layer that does so. linger_s: for how long at most."""

    def __init__(self, app: ASGIApp, linger_s: float) -> None:
        self._app, self._linger_s = app, linger_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = scope["type"] == "http" and _has_body(scope)
        is_slow = False

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal is_slow
            if not unread:
                await send(message)
            elif message["type"] == "http.response.start":
                is_slow = message["status"] == REQUEST_TIMEOUT
                await send({**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]})
            elif is_slow or message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await self._drain(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, received, sent)

    async def _drain(self, receive: Receive) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                while (await receive()).get("more_body", False):
                    pass


def _has_body(scope: Scope) -> bool:
    """Whether one is on its way: who waits to be asked for it (100-continue) has sent none."""
    headers = dict(scope["headers"])
    if headers.get(b"expect", b"").lower() == b"100-continue":
        return False
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
