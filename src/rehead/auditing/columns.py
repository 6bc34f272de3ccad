"""What is not the picture, as columns of small integers: a photo's file, and the edges of its frame.

A number falls into one of N_BINS bins with as many photos each, a word into its own; what a photo does not have is a bin too.
Labels are not looked at here. What can be told from the columns is `probe.py`'s.
"""

from __future__ import annotations

import datetime
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.facts import Facts
from rehead.data.catalog import Catalog

N_BINS = 16
EDGES = ("top edge", "right edge", "bottom edge", "left edge")
Value = float | str | None
Codes = NDArray[np.int64]  # (n,), 0 and up


def file_fields(catalog: Catalog, positions: Sequence[int], facts: Mapping[int, Facts]) -> dict[str, list[Codes]]:
    """By the field's name its column, one number a photo; without fields that are the same for all photos."""
    rows = [facts[i] for i in positions]
    values: dict[str, Sequence[Value]] = {
        "file size": [fact.n_bytes for fact in rows],
        "width": [fact.width for fact in rows],
        "height": [fact.height for fact in rows],
        "shape": [fact.width / fact.height for fact in rows],
        "bytes per pixel": [fact.n_bytes / (fact.width * fact.height) for fact in rows],
        "JPEG quality": [fact.quality for fact in rows],
        "file format": [fact.format for fact in rows],
        "camera": [fact.camera for fact in rows],
        "date taken": [fact.taken for fact in rows],
        "file date": _file_dates(catalog, positions),
        "folder order": _folder_order(catalog, positions),
    }
    columns = {name: [binned(column)] for name, column in values.items()}
    return {name: column for name, column in columns.items() if column[0].any()}


def edge_fields(rings: Sequence[Sequence[float]]) -> dict[str, list[Codes]]:
    """By the edge's name its columns: red, green, blue and spread. rings: `Facts.border` or `Facts.inside` of each photo."""
    numbers = np.array(rings, np.float64).reshape(len(rings), len(EDGES), -1)
    return {name: [binned(numbers[:, e, c].tolist()) for c in range(numbers.shape[2])] for e, name in enumerate(EDGES)}


def binned(values: Sequence[Value]) -> Codes:
    """A bin for each value, all 0 where they are alike."""
    if any(isinstance(value, str) for value in values):
        common = [value for value, _ in Counter(values).most_common(N_BINS)]
        return np.array([common.index(value) if value in common else len(common) for value in values], np.int64)
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    known = np.unique(numbers[np.isfinite(numbers)])
    if len(known) <= N_BINS:
        codes = np.searchsorted(known, numbers)
    else:
        edges = np.unique(np.nanquantile(numbers, np.arange(1, N_BINS) / N_BINS))
        codes = np.searchsorted(edges, numbers, side="right")
    codes[~np.isfinite(numbers)] = codes.max() + 1 if len(known) else 0
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _file_dates(catalog: Catalog, positions: Sequence[int]) -> list[Value]:
    """The day on which each file last changed: hours are those of copying."""
    return [_day(catalog.file(catalog.photos[i])) for i in positions]


def _day(file: str | None) -> Value:
    try:
        return float(datetime.date.fromtimestamp(os.stat(file).st_mtime).toordinal()) if file is not None else None
    except (OSError, ValueError, OverflowError):
        return None


def _folder_order(catalog: Catalog, positions: Sequence[int]) -> list[Value]:
    """The place of each photo, 0..1, among those of its folder by the last number in their names, where classes share it.

    By the number alone: words in a name may be those of the class. None where there is none, or a folder of its own.
    """
    members: dict[str, list[int]] = defaultdict(list)
    numbers = [_number(catalog.photos[i].path) for i in positions]
    for row, i in enumerate(positions):
        if numbers[row] is not None:
            members[str(PurePosixPath(catalog.photos[i].path).parent)].append(row)
    places: list[Value] = [None] * len(positions)
    for rows in members.values():
        if len({catalog.photos[positions[row]].label for row in rows}) > 1:
            for place, row in enumerate(sorted(rows, key=lambda row: (numbers[row] or 0, positions[row]))):
                places[row] = place / len(rows)
    return places


def _number(path: str) -> int | None:
    found = re.findall(r"[0-9]{1,18}", PurePosixPath(path).stem)
    return int(found[-1]) if found else None
