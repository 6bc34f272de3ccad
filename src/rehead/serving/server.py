"""The app on a socket, by uvicorn: bound before anything is loaded, and ended in order by SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import time
from typing import Any

import uvicorn
from fastapi import FastAPI

from rehead.errors import RunError
from rehead.serving.journal import JournalHandler
from rehead.serving.service import Service

SWEEP_S = 0.5  # between two looks at the connections
BACKLOG = 256  # connections that the system keeps until they are taken up


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address, port 0 for any that is free. Raises RunError where it cannot be had."""
    if not 0 <= port <= 65535:
        raise RunError(what=f"There is no port {port}.", fix="Pass --port from 1 to 65535, or 0 for any that is free.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise RunError(
            what=f"{host!r} is no address of this machine.",
            why=f"{getattr(error, 'strerror', None) or error}.",
            fix="Pass --host 127.0.0.1 for this machine alone, or 0.0.0.0 for all its addresses.",
        ) from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _unbound(host, port, error) from error
    return made


def address_of(made: socket.socket) -> str:
    """'http://127.0.0.1:8000'."""
    host, port = made.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, made: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT; what is under way is answered first. Call it from the main thread."""
    server = server_of(app)

    def end(*_: object) -> None:
        """Before uvicorn listens to signals, and after it has ended, when it raises them again: the exit code is 0."""
        server.should_exit = True

    ended = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(served(server, made))
    finally:
        for number, handler in ended.items():
            signal.signal(number, handler)


def server_of(app: FastAPI) -> uvicorn.Server:
    """The app's server, with its limits. Set `should_exit` to end it."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http="h11",  # httptools is quicker, by half a millisecond a request, but takes headers without end
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=service.limits.connections,
        timeout_graceful_shutdown=service.limits.shutdown_s,
    )
    server = uvicorn.Server(config)
    service.was_told = lambda: bool(server.should_exit)
    return server


async def served(server: uvicorn.Server, made: socket.socket) -> None:
    """Serves on that socket until the server is told to exit. What uvicorn says in this thread meanwhile, it says to the
    service's journal: it has one logger for all servers of a process."""
    service: Service = server.config.app.state.service  # type: ignore[union-attr]
    logger, handler = logging.getLogger("uvicorn.error"), JournalHandler(service.journal)
    logger.addHandler(handler)
    sweep = asyncio.create_task(_sweep(server, service))
    try:
        await server.serve(sockets=[made])
    finally:
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)
        logger.removeHandler(handler)


async def _sweep(server: uvicorn.Server, service: Service) -> None:
    """Closes connections whose headers do not come, and exchanges that do not end: uvicorn waits for both without end."""
    limits = service.limits
    # By connection, exchange, whether it is over, and whether the next one's headers have begun: when that was first seen. They
    # are held themselves: another could get the identity of one that is gone, and exchanges that are over between two looks
    # would be taken for one.
    since: dict[tuple[Any, Any, bool, bool], float] = {}
    while True:
        now, seen = time.monotonic(), {}
        connections: list[Any] = list(server.server_state.connections)  # of h11
        for connection in connections:
            cycle = connection.cycle
            is_idle = cycle is None or cycle.response_complete
            has_begun = is_idle and connection.conn.trailing_data[0] != b""
            key = connection, cycle, is_idle, has_begun
            seen[key] = since.get(key, now)
            if now - seen[key] > (limits.header_s if is_idle else limits.connection_s):
                connection.transport.abort()
        since = seen
        await asyncio.sleep(SWEEP_S)


def _unbound(host: str, port: int, error: OSError) -> RunError:
    if error.errno == errno.EADDRINUSE:
        return RunError(
            what=f"Port {port} of {host} is in use.",
            why="Another program, or another rehead serve, listens there.",
            fix=f"Pass another one, such as --port {port + 1 if port < 65535 else 8000}, or 0 for any that is free.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return RunError(
            what=f"Port {port} of {host} may not be used.",
            why="Ports below 1024 are kept for the system's administrator.",
            fix="Pass --port 8000.",
        )
    return RunError(
        what=f"{host} cannot be bound.",
        why=f"{error.strerror or error}.",
        fix="Pass --host 127.0.0.1 for this machine alone, or 0.0.0.0 for all its addresses.",
    )
