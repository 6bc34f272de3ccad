"""Many clients at once, each of which checks its own answers, while bundles are replaced, the queue runs over, some clients
hang up, and in the end the service is told to end: no answer is lost and none is another's."""

from __future__ import annotations

import collections
import hashlib
import http.client
import json
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from little import bundle, heavy, picture
from served import BOUNDARY, Program, form

import rehead

KIND = f"multipart/form-data; boundary={BOUNDARY}"
N_CLIENTS, N_PICTURES = 32, 6  # of each client, and no two of any are alike
CLASSES = {"old": ("red", "green", "blue"), "new": ("rot", "grün", "blau")}


class Expected:
    """What the right answers are, by the version of the bundle: (client, picture) -> a row."""

    def __init__(self, folder: Path) -> None:
        dice = np.random.default_rng(0)
        self.pictures = [
            [picture(tuple(int(x) for x in dice.integers(0, 256, 3))) for _ in range(N_PICTURES)]
            for _ in range(N_CLIENTS)
        ]
        self.rows: dict[str, list[list[dict[str, Any]]]] = {}
        self.folders = {
            name: bundle(folder / name, classes, 8 + i) for i, (name, classes) in enumerate(CLASSES.items())
        }
        for path in self.folders.values():
            model = rehead.load(path)
            version = hashlib.sha256((path / "rehead.json").read_bytes()).hexdigest()[:12]
            self.rows[version] = [[row.to_dict(model.task, 5) for row in model.predict(mine)] for mine in self.pictures]


class Clients:
    """Threads that ask and check until they are told to end. counts: what became of the questions."""

    def __init__(self, port: int, expected: Expected) -> None:
        self.port, self.expected = port, expected
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.versions: set[str] = set()
        self.ending, self.end = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"rehead-client-{i}") for i in range(N_CLIENTS)
        ]
        self._threads.append(threading.Thread(target=self._hang_up, name="rehead-rude"))

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, who: int) -> None:
        dice = random.Random(who)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.end.is_set():
            places = [dice.randrange(N_PICTURES) for _ in range(dice.randint(1, 4))]
            try:
                outcome = self._ask(connection, who, places)
            except (ConnectionError, http.client.HTTPException, TimeoutError, OSError) as error:
                connection.close()
                outcome = "refused" if self.ending.is_set() else f"lost: {error!r}"
                if self.ending.is_set():
                    self.end.wait(0.02)
            with self._lock:
                self.counts[outcome] += 1
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, who: int, places: list[int]) -> str:
        mine = self.expected.pictures[who]
        identity = f"{who}-{time.monotonic_ns()}"
        if len(places) == 1:
            body, kind = mine[places[0]], "image/png"
        else:
            body, kind = form([(f"{who}.{i}", mine[i]) for i in places]), KIND
        connection.request("POST", "/v1/predict", body, {"Content-Type": kind, "X-Request-ID": identity})
        reply = connection.getresponse()
        said = json.loads(reply.read())
        if reply.status == 503:
            assert int(reply.headers["Retry-After"]) >= 1
            self.end.wait(0.05)
            return "503"
        rows = self.expected.rows[said["version"]][who]
        names = [None] if len(places) == 1 else [f"{who}.{i}" for i in places]
        right = [{"name": name, **rows[i]} for name, i in zip(names, places, strict=True)]
        if (reply.status, said["request_id"]) != (200, identity) or said["results"] != right:
            self.wrong.append(f"{reply.status} {identity}: {said} instead of {right}")
        self.versions.add(said["version"])
        return "200"

    def _hang_up(self) -> None:
        """Asks and does not wait for the answer."""
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: rude\r\nContent-Type: image/png\r\n"
        body = self.expected.pictures[0][0]
        while not self.end.wait(0.05) and not self.ending.is_set():
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
                line.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def overload(port: int) -> None:
    """More than the queue holds, in a moment."""
    body = form([(str(i), heavy(0.4)) for i in range(60)])

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(
            "POST", "/v1/predict", body,
            {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "X-Request-ID": "heavy"},
        )  # fmt: skip
        connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=send, name="rehead-heavy") for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def loaded(tmp_path: Path, seconds: float) -> None:
    expected = Expected(tmp_path)
    folder = bundle(tmp_path / "served" / "bundle", CLASSES["old"])
    assert (folder / "rehead.json").read_bytes() == (expected.folders["old"] / "rehead.json").read_bytes()
    running = Program(folder, "--threads", "2")  # with many its queue never runs over
    try:
        with Clients(running.port, expected) as clients:
            clients.end.wait(seconds / 4)
            bundle(folder, CLASSES["new"], 9)
            running.wait_for("reloaded")
            clients.end.wait(seconds / 4)
            overload(running.port)
            clients.end.wait(seconds / 4)
            bundle(folder, CLASSES["old"])
            running.wait_for("reloaded", n=2)
            clients.end.wait(seconds / 4)
            clients.ending.set()
            assert running.end() == 0
    finally:
        running.end()
    answered = [
        line for line in running.said
        if (line["event"], line.get("status")) == ("request", 200) and line["request_id"] not in ("rude", "heavy")
    ]  # fmt: skip
    assert not clients.wrong
    assert clients.versions == set(expected.rows)
    assert set(clients.counts) <= {"200", "503", "refused"}, clients.counts
    assert clients.counts["200"] == len(answered) > 20 * seconds
    assert [line for line in running.said if line.get("status") == 503]
    assert not [line for line in running.said if line["event"] in ("failed", "stale", "server")]


@pytest.mark.long
def test_a_few_seconds_of_load(tmp_path: Path) -> None:
    loaded(tmp_path, 1)


@pytest.mark.slow
def test_memory_has_a_bound_whatever_is_sent(tmp_path: Path) -> None:
    """24 clients with 90 MB each, all at once: 2.2 GB, of which the service holds 256 MiB, and as much again at most."""
    running = Program(bundle(tmp_path / "bundle"))
    process, body = psutil.Process(running.process.pid), random.Random(0).randbytes(90 << 20)
    whole = form([(str(i), body[i << 20 : (i + 5) << 20]) for i in range(0, 85, 5)])
    idle, peak, statuses = process.memory_info().rss, 0, []

    def send(i: int) -> None:
        try:
            answer = running.predict(body) if i % 2 else running.ask("POST", "/v1/predict", whole, Content_Type=KIND)
            statuses.append(answer.status)
        except ConnectionError:  # refused, and it did not look at why while it sent
            statuses.append(503)

    threads = [threading.Thread(target=send, args=(i,), name="rehead-large") for i in range(24)]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)
        assert running.predict(picture()).status == 200
    finally:
        for thread in threads:
            thread.join()
        running.end()
    assert set(statuses) == {422, 503}
    assert peak - idle < 2.5 * (256 << 20)


@pytest.mark.slow
def test_half_a_minute_of_load(tmp_path: Path) -> None:
    loaded(tmp_path, 30)
