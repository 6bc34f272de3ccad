"""Work on a catalog grows with the photos, not with their square."""

from __future__ import annotations

import time
from pathlib import Path

from rehead.data.catalog import Catalog
from rehead.data.rows import Row, Source
from rehead.data.scan import scan

HEAD = b"\x89PNG\r\n\x1a\n" + b"\0" * 60


def scanned(n: int) -> tuple[Catalog, float]:
    rows = [Row(f"{i}.png", "ab"[i % 2]) for i in range(n)]
    source = Source("many", "folders", rows, lambda row: HEAD + row.path.encode(), [], Path())
    begun = time.process_time()
    catalog = scan(source, seed=0, valid_fraction=0.2)
    return catalog, time.process_time() - begun


def test_twenty_times_the_photos_take_about_twenty_times_as_long() -> None:
    scanned(500)
    _, few = scanned(1_000)
    catalog, many = scanned(20_000)
    assert len(catalog.photos) == 20_000
    assert many < 100 * max(few, 0.01)  # the square would be 400 times
