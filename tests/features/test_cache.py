"""What is cleared of the cache and what is left: archives and exported networks that a job uses, or used lately."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
from conftest import make_photos
from disks import fill, small_disk

from rehead.data.in_use import InUse, mark_of
from rehead.data.known import FILE, open_known
from rehead.data.sources import open_source
from rehead.errors import StoreError
from rehead.exporting.prefixes import ready_prefix
from rehead.features import clearing
from rehead.features.cache import cache_folder, list_stores, other_bytes
from rehead.features.clearing import Cleared, clear
from rehead.features.engines import Prefix
from rehead.progress import Silent

DAY_S = 86_400.0
NOBODY = 65534  # who may not write what is of root


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Photos of two classes in a tar file, beside a file that is called as one of ours."""
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    with tarfile.open(tmp_path / "photos.tar", "w") as file:
        file.add(photos, ".")
        about = json.dumps({"last_used": time.time(), "name": "resnet18"}).encode()
        for name in ("about.json", "card.json"):
            info = tarfile.TarInfo(name)
            info.size = len(about)
            file.addfile(info, io.BytesIO(about))
    return tmp_path / "photos.tar"


def age(cache: Path, days: float) -> None:
    """All below the cache was touched so many days ago."""
    then = time.time() - days * DAY_S
    for path in sorted(cache.rglob("*"), reverse=True):
        os.utime(path, (then, then))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_a_cache_of_another_user_is_said(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir(mode=0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        for look in (list_stores, other_bytes, clear):
            with pytest.raises(StoreError) as caught:
                look(tmp_path)
            assert caught.value.what == f"{tmp_path / 'features'} cannot be listed."
            assert caught.value.why == "Permission denied."
    finally:
        os.seteuid(user)


def test_a_home_that_is_not_known_is_said() -> None:
    with pytest.raises(StoreError) as caught:
        cache_folder("~nosuchuser/cache")
    assert caught.value.what == "Where the cache folder lies is not known."
    assert "--cache DIR" in caught.value.fix


def test_a_journal_that_vanishes_while_it_is_counted_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "files-1.sqlite").write_bytes(bytes(100))
    (tmp_path / "files-1.sqlite-journal").symlink_to(tmp_path / "gone")
    assert other_bytes(tmp_path) == 100


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_half_a_copy_of_an_exported_network_is_made_anew(n_bytes: int, tmp_path: Path) -> None:
    def ready() -> Prefix:
        name = "efficientnet_lite0"
        return ready_prefix(name, weights=None, arguments={}, cut="pool", cache=tmp_path, progress=Silent())

    first = ready()
    whole = first.onnx.read_bytes()
    first.onnx.write_bytes(whole[:n_bytes])
    again = ready()
    assert again.onnx.read_bytes() == whole
    assert again.card == first.card == ready().card


def test_an_archive_is_kept_while_anybody_can_read_its_photos(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    source = open_source(archive, cache=cache)
    assert clear(cache) == Cleared(freed_bytes=0, kept_in_use=1, matched=1)
    joined = replace(source, skipped=[])  # as a job does
    del source
    assert clear(cache).kept_in_use == 1
    assert all(joined.read(row) for row in joined.rows)
    del joined
    assert clear(cache).kept_in_use == 0
    assert os.listdir(cache / "archives") == []


def test_what_another_process_uses_is_kept_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "prefixes" / ("a" * 32)
    folder.mkdir(parents=True)
    code = (
        "import sys, time; from pathlib import Path; from rehead.data.in_use import InUse\n"
        "used = InUse(Path(sys.argv[1])); print('used', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert clear(tmp_path).kept_in_use == 1
        process.kill()
    assert clear(tmp_path).kept_in_use == 0
    assert not folder.exists()


def test_an_exported_network_is_kept_while_a_job_has_it(tmp_path: Path) -> None:
    name = "efficientnet_lite0"
    ready = ready_prefix(name, weights=None, arguments={}, cut="pool", cache=tmp_path, progress=Silent())
    prefix = replace(ready, reference="onnxruntime")  # as a job does
    del ready
    assert clear(tmp_path, backbone=name).kept_in_use == 1
    assert prefix.onnx.is_file()
    del prefix
    assert clear(tmp_path, backbone=name) == Cleared(ANY, kept_in_use=0, matched=1)


def test_age_is_counted_from_the_last_use(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    open_source(archive, cache=cache)
    age(cache, 40)
    open_source(archive, cache=cache)  # which unpacks nothing
    assert clear(cache, older_than_s=30 * DAY_S).matched == 0
    age(cache, 40)
    assert clear(cache, older_than_s=30 * DAY_S).matched == 1  # its own about.json says that it was used now


def test_clearing_while_jobs_come_and_go_takes_nothing_from_them(tmp_path: Path) -> None:
    folder, ends = tmp_path / "archives" / ("a" * 64), time.monotonic() + 1.0
    lost: list[bool] = []

    def use() -> None:
        while time.monotonic() < ends:
            in_use = InUse(folder)
            folder.mkdir(parents=True, exist_ok=True)
            time.sleep(0.002)
            lost.append(not folder.exists())
            del in_use
            time.sleep(0.002)  # it may be cleared now, also where the machine has other work

    job = threading.Thread(target=use)
    job.start()
    n_cleared = 0
    while job.is_alive():
        done = clear(tmp_path)
        n_cleared += done.matched - done.kept_in_use
    job.join()
    assert not any(lost)
    assert n_cleared > 0


def test_where_no_mark_can_be_made_a_job_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    InUse(tmp_path / "file" / "a")
    assert not mark_of(tmp_path / "a").exists()


def test_clearing_all_leaves_nothing_to_count_but_empty_indices(tmp_path: Path) -> None:
    files = [(f"/photos/{i}.jpg", (1, 2, 3), bytes(32)) for i in range(2000)]
    with open_known(tmp_path) as known:
        assert known is not None
        known.remember(files)
        (tmp_path / "facts-1.sqlite").write_bytes(b"no database" * 1000)
        (tmp_path / "backbones" / "1.0").mkdir(parents=True)
        (tmp_path / "backbones" / "1.0" / "resnet18.json").write_bytes(bytes(10_000))
        before = other_bytes(tmp_path)
        assert before > 100_000
        assert clear(tmp_path, backbone="resnet18").matched == 0
        assert clear(tmp_path, older_than_s=DAY_S).matched == 0
        assert clear(tmp_path).matched == 3
        assert other_bytes(tmp_path) < 20_000
        assert known.look([(files[0][0], files[0][1])])[0].digest is None
        known.remember(files[:1])  # a job that has it open goes on
        assert known.look([(files[0][0], files[0][1])])[0].digest == bytes(32)


def test_other_files_in_the_folder_of_the_cache_are_left_alone(tmp_path: Path) -> None:
    """`--cache .` is a folder of the user's."""
    own = tmp_path / "app.sqlite"
    with contextlib.closing(sqlite3.connect(own)) as connection, connection:
        connection.execute("CREATE TABLE people (name TEXT)")
        connection.execute("INSERT INTO people VALUES ('Ada')")
    (tmp_path / "notes.sqlite").write_text("no database")
    before = own.read_bytes()
    assert (clear(tmp_path).matched, other_bytes(tmp_path)) == (0, 0)
    assert (own.read_bytes(), (tmp_path / "notes.sqlite").read_text()) == (before, "no database")


def test_other_folders_in_the_folder_of_the_cache_are_left_alone(tmp_path: Path) -> None:
    own = {
        "features/engineered/f.csv", "features/mine/data.mdb", "features/mine/about.json", "prefixes/de/card.json",
        "archives/2023/a.txt", "archives/.old.part/b.txt", "shards/x/y", "backbones/1.0/resnet.pth",
    }  # fmt: skip
    ours = {f"archives/{'a' * 64}/1.jpg", f"shards/{'b' * 32}/1.json", "backbones/1.0.19/resnet18.json"}
    for name in own | ours:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (0, 0))
    assert list_stores(tmp_path) == []
    before = other_bytes(tmp_path)
    assert clear(tmp_path, backbone="*").matched == 0
    assert clear(tmp_path) == Cleared(before, kept_in_use=0, matched=3)
    assert other_bytes(tmp_path) == 0
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()} == {
        name for name in own if "." in name
    }
    assert (tmp_path / "shards" / "x" / "y").is_file()


def test_an_index_that_is_written_to_is_in_use(tmp_path: Path) -> None:
    with open_known(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(next(tmp_path.glob("*.sqlite")))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert clear(tmp_path).kept_in_use == 1


def known_of(cache: Path) -> None:
    """An index of files as a job leaves it."""
    with open_known(cache) as known:
        assert known is not None
        known.remember([(f"/photos/{i}.jpg", (1, 2, 3), bytes(32)) for i in range(2000)])


def test_an_index_that_another_writes_to_is_in_use(tmp_path: Path) -> None:
    known_of(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert clear(tmp_path) == Cleared(freed_bytes=0, kept_in_use=1, matched=1)
    assert clear(tmp_path).kept_in_use == 0


def test_an_index_is_emptied_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        known_of(disk)
        fill(disk)
        cleared = clear(disk)
        assert (cleared.kept_in_use, cleared.matched) == (0, 1)
        assert cleared.freed_bytes > 100_000


def test_an_index_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        known_of(disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StoreError) as caught:
            clear(disk)
    assert caught.value.what == f"{disk / FILE} cannot be emptied."
    assert caught.value.why == "attempt to write a readonly database."


def test_what_cannot_be_removed_leaves_nothing_else_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / "features" / f"{i * 32}-plain-fp32" for i in "1234"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "about.json").write_text("{}")

    def check(folder: Path) -> None:
        if folder in folders[:3:2]:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(clearing, "_check_removable", check)
    with pytest.raises(StoreError) as caught:
        clear(tmp_path)
    assert caught.value.what == f"{folders[0]} cannot be removed. 1 more of its kind cannot either. All else was."
    assert [folder.exists() for folder in folders] == [True, False, True, False]


@pytest.mark.skipif(os.name == "nt", reason="Windows tells owners apart in another way")
@pytest.mark.parametrize("inner", ["", "below"])
def test_what_is_of_another_user_stays_and_is_named(tmp_path: Path, inner: str) -> None:
    """As of a container that ran as root."""
    folder = tmp_path / "features" / f"{'5' * 32}-plain-fp32"
    (folder / "below").mkdir(parents=True)
    for name in ("about.json", "in_use", "data.mdb", "below/file"):
        (folder / name).write_text("{}")
    (folder / inner).chmod(0o555)
    if os.geteuid() == 0:
        for own in (folder.parent, folder, folder / "below"):
            os.chown(own, *((NOBODY, NOBODY) if own != folder / inner else (0, 0)))
    child = os.fork()
    if not child:
        status = 1
        try:
            os.chdir(tmp_path)  # whose parents another user may not enter
            if os.geteuid() == 0:
                os.chmod(".", 0o755)
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with pytest.raises(StoreError, match=f"features/{folder.name} cannot be removed") as caught:
                clear(Path())
            status = 0 if "Permission denied" in caught.value.why and "another user" in caught.value.fix else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.listdir(folder.parent) == [folder.name]
    assert len(list(folder.rglob("*"))) == 5
    (folder / inner).chmod(0o755)
