"""Extraction: the same features, reasons and order by threads and by processes, and what the writing thread meets is told."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos

from rehead.auditing.kept import facts_of_photos
from rehead.cluster.computing import _read as read_here
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import StoreError
from rehead.features import decoders
from rehead.features import extract as extraction
from rehead.features.extract import Extracted, by_engine, extract
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.pixels import Preprocess
from rehead.progress import Silent

SQUARE = Preprocess(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DECODE = functools.partial(stored_views, PLAIN, SQUARE)


class Corners:
    """An engine whose features are the four corners of a photo."""

    name, version, precision, workers, batch = "corners", "1", "fp32", 3, 4

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[:, ::31, ::31].reshape(len(pixels), 12).astype(np.float32)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """40 photos, of which one is damaged since it was looked at, and one is gone."""
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    found = scan(open_source(photos, cache=tmp_path), seed=0, valid_fraction=0.2)
    (photos / "red" / "3.png").write_bytes(b"\x89PNG no more")
    (photos / "blue" / "7.png").unlink()
    return found


@pytest.fixture
def processes() -> Iterator[None]:
    yield
    pool = decoders.executor()
    decoders.forget(pool)
    pool.shutdown(wait=True, kill_workers=True)


def extracted(catalog: Catalog, store: Store, decode: Any) -> tuple[Extracted, list[int], np.ndarray]:
    told: list[tuple[list[int], np.ndarray]] = []
    positions = range(len(catalog.photos))
    done = extract(
        catalog, positions, by_engine(catalog, positions, Corners(), decode), store=store, progress=Silent(), max_bad=0.2,
        stop=lambda: False, on_features=lambda *one: told.append(one),
    )  # fmt: skip
    return done, [i for positions, _ in told for i in positions], np.concatenate([rows for _, rows in told])


@pytest.mark.usefixtures("processes")
def test_features_reasons_and_order_are_the_same_by_threads_and_by_processes(catalog: Catalog, tmp_path: Path) -> None:
    found = []
    for name, decode in (("threads", DECODE), ("processes", decoders.Processes(DECODE))):
        with Store.open(tmp_path, name, shape=(12,), about={}) as store:
            done, positions, rows = extracted(catalog, store, decode)
            kept = store.read([catalog.photos[i].digest for i in positions])
        np.testing.assert_array_equal(kept, rows)
        found.append((done, positions, rows))
    (by_threads, order, wanted), (by_processes, other_order, rows) = found
    assert by_processes == by_threads
    assert other_order == order == [i for i in range(40) if i not in by_threads.bad]
    np.testing.assert_array_equal(rows, wanted)
    reasons = sorted((skip.path, skip.reason) for skip in by_threads.bad.values())
    assert [path for path, _ in reasons] == ["blue/7.png", "red/3.png"]
    assert reasons[0][1] == "cannot be read: No such file or directory"


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("way", ["threads", "processes", "far", "cluster"])
def test_a_photo_that_changed_since_it_was_looked_at_is_left_out(tmp_path: Path, way: str) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 10, "blue": 10, "green": 1})
    catalog = scan(open_source(photos, cache=tmp_path), seed=0, valid_fraction=0.2, is_learned=False)
    (photos / "green" / "0.png").replace(photos / "red" / "3.png")
    [i] = [i for i, photo in enumerate(catalog.photos) if photo.path == "red/3.png"]
    if way == "far":
        catalog = replace(catalog, file=lambda _: None, uri=lambda photo: f"far://photos/{photo.path}")
    if way == "cluster":  # of what nodes cannot read the bytes are sent
        sent, bad = zip(*read_here(catalog, [i], threading.Event()), strict=True)
        assert sent == ({},)
        assert bad[0][i].reason == "is another picture than it was when the job began"
        return
    with Store.open(tmp_path, way, shape=(12,), about={}) as store:
        done, _, _ = extracted(catalog, store, decoders.Processes(DECODE) if way == "processes" else DECODE)
        assert store.missing(catalog.digests([i])) == [catalog.photos[i].digest]
    assert done.bad[i].reason == "is another picture than it was when the job began"
    facts, left_out = facts_of_photos(catalog, [i], tmp_path)
    assert (facts, left_out) == ({}, {i: done.bad[i]})


def test_what_the_thread_that_writes_cannot_write_stops_the_job(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "COMMIT_EVERY_S", -1.0)  # at each batch
    with Store.open(tmp_path, "small", shape=(11,), about={}) as store:
        told: list[int] = []
        with pytest.raises(StoreError):
            extract(
                catalog, range(40), by_engine(catalog, range(40), Corners(), DECODE), store=store, progress=Silent(),
                max_bad=0.2, stop=lambda: False, on_features=lambda positions, _: told.extend(positions),
            )  # fmt: skip
        assert len(told) < 38  # at once, not at the end


def test_features_of_a_job_that_is_broken_off_are_kept(catalog: Catalog, tmp_path: Path) -> None:
    class BrokenOff(Exception): ...

    def on_features(positions: list[int], _: np.ndarray) -> None:
        told.extend(positions)
        if len(told) > 10:
            raise BrokenOff

    told: list[int] = []
    with Store.open(tmp_path, "broken", shape=(12,), about={}) as store:
        with pytest.raises(BrokenOff):
            extract(
                catalog, range(40), by_engine(catalog, range(40), Corners(), DECODE), store=store, progress=Silent(),
                max_bad=0.2, stop=lambda: False, on_features=on_features,
            )  # fmt: skip
        assert not store.missing([catalog.photos[i].digest for i in told])


def test_photos_far_away_are_read_ahead_and_give_the_same(catalog: Catalog, tmp_path: Path) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def late(photo: Photo) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return catalog.read(photo)

    there = replace(catalog, read=late, file=lambda _: None, uri=lambda photo: f"far://photos/{photo.path}")
    found = []
    for name, photos in (("near", catalog), ("far", there)):
        with Store.open(tmp_path / name, "corners", shape=(12,), about={}) as store:
            done, positions, features = extracted(photos, store, DECODE)
        found.append((done.done, {i: skip.reason for i, skip in done.bad.items()}, positions, features.tobytes()))
    assert found[0] == found[1]
    assert most > 2 * Corners.workers


def test_while_one_photo_is_slow_no_more_are_held_than_there_is_room_for(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(catalog.read(catalog.photos[1]))
    monkeypatch.setattr("rehead.features.extract.AHEAD_BYTES", 3 * size)
    monkeypatch.setattr("rehead.data.far.n_readers", lambda: 4)
    begun: list[str] = []
    n_begun_meanwhile = 0

    def late(photo: Photo) -> bytes:
        nonlocal n_begun_meanwhile
        begun.append(photo.path)
        if photo == catalog.photos[0]:
            time.sleep(1)
            n_begun_meanwhile = len(begun)
        return catalog.read(photo)

    there = replace(catalog, read=late, file=lambda _: None, uri=lambda photo: f"far://photos/{photo.path}")
    assert len(catalog.photos) > 16
    with Store.open(tmp_path / "store", "corners", shape=(12,), about={}) as store:
        done, _, _ = extracted(there, store, DECODE)
    assert done.done + len(done.bad) == len(catalog.photos)
    assert 4 < n_begun_meanwhile <= 12


def test_nothing_is_read_any_more_once_it_is_to_end(catalog: Catalog) -> None:
    read: list[str] = []
    there = replace(
        catalog, read=lambda photo: (read.append(photo.path), catalog.read(photo))[1], uri=lambda photo: photo.path
    )
    halted = threading.Event()
    halted.set()
    batches = list(by_engine(there, range(40), Corners(), DECODE)(halted))
    assert read == []
    assert all(features is None for _, features, _ in batches)
