"""What a running service consists of: one of these for each app, in `app.state.service`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request

from rehead.parallel import n_cores
from rehead.serving.answers import Row, Wanted
from rehead.serving.bodies import Room
from rehead.serving.crew import JOIN_S, Asked, Crew
from rehead.serving.journal import Journal
from rehead.serving.limits import Limits
from rehead.serving.metrics import Metrics
from rehead.serving.models import Loaded
from rehead.serving.problems import Problem
from rehead.serving.shelf import Shelf

LOOK_S = 0.5  # between two looks whether a client is still there, while it waits: each costs a tenth of a millisecond


@dataclass
class Service:
    """shelf: the models. crew: who answers. room: bytes. feedback: where corrected photos are kept, None where they are not.
    was_told: says whether it was told to end, which its server knows."""

    shelf: Shelf
    crew: Crew
    room: Room
    limits: Limits
    metrics: Metrics
    journal: Journal
    feedback: Path | None = None
    was_told: Callable[[], bool] = lambda: False
    is_ready: bool = field(default=False, init=False)
    is_over: bool = field(default=False, init=False)

    @property
    def is_closing(self) -> bool:
        """Whether it ends, from the moment it is told to."""
        return self.is_over or self.was_told()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Threads and the watch over the bundles' folders, from beginning to end of the block."""
        self.crew.start()
        end = threading.Event()
        watch = threading.Thread(
            target=self.shelf.watch,
            name="rehead-watch",
            daemon=True,
            args=(self._reloaded, end, self.limits.watch_s),
        )
        watch.start()
        self.is_ready = True
        try:
            yield
        finally:
            self.is_ready, self.is_over = False, True
            end.set()
            self.crew.close()
            watch.join(JOIN_S)

    async def rows(self, request: Request, loaded: Loaded, photos: Sequence[bytes], wanted: Wanted) -> list[Row]:
        """A row for each photo. Raises Problem: 503 where too many wait, 504 where it takes too long; ClientDisconnect."""
        asked = self.crew.submit(loaded, photos, wanted)
        try:
            await _there(asked, request, self.limits.request_s)
        finally:
            if not asked.done.done():
                self.crew.drop(asked)
                asked.done.cancel()
        rows = asked.done.result()
        self.metrics.photos(loaded.name, len(rows), sum("error" in row for row in rows))
        return rows

    def models(self) -> dict[str, Any]:
        """What `/v1/model` says."""
        models = [loaded.to_dict() for loaded in self.shelf]
        return {"models": models, "feedback": self.feedback is not None, "limits": self.limits.to_dict()}

    def _reloaded(self, event: str, loaded: Loaded, why: str) -> None:
        self.metrics.reload(loaded.name, event)
        self.journal.say(event, model=loaded.name, version=loaded.version, **({"why": why} if why else {}))


def service_of(
    models: Mapping[str, Loaded],
    limits: Limits,
    *,
    workers: int | None = None,
    feedback: Path | None = None,
    journal: Journal | None = None,
) -> Service:
    """The parts, put together. workers: photos under way at once, by default one a core."""
    metrics = Metrics()
    crew = Crew(workers or n_cores(), limits.queue, limits.pixels, metrics.batch)
    room = Room(limits.held_bytes)
    metrics.watch(lambda: crew.n_waiting, lambda: room.held_bytes)
    return Service(Shelf(models), crew, room, limits, metrics, journal or Journal(), feedback)


async def _there(asked: Asked, request: Request, limit_s: float) -> None:
    """Waits until the rows are there. Raises Problem 504, and ClientDisconnect where nobody wants them any more."""
    ends = time.monotonic() + limit_s
    while not (await asyncio.wait({asked.done}, timeout=min(LOOK_S, limit_s)))[0]:
        if time.monotonic() >= ends:
            raise Problem(504, f"There was no answer within {limit_s:g} s.", fix="Send fewer pictures at a time.")
        if await request.is_disconnected():
            raise ClientDisconnect
