"""What tests share: a cache that is kept for the session, photos that are made up, and the real ones where there are any."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import hypothesis
import numpy as np
import pytest
from browsing import CHROMIUM, chromium, everything, look
from bucket import store, strict_store
from extracting import many
from forked import Forked
from leaks import Held, left_since
from PIL import Image

from rehead.exporting.prefixes import ready_prefix
from rehead.progress import Silent

hypothesis.settings.register_profile("busy", deadline=None)  # a machine that does other things is no failure
hypothesis.settings.load_profile("busy")

DATA = Path(os.environ.get("REHEAD_DATA", Path(__file__).parents[2] / "shared" / "data"))
WEIGHTS = DATA.parent / "weights"


__all__ = ["chromium", "everything", "look", "many", "store", "strict_store"]  # fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser") and CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="needs Chromium: apt-get install chromium"))
        if item.get_closest_marker("realdata") and not DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"{DATA} is not there; name it with REHEAD_DATA"))


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """A test that leaves a thread, a process, an open file or a changed variable behind fails."""
    before = Held.now()
    yield
    assert not (left := left_since(before)), f"left behind: {', '.join(left)}"


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of a process. The default backbone is exported once for all processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with filelock.FileLock(shared / "exported.lock"):
        if not (shared / "exported").exists():
            ready_prefix(
                "efficientnet_lite0",
                weights=None,
                arguments={},
                cut="pool",
                cache=shared / "exporting",
                progress=Silent(),
            )
            (shared / "exporting").rename(shared / "exported")
    return shutil.copytree(shared / "exported", tmp_path_factory.mktemp("cache"), dirs_exist_ok=True)


def noise(seed: int, colour: tuple[int, int, int], size: int = 64) -> Image.Image:
    """A picture of one colour with noise, different for each seed."""
    random = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + random.normal(0, 40, (size, size, 3)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 photos of two classes that differ in colour."""
    return make_photos(tmp_path / "photos", {"red": 20, "blue": 20})


def make_photos(folder: Path, counts: dict[str, int]) -> Path:
    colours = {"red": (200, 60, 60), "blue": (60, 60, 200), "green": (60, 200, 60), "grey": (120, 120, 120)}
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise(1000 * number + i, colours[label]).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    with Forked() as server:
        yield server


@pytest.fixture
def rehead(cache: Path, tmp_path: Path, forked: Forked) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The program, run as a user would: rehead("tune", "photos/"). With variables that libraries read it starts anew.

    Tuning writes no report unless a test asks for --report: it takes longer than most tests.
    """

    def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        words, place = [*map(str, arguments)], cwd or tmp_path
        if words[:1] == ["tune"] and "--report" not in words and "--help" not in words:
            words.append("--no-report")
        env = {**os.environ, "REHEAD_CACHE": str(cache), "COLUMNS": "120", **environment}
        if environment.keys() <= {"REHEAD_CACHE", "COLUMNS"}:
            return forked.run(words, place, env, timeout_s=300)
        return subprocess.run(
            [sys.executable, "-m", "rehead", *words],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            cwd=place,
            env=env,
            timeout=300,
        )

    return run
