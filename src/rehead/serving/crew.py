"""Photos of all requests, answered in batches by a thread for each core.

A thread takes what waits, of one model and at most MOST, decodes it and runs the network on it. So an idle service answers a
photo at once and alone, and a busy one fills its batches while the threads are at work: nobody waits for a batch to fill.
Requests take turns, photo by photo, so that one of many photos does not hold up those of one. The queue is bounded; what is
beyond it is refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rehead.serving.answers import Wanted, answered
from rehead.serving.models import Loaded
from rehead.serving.problems import Problem

Row = dict[str, Any]
MOST = 4  # photos a batch: EfficientNet-Lite0 is no quicker with more, measured for 1 to 16
JOIN_S = 10.0  # a thread that is in the middle of a picture may take so long to end
SMOOTHING = 0.2  # of the mean time a photo takes: about the last ten batches count


class Asked:
    """The photos of one request, on their way. Its rows are there when `done` is."""

    def __init__(self, loaded: Loaded, photos: Sequence[bytes], wanted: Wanted) -> None:
        self.loaded, self.wanted = loaded, wanted
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[list[Row]] = self.loop.create_future()
        self.rows: list[Row] = [{}] * len(photos)
        self.left = len(photos)
        self.waiting = deque(_Photo(data, place, self) for place, data in enumerate(photos))


@dataclass(slots=True)
class _Photo:
    data: bytes
    place: int
    asked: Asked


@dataclass(slots=True)
class _Lane:
    """What waits for one model: requests that have photos waiting, in the order of their turns, and how many photos that is."""

    requests: deque[Asked] = field(default_factory=deque)
    n_photos: int = 0

    def add(self, asked: Asked) -> None:
        self.requests.append(asked)
        self.n_photos += len(asked.waiting)

    def take(self, n: int) -> list[_Photo]:
        """n photos, one of each request in turn."""
        taken = []
        for _ in range(n):
            asked = self.requests.popleft()
            taken.append(asked.waiting.popleft())
            if asked.waiting:
                self.requests.append(asked)
        self.n_photos -= n
        return taken

    def drop(self, asked: Asked) -> int:
        """The number of photos that were taken out."""
        n = len(asked.waiting)
        if n:
            self.requests.remove(asked)
            asked.waiting.clear()
            self.n_photos -= n
        return n


class Crew:
    """Threads that answer. pixels: that a picture may have. batched: told the number of photos of each batch, by one of
    them."""

    def __init__(self, workers: int, queue: int, pixels: int, batched: Callable[[int], None]) -> None:
        self.workers, self.queue, self._pixels = workers, queue, pixels
        self._batched = batched
        self._lanes: dict[int, _Lane] = {}  # by the identity of a model, in the order of their turns
        self._n_waiting = 0
        self._photo_s = 0.0
        self._closed = True
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._closed = False
        names = [f"rehead-answers-{i}" for i in range(self.workers)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """What waits is answered still, and the threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(JOIN_S)

    @property
    def n_waiting(self) -> int:
        return self._n_waiting

    def submit(self, loaded: Loaded, photos: Sequence[bytes], wanted: Wanted) -> Asked:
        """Takes on a request, whole or not at all. Raises Problem 503 where there is no room, or the service ends."""
        asked = Asked(loaded, photos, wanted)
        with self._changed:
            if self._closed:
                raise busy("The service is shutting down.", "Ask again: another may take its place.", 1)
            if self._n_waiting + len(photos) > self.queue:
                n = self._n_waiting
                raise busy(
                    f"{n} photos wait already, and {self.queue} may.", "Come again a little later.", self.wait_s()
                )
            self._lanes.setdefault(id(loaded), _Lane()).add(asked)
            self._n_waiting += len(photos)
            self._changed.notify(len(photos))
        return asked

    def drop(self, asked: Asked) -> None:
        """What waits of a request is taken out; what is under way is finished and thrown away."""
        with self._changed:
            if lane := self._lanes.get(id(asked.loaded)):
                self._n_waiting -= lane.drop(asked)
                if not lane.n_photos:
                    del self._lanes[id(asked.loaded)]

    def wait_s(self) -> int:
        """How long what waits will take, in whole seconds, at least 1."""
        return max(1, math.ceil(self._n_waiting * self._photo_s / self.workers))

    def _work(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _answer(self, batch: list[_Photo]) -> None:
        """Answers a batch. One that fails is taken photo by photo: whatever is the matter with one is not the others'."""
        begun = time.monotonic()
        try:
            photos = [(photo.data, photo.asked.wanted) for photo in batch]
            rows = answered(batch[0].asked.loaded, photos, self._pixels)
        except Exception as error:  # such as no memory: that request fails, and the thread goes on
            if len(batch) == 1:
                self._fail(batch[0].asked, error)
                return
            for photo in batch:
                self._answer([photo])
            return
        took = (time.monotonic() - begun) / len(batch)
        self._photo_s += (took - self._photo_s) * (SMOOTHING if self._photo_s else 1)
        self._batched(len(batch))
        self._deliver(batch, rows)

    def _next(self) -> list[_Photo]:
        """A share of what waits for one model, of each model in turn; empty when there is no more to do."""
        with self._changed:
            while not self._lanes:
                if self._closed:
                    return []
                self._changed.wait()
            key, lane = next(iter(self._lanes.items()))
            batch = lane.take(min(MOST, math.ceil(lane.n_photos / self.workers)))
            self._n_waiting -= len(batch)
            del self._lanes[key]
            if lane.n_photos:
                self._lanes[key] = lane  # the last one now
            return batch

    def _deliver(self, batch: list[_Photo], rows: list[Row]) -> None:
        whole = []
        with self._changed:
            for photo, row in zip(batch, rows, strict=True):
                photo.asked.rows[photo.place] = row
                photo.asked.left -= 1
                if photo.asked.left == 0:
                    whole.append(photo.asked)
        for asked in whole:
            _tell(asked, asked.rows)

    def _fail(self, asked: Asked, error: Exception) -> None:
        self.drop(asked)
        _tell(asked, error)


def _tell(asked: Asked, outcome: list[Row] | Exception) -> None:
    """Ends the wait of a request, in its own thread, unless it was given up."""

    def settle() -> None:
        if asked.done.done():
            return
        if isinstance(outcome, Exception):
            asked.done.set_exception(outcome)
        else:
            asked.done.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
        asked.loop.call_soon_threadsafe(settle)


def busy(what: str, fix: str, after_s: int) -> Problem:
    """503 with Retry-After."""
    return Problem(503, what, fix=fix, headers={"Retry-After": str(after_s)})
