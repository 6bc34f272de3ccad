"""One line of JSON for each request, on standard error: what was asked, how it ended, how long it took. Nothing of a picture's
content, no file's name and no token stands in it. The outermost layer: it also gives requests their identity and counts them.
Further in, where all layers that add to an answer have it before them, what nobody thought of becomes one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rehead.serving.problems import Problem, request_id_of

SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
CLOSED_REQUEST = 499  # what servers log for a client that went away; it is never sent
Observe = Callable[[str, int, float], None]


class Journal:
    """Lines of JSON. write: takes one line without its end; standard error by default."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or _to_stderr

    def say(self, event: str, **facts: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(json.dumps({"time": now, "event": event, **facts}))


class JournalHandler(logging.Handler):
    """What the HTTP server itself has to say, as such lines: what is said in the thread that made this."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal, self._thread = journal, threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread == self._thread

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else None
        self._journal.say("server", level=record.levelname.lower(), message=record.getMessage().strip(), trace=trace)


class Journaled:
    """The layer. observe: told route, status and seconds of each request."""

    def __init__(self, app: ASGIApp, journal: Journal, observe: Observe) -> None:
        self._app, self._journal, self._observe = app, journal, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        request_id = _identity(scope)
        facts = scope.setdefault("state", {})
        facts["request_id"], facts["logged"] = request_id, {}
        header = (b"x-request-id", request_id.encode())

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            took = time.perf_counter() - begun
            self._close(scope, request_id, status or CLOSED_REQUEST, took)

    def _close(self, scope: Scope, request_id: str, status: int, took: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._observe(route, status, took)
        self._journal.say(
            "request",
            request_id=request_id,
            method=scope["method"],
            route=route,
            status=status,
            ms=round(1000 * took, 2),
            **scope["state"]["logged"],
        )


class Answered:
    """The layer that answers where what lies in it fails, and says in the journal how."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app, self._journal = app, journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if scope["type"] != "http":
                raise
            request_id = request_id_of(scope)
            self._journal.say("failed", request_id=request_id, trace="".join(traceback.format_exception(error)))
            if not has_begun:
                await _failure(request_id)(scope, receive, send)


def _identity(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return str(value.decode())
    return os.urandom(16).hex()


def _failure(request_id: str) -> ASGIApp:
    problem = Problem(
        500,
        "The service failed in a way it should not.",
        why="Its log says more, under this request's identity.",
        fix="Please report it.",
    )
    return problem.response(request_id)


def _to_stderr(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more: no reason to stop serving
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
