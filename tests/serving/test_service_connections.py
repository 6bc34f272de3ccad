"""Connections that are kept: one in use stays, however long, and one that says nothing more is closed."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import time
from pathlib import Path

import pytest
from little import bundle
from served import here

from rehead.serving.limits import Limits
from rehead.serving.server import SWEEP_S

HEADER_S = 3.0
SENT = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("connecting") / "bundle")


@pytest.mark.long
def test_a_connection_that_is_asked_again_and_again_stays(folder: Path) -> None:
    with (
        here({"little": folder}, limits=Limits(header_s=HEADER_S)) as service,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)) as client,
    ):
        client.connect()
        line, ends = client.sock, time.monotonic() + HEADER_S + 3 * SWEEP_S
        while time.monotonic() < ends:  # each is over long before anybody looks
            client.request("GET", "/healthz")
            assert client.getresponse().read() == b'{"status":"alive"}'
            time.sleep(0.02)
        assert client.sock is line


@pytest.mark.long
def test_a_connection_that_begins_a_request_after_others_has_as_long_for_its_headers(folder: Path) -> None:
    with (
        here({"little": folder}, limits=Limits(header_s=HEADER_S)) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=10) as line,
    ):
        for pause_s in (0.3, 0.3, 3 * SWEEP_S):  # the last one is seen
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"alive" not in answer:
                answer += line.recv(10_000)
                assert answer
            time.sleep(pause_s)
        begun = time.monotonic()
        line.sendall(b"GET /healthz HT")
        with contextlib.suppress(ConnectionResetError):
            while line.recv(10_000):
                pass
        assert HEADER_S <= time.monotonic() - begun < HEADER_S + 10


def test_an_exchange_that_does_not_end_is_closed(folder: Path) -> None:
    """Whatever comes of its body, and however often."""
    with (
        here({"little": folder}, limits=Limits(connection_s=1.0)) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=0.1) as line,
    ):
        begun, said = time.monotonic(), None
        line.sendall(SENT + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while said is None and time.monotonic() < begun + 20:
                line.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    said = line.recv(10_000)
        assert not said
        assert 1.0 <= time.monotonic() - begun < 20
        assert service.get("/healthz").status == 200


def test_what_is_under_way_when_the_service_ends_has_a_bound(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        with here({"little": folder}, limits=Limits(shutdown_s=1, body_idle_s=60.0)) as service:
            line = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
            line.sendall(SENT + b"Expect: 100-continue\r\n\r\n")
            assert line.recv(10_000).startswith(b"HTTP/1.1 100 ")  # it waits for the body
            begun = time.monotonic()
        assert 1.0 <= time.monotonic() - begun < 20


def test_each_of_two_services_has_what_its_own_server_says_in_its_log(folder: Path) -> None:
    logger = logging.getLogger("uvicorn.error")
    before = [*logger.handlers], logger.propagate
    with here({"one": folder}) as one:
        with here({"two": folder}) as two:
            damaged(one.port)
            damaged(two.port)
            damaged(two.port)
        damaged(one.port)
    said = [sum(line["event"] == "server" for line in service.said) for service in (one, two)]
    assert said == [2, 2]
    assert ([*logger.handlers], logger.propagate) == before


def damaged(port: int) -> None:
    """A request that is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"no such thing\r\n\r\n")
        assert line.recv(10_000).startswith(b"HTTP/1.1 400 ")
