"""A job that can be stopped in the midst of extracting, however many cores there are, and photos enough for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehead.features.cache import list_stores

N_MANY = 1400


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More photos than two cores extract before a job can be stopped: each made from one by turning a pixel of it."""
    from conftest import noise

    folder = tmp_path_factory.mktemp("many")
    for label, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        (folder / label).mkdir()
        picture = noise(1, colour, size=32)
        for i in range(N_MANY // 2):
            picture.putpixel((i % 32, i // 32), (i % 256, 0, 0))
            picture.save(folder / label / f"{i}.bmp")
    return folder


@contextlib.contextmanager
def on_two_cores() -> Iterator[None]:
    """Processes that are begun meanwhile have two cores: with twenty the photos of a test are done before it looks."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def begun(photos: Path, folder: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    """A job on two cores, in folder/run, with a cache of its own, folder/own, that has the networks alone."""
    shutil.copytree(cache / "prefixes", folder / "own" / "prefixes")
    with on_two_cores():
        return subprocess.Popen(
            [sys.executable, "-m", "rehead", "tune", str(photos), "--json", "--no-report", "--out", str(folder / "run"), *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "REHEAD_CACHE": str(folder / "own")},
        )  # fmt: skip


def extracting(photos: Path, folder: Path, cache: Path) -> subprocess.Popen[str]:
    """The same as soon as some features are in the store."""
    process, ends = begun(photos, folder, cache), time.monotonic() + 60
    while not any(store.photos for store in list_stores(folder / "own")):
        if process.poll() is not None or time.monotonic() > ends:
            process.kill()
            raise AssertionError(f"no features yet: {process.communicate()[1]}")
        time.sleep(0.02)
    return process
