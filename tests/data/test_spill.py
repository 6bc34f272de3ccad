"""Numbers that are many lie in files, and are the same numbers."""

from __future__ import annotations

import copy
import errno
import itertools
import os
import pickle
import threading
import tracemalloc
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from hypothesis import given
from hypothesis import strategies as st

import rehead
from rehead.data import spill
from rehead.data.spill import Kind, Numbers, empty, let_go

several = st.lists(st.lists(st.integers(0, 255), max_size=30), max_size=8)


@pytest.fixture(autouse=True, scope="module")
def _few_fit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Blocks of a few numbers, in a folder of their own."""
    before = spill.BLOCK_BYTES, spill.LARGE_BYTES
    spill.BLOCK_BYTES, spill.LARGE_BYTES = 24, 100
    spill.spill_into(tmp_path_factory.mktemp("columns"))
    yield
    spill.BLOCK_BYTES, spill.LARGE_BYTES = before
    spill.spill_into(None)


@pytest.mark.parametrize("kind", ["B", "i", "q"])
@given(several, st.integers(0, 240), st.integers(0, 240))
def test_numbers_are_those_that_were_added(kind: Kind, some: list[list[int]], begin: int, end: int) -> None:
    numbers, whole = Numbers(kind), array(kind)
    for n, part in enumerate(some):
        if n % 2:
            numbers.extend(array(kind, part).tobytes())
        else:
            for number in part:
                numbers.append(number)
        whole.extend(part)
        assert len(numbers) == len(whole)
        assert numbers.all().tolist() == whole.tolist()
    assert [numbers[i] for i in range(len(whole))] == whole.tolist()
    assert [n for block in numbers.blocks(begin, end) for n in block.tolist()] == whole[begin:end].tolist()
    assert max((block.nbytes for block in numbers.blocks()), default=0) <= 24
    assert copy.deepcopy(numbers).all().tolist() == pickle.loads(pickle.dumps(numbers)).all().tolist() == whole.tolist()
    assert [numbers.two(i) for i in range(len(whole) - 1)] == [*itertools.pairwise(whole)]
    if kind == "B":
        assert numbers.data(min(begin, end), max(begin, end)) == whole[min(begin, end) : max(begin, end)].tobytes()


def test_what_is_in_a_file_cannot_be_written_over() -> None:
    few, many = Numbers("q"), Numbers("q")
    few.append(1)
    for i in range(50):
        many.append(i)
    for numbers in (few, many):
        with pytest.raises(ValueError, match="read-only"):
            numbers.all()[0] = 2


def test_a_file_has_no_name_and_goes_with_its_numbers(tmp_path: Path) -> None:
    def is_open() -> bool:
        return any(os.path.exists(link) and str(tmp_path) in os.readlink(link) for link in fds())

    def fds() -> list[str]:
        return [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    before = spill._folder
    spill.spill_into(tmp_path)
    numbers = Numbers("q")
    numbers.extend(bytes(8_000))
    spill.spill_into(before)
    assert [*tmp_path.iterdir()] == []
    assert any(str(tmp_path) in os.readlink(link) for link in fds() if os.path.islink(link))
    del numbers
    assert not is_open()


class Full:
    """A file whose disk is full after so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: memoryview) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = int(self._file.write(data[: self._room]))
        self._room -= n
        return n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 24, 36, 60])
def test_on_a_full_disk_numbers_stay_in_memory(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    file_in = spill._file_in
    monkeypatch.setattr(spill, "_file_in", lambda folder: Full(file_in(folder), room))
    numbers = Numbers("q")
    for i in range(200):
        numbers.append(i)
    assert numbers.all().tolist() == [numbers[i] for i in range(200)] == [*range(200)]


def test_where_there_can_be_no_file_numbers_stay_in_memory(tmp_path: Path) -> None:
    before = spill._folder
    spill.spill_into(tmp_path / "gone")
    numbers = Numbers("i")
    for i in range(200):
        numbers.append(i)
    whole = empty((100, 2), np.int64)
    spill.spill_into(before)
    assert numbers.all().tolist() == [*range(200)]
    assert whole.shape == (100, 2)


def test_several_threads_read_at_once() -> None:
    for n in range(1, 60):
        numbers, start = Numbers("q"), threading.Barrier(4)
        for i in range(n):
            numbers.append(i)

        def read(numbers: Numbers = numbers, start: threading.Barrier = start, n: int = n) -> bool:
            start.wait()
            alone = [numbers[i] for i in range(n)]
            return alone == [*range(n)] == numbers.all().tolist()

        with ThreadPoolExecutor(4) as threads:
            assert all(reading.result() for reading in [threads.submit(read) for _ in range(4)])


def test_a_large_array_is_in_a_file_and_can_be_filled() -> None:
    small, large = empty((3, 4), np.uint8), empty((300, 4), np.uint64)
    assert type(small) is np.ndarray
    assert isinstance(large, np.memmap)
    large[:] = np.arange(1200).reshape(300, 4)
    assert large[299].tolist() == [1196, 1197, 1198, 1199]


def test_an_array_that_was_let_go_is_as_it_was() -> None:
    def in_memory() -> int:
        return int(Path("/proc/self/status").read_text().split("RssFile:")[1].split()[0])

    large = empty((8 << 20,), np.uint8)
    large[:] = 7
    if Path("/proc/self/status").is_file():
        before = in_memory()
        let_go(large)
        assert before - in_memory() > 6 << 10  # kB
    let_go(np.zeros(3))
    assert (large == 7).all()


def test_many_numbers_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "BLOCK_BYTES", 1 << 16)
    tracemalloc.start()
    numbers = Numbers("q")
    for i in range(300_000):
        numbers.append(i)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(numbers) == 300_000
    assert peak < 5 * (1 << 16)  # they are 2.4 MB


def test_a_job_whose_columns_are_in_files_gives_the_same(tmp_path: Path, cache: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    spilled = rehead.tune(photos, cache=cache, out=tmp_path / "spilled", report=False)
    spill.BLOCK_BYTES, few = 1 << 20, spill.BLOCK_BYTES
    whole = rehead.tune(photos, cache=cache, out=tmp_path / "whole", report=False)
    spill.BLOCK_BYTES = few
    for name in ("catalog.csv", "bundle/head.safetensors", "logits.safetensors"):
        assert (spilled.run / name).read_bytes() == (whole.run / name).read_bytes()
