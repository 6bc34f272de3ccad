"""What is put is read back: through growth, several writers, kills, full disks and damage. And what clearing frees."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from disks import fill, small_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rehead.errors import DiskFull, StoreError
from rehead.features import store as store_module
from rehead.features.cache import default_cache_folder, list_stores, other_bytes
from rehead.features.clearing import clear
from rehead.features.room import named, shortage
from rehead.features.store import LARGEST, Store

WIDTH = 1280
STORE, OTHER = (32 * digit + "-plain-fp32" for digit in "56")
WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from rehead.features.store import Store
cache, first, last, batch = Path(sys.argv[1]), *map(int, sys.argv[2:])
with Store.open(cache, 32 * "5" + "-plain-fp32", shape=(1280,), about={"backbone": "b"}) as store:
    for i in range(first, last, batch):
        numbers = range(i, min(i + batch, last))
        store.put([(hashlib.sha256(b"%d" % n).digest(), np.full(1280, n % 2048, np.float32)) for n in numbers])
        print(numbers[-1], flush=True)
"""


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def rows(first: int, last: int) -> list[tuple[bytes, Any]]:
    return [(digest(n), np.full(WIDTH, n % 2048, np.float32)) for n in range(first, last)]


def opened(cache: Path, identity: str = STORE, shape: tuple[int, ...] = (WIDTH,), backbone: str = "b") -> Store:
    return Store.open(cache, identity, shape=shape, about={"backbone": backbone})


def writer(cache: Path, first: int, last: int, batch: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", WRITER, *map(str, (cache, first, last, batch))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@given(
    st.data(),
    st.sampled_from([(1,), (7,), (1280,), (3, 2, 2)]),
    st.dictionaries(st.binary(min_size=16, max_size=32), st.integers(0, 99), min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_what_is_put_is_read_back_in_float16(data: st.DataObject, shape: tuple[int, ...], keys: dict[bytes, int]):
    numbers = st.floats(-(2.0**20), 2.0**20, width=32)
    values = {key: data.draw(arrays(np.float32, shape, elements=numbers)) for key in keys}
    order = data.draw(st.permutations(sorted(keys)))
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), shape=shape) as store:
        store.put(values.items())
        read = store.read(order)
        assert read.dtype == np.float32
        assert read.flags.c_contiguous
        expected = np.stack([np.clip(values[key], -LARGEST, LARGEST) for key in order]).astype(np.float16)
        np.testing.assert_array_equal(read, expected.astype(np.float32))


def test_features_come_in_the_order_asked_also_twice(tmp_path: Path):
    order = [5, 0, 9, 9, 3]
    with opened(tmp_path) as store:
        store.put(rows(0, 10))
        assert store.read([digest(n) for n in order])[:, 0].tolist() == order
        assert store.read([]).shape == (0, WIDTH)


def test_missing_are_exactly_those_without_features_in_their_order(tmp_path: Path):
    with opened(tmp_path) as store:
        store.put(rows(0, 10))
        asked = random.Random(0).sample(range(20), 20)
        assert store.missing([digest(n) for n in asked]) == [digest(n) for n in asked if n >= 10]


def test_absent_features_are_an_error_that_names_the_photo(tmp_path: Path):
    with (
        opened(tmp_path) as store,
        pytest.raises(StoreError, match=f"no features for the photo {digest(1).hex()[:16]}"),
    ):
        store.read([digest(1)])


def test_nan_is_refused_and_nothing_of_the_batch_is_kept(tmp_path: Path):
    with opened(tmp_path) as store:
        with pytest.raises(StoreError, match=digest(99).hex()[:16]):
            store.put([*rows(0, 3), (digest(99), np.full(WIDTH, np.nan))])
        assert len(store.missing([digest(n) for n in range(3)])) == 3


def test_features_of_another_shape_are_refused(tmp_path: Path):
    with opened(tmp_path) as store, pytest.raises(StoreError, match="do not fit"):
        store.put([(digest(0), np.zeros(3))])


def test_infinite_and_large_numbers_are_clipped(tmp_path: Path):
    with opened(tmp_path, shape=(3,)) as store:
        store.put([(digest(0), np.array([np.inf, -1e9, 1.0]))])
        assert store.read([digest(0)]).tolist() == [[65504.0, -65504.0, 1.0]]


def test_a_store_grows_past_its_first_map(tmp_path: Path):
    with opened(tmp_path) as store:
        for first in range(0, 20_000, 5000):  # 82 MB
            store.put(rows(first, first + 5000))
        assert (tmp_path / "features" / STORE / "data.mdb").stat().st_size > store_module.FIRST_MAP_BYTES
        assert store.read([digest(n) for n in range(20_000)])[:, -1].tolist() == [n % 2048 for n in range(20_000)]


def test_a_store_that_another_process_grew_is_read_and_written(tmp_path: Path):
    with opened(tmp_path) as store:
        with writer(tmp_path, 0, 20_000, 5000) as process:
            process.communicate(timeout=120)
        assert store.missing([digest(n) for n in range(20_001)]) == [digest(20_000)]
        store.put(rows(20_000, 20_001))
        assert len(store.read([digest(19_999), digest(20_000)])) == 2


def test_two_processes_write_one_store_at_once(tmp_path: Path):
    with writer(tmp_path, 0, 12_000, 400) as first, writer(tmp_path, 10_000, 22_000, 400) as second:
        first.communicate(timeout=120)
        second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0)
    with opened(tmp_path) as store:
        assert store.read([digest(n) for n in range(22_000)])[:, 0].tolist() == [n % 2048 for n in range(22_000)]


def test_threads_share_a_store_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "FIRST_MAP_BYTES", 1 << 20)
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            with opened(tmp_path) as store:
                for i in range(first, first + 1000, 50):
                    store.put(rows(i, i + 50))
                    assert store.read([digest(n) for n in range(first, i + 50)])[-1, 0] == (i + 49) % 2048
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(1000 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with opened(tmp_path) as store:
        assert store.missing([digest(n) for n in range(4001)]) == [digest(4000)]


def test_two_stores_in_one_process_are_one(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    with opened(tmp_path) as first:
        with opened(tmp_path / "link") as second:
            second.put(rows(0, 1))
        assert first.missing([digest(0)]) == []
    assert not store_module._open


def test_killed_at_any_moment_all_that_was_committed_is_there(tmp_path: Path):
    random_s = random.Random(1)
    done = 0
    for _ in range(10):
        with writer(tmp_path, done, 1_000_000, 20) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random_s.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            last = [line for line in process.stdout.read().split("\n") if line]
        with opened(tmp_path) as store:
            done = int(last[-1]) + 1 if last else done + 20
            assert store.read([digest(n) for n in range(done)])[:, 0].tolist() == [n % 2048 for n in range(done)]
    assert done > 200


def test_a_full_disk_says_how_much_was_needed_and_keeps_what_was_there(tmp_path: Path):
    with small_disk(tmp_path / "disk", "size=8m") as disk, opened(disk) as store:
        store.put(rows(0, 100))
        with pytest.raises(DiskFull, match=r"16\.8 MB were needed for features; \d\.\d MB are free") as caught:
            store.put(rows(100, 4100))
        clearing = f"`rehead cache clear --cache {disk}`"
        assert caught.value.fix == f"Free some with {clearing}, or keep features elsewhere with --cache DIR."
        assert str(disk) in caught.value.what
        assert store.missing([digest(n) for n in range(101)]) == [digest(100)]
        with pytest.raises(DiskFull):
            store.read([digest(0)] * 10_000, memory_limit_bytes=0)
        store.put(rows(100, 110))
        clear(disk)


def test_a_disk_that_fills_up_during_a_write_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "_check_room", lambda *_: None)  # as when another program fills it
    with small_disk(tmp_path / "disk", "size=8m") as disk, opened(disk) as store:
        store.put(rows(0, 100))
        for _ in range(3):
            with pytest.raises(DiskFull):
                store.put(rows(100, 4100))
        monkeypatch.undo()
        store.put(rows(100, 1000))  # in what the failed write has left
        assert len(store.read([digest(n) for n in range(1000)])) == 1000


def test_on_a_full_disk_a_store_is_read_and_a_new_one_refused(tmp_path: Path):
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        with opened(disk) as store:
            store.put(rows(0, 100))
        fill(disk)
        with opened(disk) as store:
            assert len(store.read([digest(n) for n in range(100)])) == 100
        with pytest.raises(DiskFull, match=r"1\.0 MB were needed"):
            opened(disk, "new")


def test_a_disk_too_full_for_a_folder_is_named_so(tmp_path: Path):
    with (
        small_disk(tmp_path / "disk", "nr_inodes=1") as disk,
        pytest.raises(DiskFull, match=r"were needed for features"),
    ):
        opened(disk)


def test_a_disk_that_cannot_be_written_is_refused(tmp_path: Path):
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StoreError, match=r"cannot be written") as caught:
            opened(disk)
    assert "--cache DIR" in caught.value.fix


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="Features cannot be kept in") as caught:
        opened(tmp_path / os.fsdecode(b"c\xe4che"))
    assert caught.value.fix == "Name another folder with --cache DIR."


def test_a_file_in_the_place_of_the_cache_is_refused(tmp_path: Path):
    (tmp_path / "cache").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        opened(tmp_path / "cache")


@pytest.mark.parametrize("keep", [100, 8192, 0.5, -4096])
def test_a_truncated_file_is_refused_and_mended_by_clearing(tmp_path: Path, keep: float):
    with opened(tmp_path) as store:
        store.put(rows(0, 500))
    file = tmp_path / "features" / STORE / "data.mdb"
    size = file.stat().st_size
    os.truncate(file, int(size * keep) if isinstance(keep, float) else keep if keep > 0 else size + keep)
    with pytest.raises(StoreError, match="is damaged") as caught:
        opened(tmp_path)
    assert str(file.parent) in caught.value.what
    assert f"`rehead cache clear --cache {tmp_path}`" in caught.value.fix
    assert [facts.backbone for facts in list_stores(tmp_path)] == ["b"]
    assert clear(tmp_path).kept_in_use == 0
    with opened(tmp_path) as store:
        assert len(store.missing([digest(0)])) == 1


def test_a_store_that_is_removed_while_it_is_open_says_so(tmp_path: Path):
    with opened(tmp_path) as store:
        store.put(rows(0, 3))
        shutil.rmtree(tmp_path / "features")
        for use in (lambda: store.put(rows(3, 6)), lambda: store.has([digest(0)])):
            with pytest.raises(StoreError, match="was removed while it was in use"):
                use()


def test_a_file_of_noise_is_refused(tmp_path: Path):
    folder = tmp_path / "features" / STORE
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(random.Random(0).randbytes(50_000))
    with pytest.raises(StoreError, match="is damaged"):
        opened(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much is mapped")
def test_a_limit_of_memory_is_not_called_damage(tmp_path: Path):
    import resource

    with opened(tmp_path) as store:
        store.put(rows(0, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + store_module.FIRST_MAP_BYTES // 2, hard))
    try:
        with pytest.raises(StoreError, match="cannot be used") as caught:
            opened(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "Cannot allocate memory" in caught.value.why
    assert "ulimit -v" in caught.value.fix


def test_a_map_that_cannot_grow_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Full:
        """An environment that is full, and cannot be mapped larger."""

        def __init__(self, environment: Any) -> None:
            self.info = environment.info

        def begin(self, **_: Any) -> Any:
            raise lmdb.MapFullError

        def set_mapsize(self, _: int) -> None:
            raise lmdb.MemoryError("mdb_env_set_mapsize: Cannot allocate memory")

    with opened(tmp_path) as store:
        monkeypatch.setattr(store._shared, "environment", Full(store._shared.environment))
        with pytest.raises(StoreError, match="cannot be used"):
            store.put(rows(0, 3))
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [(lmdb.CorruptedError("page 7"), "is damaged", "rehead cache clear"),
     (lmdb.Error("mdb_env_open: No locks available"), "cannot be used", "a disk of this machine"),
     (lmdb.Error("mdb_env_open: Too many open files"), "cannot be used", "`ulimit -n`"),
     (lmdb.ReadersFullError("MDB_READERS_FULL"), "cannot be used", "Wait for other jobs"),
     (lmdb.LockError("mdb_txn_begin: Resource temporarily unavailable"), "the same number", "--pid=host")],
)  # fmt: skip
def test_what_the_store_meets_is_told_apart(tmp_path: Path, error: lmdb.Error, what: str, fix: str):
    told = named(tmp_path, error, 0)
    assert what in told.what
    assert fix in told.fix


def test_a_process_with_the_same_number_in_another_container_is_named(tmp_path: Path):
    apart = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("numbering processes anew takes the rights of root")
    command = [*apart, sys.executable, "-c", WRITER, str(tmp_path), "0", "1000000", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        first.stdout.readline()
        try:
            second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        finally:
            first.kill()
    assert "a process with the same number uses it" in second.stderr


def test_above_the_limit_features_are_a_map_on_a_file_without_a_name(tmp_path: Path):
    with opened(tmp_path) as store:
        store.put(rows(0, 100))
        names = sorted(os.listdir(store.folder))
        mapped = store.read([digest(n) for n in range(100)], memory_limit_bytes=4 * 100 * WIDTH - 1)
        assert isinstance(mapped, np.memmap)
        assert (mapped.dtype, mapped.shape) == (np.float16, (100, WIDTH))
        assert sorted(os.listdir(store.folder)) == names
    assert mapped[:, 7].tolist() == list(range(100))


def test_stores_are_listed_with_their_facts(tmp_path: Path):
    before = time.time()
    with opened(tmp_path, backbone="resnet50") as store:
        store.put(rows(0, 30))
        (facts,) = list_stores(tmp_path)
        assert (facts.identity, facts.backbone, facts.photos) == (STORE, "resnet50", 30)
        assert facts.size_bytes > 30 * 2 * WIDTH
        assert before - 1 <= facts.last_used <= time.time() + 1
    assert list_stores(tmp_path)[0].photos == 30
    assert list_stores(tmp_path / "nowhere") == []


def aged(cache: Path, identity: str, backbone: str, age_s: float) -> Path:
    with opened(cache, identity, backbone=backbone) as store:
        store.put(rows(0, 1))
    about = store.folder / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "last_used": time.time() - age_s}))
    return store.folder


def test_clearing_by_backbone_takes_its_features_and_its_exported_network(tmp_path: Path):
    kept, gone = aged(tmp_path, STORE, "vit_small", 0), aged(tmp_path, OTHER, "resnet50", 0)
    for key, name in ((32 * "a", "vit_small"), (f"{32 * 'b'}-int8-1-1.20.1", "resnet50")):
        (tmp_path / "prefixes" / key).mkdir(parents=True)
        (tmp_path / "prefixes" / key / "card.json").write_text(json.dumps({"name": name}))
    (tmp_path / "archives" / (64 * "a")).mkdir(parents=True)
    assert clear(tmp_path, backbone="resnet*").freed_bytes > 0
    assert (kept.exists(), gone.exists()) == (True, False)
    assert os.listdir(tmp_path / "prefixes") == [32 * "a"]
    assert (tmp_path / "archives" / (64 * "a")).exists()


def test_clearing_by_age_keeps_what_was_used_since(tmp_path: Path):
    kept, gone = aged(tmp_path, STORE, "b", 100), aged(tmp_path, OTHER, "b", 10_000)
    clear(tmp_path, older_than_s=1000)
    assert (kept.exists(), gone.exists()) == (True, False)


def test_clearing_all_takes_archives_and_what_killed_jobs_left_over(tmp_path: Path):
    aged(tmp_path, STORE, "b", 0)
    (tmp_path / "archives" / (64 * "a")).mkdir(parents=True)
    (tmp_path / "archives" / (64 * "a") / "photo").write_bytes(bytes(10_000))
    fresh, old = (tmp_path / "archives" / f".{name}.{uuid.uuid4().hex[:12]}.part" for name in ("fresh", "old"))
    fresh.mkdir()
    old.mkdir()
    os.utime(old, (0, 0))
    assert other_bytes(tmp_path) >= 10_000
    assert clear(tmp_path).freed_bytes > 10_000 + 2 * WIDTH
    assert os.listdir(tmp_path / "features") == []
    assert os.listdir(tmp_path / "archives") == [fresh.name]  # a job may be filling it


def test_a_store_in_use_is_kept_whoever_uses_it(tmp_path: Path):
    with opened(tmp_path) as store:
        assert clear(tmp_path) == clear(tmp_path)
        assert clear(tmp_path).kept_in_use == 1
        store.put(rows(0, 1))
    with writer(tmp_path, 0, 1_000_000, 10) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert clear(tmp_path).kept_in_use == 1
        process.kill()
    assert clear(tmp_path).kept_in_use == 0
    assert list_stores(tmp_path) == []


def test_clearing_while_a_process_opens_and_closes_loses_nothing_it_holds(tmp_path: Path):
    ended = time.monotonic() + 1.0
    with contextlib.ExitStack() as clearing:
        stop = threading.Event()

        def keep_clearing() -> None:
            while not stop.is_set():
                clear(tmp_path)

        for thread in [threading.Thread(target=keep_clearing) for _ in range(2)]:
            thread.start()
            clearing.callback(thread.join)
        clearing.callback(stop.set)
        while time.monotonic() < ended:
            with opened(tmp_path) as store:
                store.put(rows(0, 3))
                assert store.missing([digest(n) for n in range(3)]) == []


def test_the_cache_is_where_the_environment_says(tmp_path: Path):
    assert default_cache_folder({"REHEAD_CACHE": str(tmp_path)}) == tmp_path
    if sys.platform == "linux":
        assert default_cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/rehead")
        assert default_cache_folder({}) == Path.home() / ".cache" / "rehead"


def test_a_store_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import rehead.features.store, rehead.features.cache"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("needed", "free", "words"),
    [(16.8e6, 7.9e6, "16.8 MB were needed for features; 7.9 MB are free."),
     (204_000, 196_000, "0.204 MB"), (200_100, 199_900, "0.2001 MB were needed for features; 0.1999 MB are free.")],
)  # fmt: skip
def test_what_is_needed_and_what_is_free_are_told_apart(needed: float, free: float, words: str):
    text = shortage(int(needed), int(free), "features")
    assert text.startswith(words)
    assert len({word for word in text.split() if word[0].isdigit()}) == 2
