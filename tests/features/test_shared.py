"""Features that machines share: what a stranger put into the folder costs nothing but itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rehead.features.shared import Shared
from rehead.features.store import Store

ROW = np.ones(4, "<f2").tobytes()


def digest(n: int) -> bytes:
    return hashlib.sha256(b"%d" % n).digest()


@pytest.mark.parametrize("odd", [None, b"", b"short", digest(1) + b"long"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_of_no_photo_is_passed_over(tmp_path: Path, odd: bytes | None, place: int) -> None:
    digests: list[bytes | None] = [digest(0), digest(1)]
    digests.insert(place, odd)
    (tmp_path / "shared" / "s").mkdir(parents=True)
    table = pa.table({"digest": pa.array(digests, pa.binary()), "features": pa.array([ROW] * 3, pa.binary())})
    pq.write_table(table, tmp_path / "shared" / "s" / "part-1.parquet")
    shared = Shared(str(tmp_path / "shared"))
    with Store.open(tmp_path / "cache", "s", shape=(4,), about={}) as store:
        assert shared.fetch(store, [digest(0), digest(1), digest(2)]) == 2
        assert store.has([digest(0), digest(1), digest(2)]).tolist() == [True, True, False]
        assert shared.unreadable() == ["s/part-1.parquet"]
        assert shared.add(store, [digest(0), digest(1)]) == 0  # they are there


def test_what_comes_on_the_way_is_added_without_a_list_of_all_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, other = (Shared(str(tmp_path / "shared")) for _ in range(2))
    listed: list[object] = []
    names = Shared._names
    with Store.open(tmp_path / "cache", "s", shape=(4,), about={}) as store:
        digests = [digest(n) for n in range(40)]
        store.put((one, np.ones(4, np.float16)) for one in digests)
        assert other.add(store, digests[30:32]) == 2
        assert shared.fetch(store, digests) == 2
        monkeypatch.setattr(Shared, "_names", lambda self, of: listed.append(of) or names(self, of))
        for n in range(0, 20, 5):
            assert shared.add(store, digests[n : n + 5], lists=False) == 5
        assert shared.add(store, [*digests[:20], *digests[30:32]], lists=False) == 0
        assert len(listed) == 1
        assert other.add(store, digests[20:25]) == 5
        assert shared.add(store, digests) == 13
        rows = pa.concat_tables(pq.read_table(file) for file in (tmp_path / "shared" / "s").iterdir())
    assert sorted(rows["digest"].to_pylist()) == sorted(digests)
