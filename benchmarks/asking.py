"""A client for benchmarks of the service, light enough to share its cores: one thread, raw sockets that are kept, requests that
are built beforehand. `python asking.py PORT CLIENTS REQUESTS FOLDER` asks for each photo of FOLDER in turn and prints wall
and own CPU seconds, and the seconds of each request, as JSON. Any status but 200 ends it."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from pathlib import Path

WARM_UP = 16  # requests that are not counted


class Line:
    """One connection: it asks, and asks again when the answer is whole."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._said = b""
        self.begun = 0.0

    def ask(self, request: bytes) -> None:
        self._said, self.begun = b"", time.perf_counter()
        self.socket.sendall(request)

    def heard(self) -> bool:
        """Whether the answer is whole now."""
        piece = self.socket.recv(1 << 16)
        assert piece, "the connection was closed"
        self._said += piece
        head, end, body = self._said.partition(b"\r\n\r\n")
        if not end:
            return False
        assert head.startswith(b"HTTP/1.1 200 "), self._said[:2000]
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return len(body) == length


def main(port: int, n_clients: int, n_requests: int, folder: Path) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    photos = [path.read_bytes() for path in sorted(folder.iterdir())]
    requests = [head % len(photo) + photo for photo in photos]
    _asked(port, n_clients, requests[:WARM_UP])
    begun, cpu = time.perf_counter(), time.process_time()
    took = _asked(port, n_clients, [requests[i % len(requests)] for i in range(n_requests)])
    facts = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu, "took_s": took}
    print(json.dumps(facts))


def _asked(port: int, n_clients: int, requests: list[bytes]) -> list[float]:
    left, took = iter(requests), []
    with selectors.DefaultSelector() as selector:
        for request in [request for _, request in zip(range(n_clients), left, strict=False)]:
            line = Line(port)
            selector.register(line.socket, selectors.EVENT_READ, line)
            line.ask(request)
        while len(took) < len(requests):
            for key, _ in selector.select():
                line = key.data
                if line.heard():
                    took.append(time.perf_counter() - line.begun)
                    if (request := next(left, None)) is not None:
                        line.ask(request)
        for key in list(selector.get_map().values()):
            key.fileobj.close()
    return took


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
