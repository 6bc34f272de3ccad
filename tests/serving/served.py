"""The service, running: as a program, or in a thread where a test sets the limits; and a plain client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.serving.app import make_app
from rehead.serving.journal import Journal
from rehead.serving.limits import Limits
from rehead.serving.models import load_named
from rehead.serving.server import bound, served, server_of

START_S = 60.0
BOUNDARY = "7da3f1"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks one service; each question is a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, timeout_s: float = 30, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names, encode_chunked=isinstance(body, Iterator))
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def predict(self, picture: bytes, query: str = "", **headers: str) -> Answer:
        return self.ask("POST", f"/v1/predict{query}", picture, **{"Content-Type": "image/png", **headers})

    def predict_form(self, pictures: Sequence[tuple[str, bytes]], query: str = "", **headers: str) -> Answer:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask("POST", f"/v1/predict{query}", form(pictures), **{"Content-Type": kind, **headers})


def form(pictures: Sequence[tuple[str, bytes]], field: str = "images") -> bytes:
    """multipart/form-data of these names and contents."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in pictures
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Program(Client):
    """`rehead serve`, as a person or a system starts it. said: the lines of its log."""

    def __init__(self, *arguments: str | Path, port: int = 0) -> None:
        words = ["serve", *map(str, arguments), "--port", str(port)]
        self.said: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rehead", *words], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        self._heard = threading.Thread(target=self._listen, name="rehead-log")
        self._heard.start()
        super().__init__(int(self.wait_for("serving", START_S)["address"].rpartition(":")[2]))

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(json.loads(line))

    def wait_for(self, event: str, timeout_s: float = 10, n: int = 1) -> dict[str, Any]:
        """The n-th line of that event."""
        ends = time.monotonic() + timeout_s
        while len(found := [line for line in list(self.said) if line["event"] == event]) < n:
            assert time.monotonic() < ends, f"no {event!r} in {self.said}"
            assert self.process.poll() is None or self._heard.is_alive(), self.said
            time.sleep(0.01)
        return found[n - 1]

    def end(self, number: int | None = signal.SIGTERM, timeout_s: float = 40) -> int:
        """The exit code after that signal, None where it has been told: another would find a program that listens no longer."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
            self._heard.join()
            assert self.process.stderr is not None
            self.process.stderr.close()
        return code


@contextlib.contextmanager
def program(*arguments: str | Path) -> Iterator[Program]:
    running = Program(*arguments)
    try:
        yield running
    finally:
        running.end()


class Here(Client):
    """The service in a thread of the test's process. said: the lines of its log."""

    def __init__(self, port: int, service: Any, said: list[dict[str, Any]]) -> None:
        super().__init__(port)
        self.service, self.said = service, said


@contextlib.contextmanager
def here(folders: Mapping[str, Path], *, limits: Limits | None = None, **options: Any) -> Iterator[Here]:
    """The bundles in these folders, served with these limits and options of `make_app`."""
    said: list[dict[str, Any]] = []
    journal = Journal(lambda line: said.append(json.loads(line)))
    models = {name: load_named(name, folder) for name, folder in folders.items()}
    app = make_app(models, limits=limits, journal=journal, **{"workers": 1, **options})
    server = server_of(app)
    with bound("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(served(server, listening)), name="rehead-service")
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            yield Here(listening.getsockname()[1], app.state.service, said)
        finally:
            server.should_exit = True
            thread.join(60)
