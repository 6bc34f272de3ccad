"""What Prometheus is told. A registry of the service's own: two services in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # up to the limit of a request
PHOTOS = (1, 2, 3, 4, 5, 6, 7, 8)  # up to BATCH


class Metrics:
    """Counts and times. waiting: asked for the photos that wait, when somebody looks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "rehead_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "rehead_request_seconds", "From headers to answer.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self._batches = Histogram("rehead_batch_photos", "Photos a batch.", buckets=PHOTOS, registry=self.registry)
        self._waiting = Gauge("rehead_waiting_photos", "Photos that wait.", registry=self.registry)
        self._held = Gauge("rehead_held_bytes", "Bytes of bodies under way.", registry=self.registry)
        self._photos = Counter("rehead_photos", "Photos that were answered.", ["model"], registry=self.registry)
        self._bad = Counter("rehead_bad_photos", "Photos that could not be read.", ["model"], registry=self.registry)
        self._reloads = Counter("rehead_reloads", "Bundles read again.", ["model", "result"], registry=self.registry)

    def watch(self, waiting: Callable[[], int], held_bytes: Callable[[], int]) -> None:
        """These are asked when somebody looks."""
        self._waiting.set_function(waiting)
        self._held.set_function(held_bytes)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, n_photos: int) -> None:
        self._batches.observe(n_photos)

    def photos(self, model: str, n: int, n_bad: int) -> None:
        self._photos.labels(model).inc(n)
        if n_bad:
            self._bad.labels(model).inc(n_bad)

    def reload(self, model: str, result: str) -> None:
        self._reloads.labels(model, result).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
