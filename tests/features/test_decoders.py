"""Photos decoded by processes: the same pixels and reasons as here, and no photo is lost with a process."""

from __future__ import annotations

import functools
import io
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from rehead.errors import PhotoError
from rehead.features import decoders
from rehead.features.views import PLAIN, stored_views
from rehead.pixels import Preprocess

SQUARE = Preprocess(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DECODE = functools.partial(stored_views, PLAIN, SQUARE)


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def processes() -> Iterator[None]:
    """None are there from before, and none are left."""
    decoders.executor.cache_clear()
    yield
    decoders.executor().shutdown(wait=True, kill_workers=True)
    decoders.executor.cache_clear()


@pytest.mark.usefixtures("processes")
def test_pixels_and_reasons_are_those_of_this_process() -> None:
    jobs = [(photo(0), b"0"), (b"no picture", b"1"), (photo(2), b"2")]
    for ours, theirs in zip(DECODE(jobs), decoders.in_process(DECODE, jobs), strict=True):
        if isinstance(ours, PhotoError):
            assert isinstance(theirs, PhotoError)
            assert theirs.what == ours.what
        else:
            np.testing.assert_array_equal(ours, theirs)


def slain(jobs: object) -> list[np.ndarray]:
    """Kills the process that it runs in, and does its work in the one that is left."""
    if os.getpid() != int(os.environ["REHEAD_TEST_PARENT"]):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return [np.zeros((1, 1, 3), np.uint8)]


@pytest.mark.usefixtures("processes")
def test_photos_are_decoded_here_when_the_processes_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEAD_TEST_PARENT", str(os.getpid()))
    assert len(decoders.in_process(slain, [1])) == 1
    assert len(decoders.in_process(DECODE, [(photo(0), b"0")])) == 1  # by new ones


def test_they_are_used_beside_a_device_alone_on_many_photos_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "n_cores", lambda: 16)
    assert decoders.beside("cpu", 1_000_000, DECODE) is DECODE
    assert decoders.beside("cuda", 100, DECODE) is DECODE
    assert decoders.beside("cuda", 100_000, DECODE) is not DECODE
    monkeypatch.setattr(decoders, "n_cores", lambda: 4)
    assert decoders.beside("cuda", 100_000, DECODE) is DECODE
