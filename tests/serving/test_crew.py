"""The threads that answer: what fails in a batch fails whoever sent it, and nobody else."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little import bundle, picture

from rehead.serving.answers import Wanted
from rehead.serving.crew import Crew
from rehead.serving.models import Loaded, load_named

BLACK, WHITE, BLUE = picture((0, 0, 0)), picture((255, 255, 255)), picture((30, 30, 200))


class Failing:
    """A model that waits at a black picture until it is let go, and fails at any batch with a white one."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.is_waiting, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict_pixels(self, pixels: np.ndarray) -> Any:
        if not pixels.any():
            self.is_waiting.set()
            assert self.go_on.wait(10)
        if any(one.min() == 255 for one in pixels):
            raise ZeroDivisionError("nobody thought of white")
        return self._model.predict_pixels(pixels)


@pytest.fixture
def failing(tmp_path: Path) -> Loaded:
    loaded = load_named("little", bundle(tmp_path / "bundle"))
    return replace(loaded, model=Failing(loaded.model))


def test_a_picture_at_which_the_network_fails_fails_only_who_sent_it(failing: Loaded) -> None:
    sizes: list[int] = []
    model: Any = failing.model

    async def ask() -> list[Any]:
        crew = Crew(1, 100, 1000 * 1000, sizes.append)
        crew.start()
        try:
            first = crew.submit(failing, [BLACK], Wanted())
            await asyncio.to_thread(model.is_waiting.wait, 10)
            asked = [crew.submit(failing, photos, Wanted()) for photos in ([BLUE], [WHITE], [BLUE, BLUE])]
            model.go_on.set()
            return await asyncio.gather(*(one.done for one in (first, *asked)), return_exceptions=True)
        finally:
            model.go_on.set()
            await asyncio.to_thread(crew.close)

    _, alone, bad, two = asyncio.run(ask())
    assert isinstance(bad, ZeroDivisionError)
    assert [row["label"] for row in [*alone, *two]] == ["blue"] * 3
    assert sizes == [1, 1, 1, 1]  # the four of one batch, of which one was no use
