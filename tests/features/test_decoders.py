"""Photos decoded by processes: the same pixels and reasons as here, and no photo is lost with a process."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image

from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.errors import PhotoError
from rehead.features import decoders
from rehead.features.jpegs import Jpeg, augmented_files
from rehead.features.views import PLAIN, augmented_each, stored_views
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
    decoders._pools.clear()
    yield
    pool = decoders.executor()
    decoders.forget(pool)
    pool.shutdown(wait=True, kill_workers=True)


def same(ours: Sequence[object], theirs: Sequence[object]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        elif isinstance(one, PhotoError):
            assert one.what == other.what
        else:
            assert str(one) == str(other)


def shared_memory() -> list[str]:
    return [target for fd in Path("/proc/self/fd").iterdir() if "memfd:rehead" in (target := _target(fd))]


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed since
        return ""


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("n_jobs", [3, 2 * decoders.PART + 3])
def test_pixels_and_reasons_are_those_of_this_process_whatever_the_way(
    n_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(photo(i) if i % 3 != 1 else b"no picture", bytes([i])) for i in range(n_jobs)]
    there = decoders.Processes(DECODE)
    found = there(jobs)
    assert len(shared_memory()) == math.ceil(n_jobs / decoders.PART)  # mapped while the pixels are there
    same(DECODE(jobs), found)
    del found
    assert not shared_memory()
    monkeypatch.delattr(os, "memfd_create")
    same(DECODE(jobs), there(jobs))


@pytest.mark.usefixtures("processes")
def test_a_file_is_read_by_the_process_or_as_the_catalog_reads_it(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(photo(0))
    (tmp_path / "changed.png").write_bytes(photo(1))
    asked = []

    def read(answer: bytes | OSError) -> bytes:
        asked.append(answer)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def file(name: str, holds: bytes, answer: bytes | OSError) -> tuple[decoders.File, bytes]:
        digest = blake3(holds).digest()
        return decoders.File(str(tmp_path / name), digest, functools.partial(read, answer)), b""

    gone = FileNotFoundError(2, "No such file or directory")
    jobs = [
        file("0.png", photo(0), b"not asked for"),
        file("changed.png", photo(2), photo(3)),
        file("none.png", photo(4), gone),
        file("none.png", photo(4), photo(5)),
    ]
    same(
        decoders.Processes(DECODE)(jobs), [*DECODE([(photo(i), b"") for i in (0, 3)]), gone, *DECODE([(photo(5), b"")])]
    )
    assert asked == [photo(3), gone, photo(5)]


def test_a_job_names_a_file_for_processes_alone_and_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(photo(0))
    shown = Photo("0.png", "a", "train", blake3(photo(0)).digest())
    catalog = Catalog("x", "folders", (shown,), ("a",), lambda _: photo(0), file=lambda _: str(tmp_path / "0.png"))
    there = decoders.Processes(DECODE)
    assert decoders.bytes_or_file(DECODE, catalog, shown) == photo(0)
    assert decoders.bytes_or_file(there, dataclasses.replace(catalog, file=lambda _: None), shown) == photo(0)
    named = decoders.bytes_or_file(there, catalog, shown)
    assert isinstance(named, decoders.File)
    assert named.read is not None
    assert named.read() == photo(0)


def test_nothing_is_written_where_the_memory_is_gone_and_its_number_is_anothers(tmp_path: Path) -> None:
    kept = tmp_path / "features"
    kept.write_bytes(b"of someone else")
    with decoders._shared() as memory:
        name = decoders._name(memory)
    with open(kept, "r+b") as other:
        assert name == (f"/proc/{os.getpid()}/fd/{other.fileno()}", name[1])  # the number is given again
        same(decoders._into(name, DECODE, [(photo(0), b"")]), DECODE([(photo(0), b"")]))
    assert kept.read_bytes() == b"of someone else"


def of_two_sizes(jobs: Sequence[tuple[int]]) -> list[np.ndarray]:
    return [np.full((2, number, 3), number, np.uint8) for (number,) in jobs]


@pytest.mark.usefixtures("processes")
def test_pictures_of_several_sizes_come_back_too() -> None:
    same(of_two_sizes([(1,), (2,)]), decoders.Processes(of_two_sizes)([(1,), (2,)]))


@pytest.mark.usefixtures("processes")
def test_files_come_back_beside_pixels_and_reasons(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "0.jpg")
    jpeg = (tmp_path / "0.jpg").read_bytes()
    jobs = [
        (decoders.File(str(tmp_path / "0.jpg"), blake3(jpeg).digest()), SQUARE, 3), (photo(1), SQUARE, 4),
        (b"none", SQUARE, 5), (jpeg, SQUARE, 3), (jpeg, SQUARE, None),
    ]  # fmt: skip
    first, pixels, reason, last, plain = decoders.Processes(functools.partial(augmented_files, "crop"))(jobs)
    for file in (first, last):
        assert isinstance(file, Jpeg)
        assert bytes(file.data) == jpeg
    same([pixels, reason, plain], augmented_each("crop", [jobs[1], jobs[2], jobs[4]]))


@pytest.mark.usefixtures("processes")
def test_threads_that_ask_at_once_are_given_the_same_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from joblib.externals import loky

    made, begun = [], loky.ProcessPoolExecutor

    def slowly(*arguments: Any, **settings: Any) -> Any:
        made.append(1)
        time.sleep(0.05)
        return begun(*arguments, **settings)

    monkeypatch.setattr(loky, "ProcessPoolExecutor", slowly)
    with ThreadPoolExecutor(16) as threads:
        pools = [*threads.map(lambda _: decoders.executor(), range(16))]
    assert len(made) == 1
    assert len(set(map(id, pools))) == 1


def slain(jobs: Sequence[object]) -> list[np.ndarray]:
    """Kills the process that it runs in, and does its work in the one that is left."""
    if os.getpid() != int(os.environ["REHEAD_TEST_PARENT"]):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return [np.zeros((1, 1, 3), np.uint8) for _ in jobs]


@pytest.mark.usefixtures("processes")
def test_photos_are_decoded_here_when_the_processes_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEAD_TEST_PARENT", str(os.getpid()))
    assert len(decoders.Processes(slain)([(b"",)] * (decoders.PART + 1))) == decoders.PART + 1
    assert len(decoders.Processes(DECODE)([(photo(0), b"0")])) == 1  # by new ones
    assert not shared_memory()


def test_they_are_used_beside_a_device_alone_on_many_photos_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "n_cores", lambda: 16)
    assert decoders.beside("cpu", 1_000_000, DECODE) is DECODE
    assert decoders.beside("cuda", 100, DECODE) is DECODE
    assert decoders.beside("cuda", 100_000, DECODE) is not DECODE
    monkeypatch.setattr(decoders, "n_cores", lambda: 4)
    assert decoders.beside("cuda", 100_000, DECODE) is DECODE
