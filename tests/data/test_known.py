"""A file that did not change is not read again; one that did always is; an index that is broken costs time only."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_photos

from rehead.data.catalog import Catalog
from rehead.data.known import FILE, open_known
from rehead.data.rows import Row
from rehead.data.scan import scan
from rehead.data.sources import open_source

LONG_AGO = time.time() - 3600


def scanned(folder: Path, cache: Path) -> tuple[Catalog, list[str]]:
    """The catalog, and the paths of the files that were read for it."""
    source, read = open_source(folder, cache=cache), []

    def noted(row: Row) -> bytes:
        read.append(row.path)
        return source.read(row)

    return scan(replace(source, read=noted), seed=0, valid_fraction=0.3, cache=cache), read


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("rehead.data.known.RACY_S", 0.0)  # files of this very moment are remembered too
    return make_photos(tmp_path / "photos", {"red": 10, "blue": 10})


def test_a_second_scan_reads_nothing_and_finds_the_same(photos: Path, tmp_path: Path) -> None:
    first, read = scanned(photos, tmp_path)
    assert len(read) == 20
    second, read = scanned(photos, tmp_path)
    assert read == []
    assert second.photos == first.photos


def test_a_file_with_other_content_of_the_same_size_and_date_is_read_again(photos: Path, tmp_path: Path) -> None:
    path = photos / "red" / "0.png"
    os.utime(path, (LONG_AGO, LONG_AGO))
    first, _ = scanned(photos, tmp_path)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    time.sleep(0.02)  # a tick of the disk's clock
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))
    second, read = scanned(photos, tmp_path)
    assert read == ["red/0.png"]
    assert {p.path for p in second.photos if p not in first.photos} == {"red/0.png"}


def test_a_file_that_became_no_photo_is_left_out(photos: Path, tmp_path: Path) -> None:
    scanned(photos, tmp_path)
    (photos / "red" / "1.png").write_bytes(b"words")
    catalog, _ = scanned(photos, tmp_path)
    assert [skip.path for skip in catalog.skipped] == ["red/1.png"]


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehead.data.known.RACY_S", 3600.0)  # a moment, however slow the test
    photos = make_photos(tmp_path / "photos", {"red": 10, "blue": 10})
    scanned(photos, tmp_path)
    assert len(scanned(photos, tmp_path)[1]) == 20


@pytest.mark.parametrize("content", [b"no database", b""])
def test_a_damaged_index_costs_time_only(photos: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    catalog, read = scanned(photos, tmp_path)
    assert len(catalog.photos) == len(read) == 20


def test_where_no_index_can_be_all_is_read(photos: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with open_known(tmp_path) as known:
        assert known is None
    assert len(scanned(photos, tmp_path)[1]) == 20


def test_another_job_that_writes_is_not_waited_for_for_ever(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehead.data.known.WAIT_S", 0.05)
    scanned(photos, tmp_path)
    with open_known(tmp_path) as other:
        assert other is not None
        other._connection.execute("BEGIN EXCLUSIVE")
        catalog, _ = scanned(photos, tmp_path)
        other._connection.rollback()
    assert len(catalog.photos) == 20
