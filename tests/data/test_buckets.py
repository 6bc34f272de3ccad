"""Photos in a bucket: the job that a folder gives, and one clear sentence for each way in which a store refuses."""

from __future__ import annotations

import gc
import io
import json
import pickle
import shutil
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from bucket import Store, in_memory
from conftest import make_photos
from disks import small_disk
from safetensors.numpy import load_file

from rehead import tune
from rehead.data import listing
from rehead.data.addresses import refused
from rehead.data.catalog import Catalog
from rehead.data.rows import Request
from rehead.data.scan import scan, scan_held_out
from rehead.data.sources import open_source
from rehead.data.walk import walk
from rehead.errors import ReheadError, SourceError, StoreError
from rehead.features.extract import _Writer
from rehead.progress import Silent
from rehead.runs.earlier import read_earlier
from rehead.runs.finished import read_finished

Program = Callable[..., subprocess.CompletedProcess[str]]
pytest.importorskip("moto", reason="needs moto: pip install 'moto[server]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    """Photos that are in the bucket "photos" too, below "zoo/big ones"."""
    made = make_photos(tmp_path_factory.mktemp("bucket") / "zoo", {"red": 10, "blue": 10})
    (made / "red" / "ünïcode #1 50%.png").write_bytes((made / "red" / "0.png").read_bytes() + b"\0")
    (made / "red" / ".hidden.png").write_bytes(b"hidden")
    (made / "blue" / "broken.png").write_bytes(b"\x89PNG no more")
    store.put("photos", made, "zoo/big ones/")
    return made


@pytest.mark.long
def test_a_bucket_gives_the_run_that_its_folder_gives(
    rehead: Program, folder: Path, store: Store, tmp_path: Path
) -> None:
    told = []
    for name, source in (("here", str(folder)), ("there", "s3://photos/zoo/big ones")):
        done = rehead(
            "tune", source, "--json", "--out", name, REHEAD_CACHE=str(tmp_path / f"{name}-cache"), **store.variables
        )
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    here, there = told
    assert here["images"] == there["images"]
    assert here["verdict"]["top1"] == there["verdict"]["top1"]
    heads = [(tmp_path / name / "bundle" / "head.safetensors").read_bytes() for name in ("here", "there")]
    assert heads[0] == heads[1]
    catalogs = [(tmp_path / name / "catalog.csv").read_text() for name in ("here", "there")]
    assert catalogs[0] == catalogs[1]
    assert "broken.png" in (tmp_path / "there" / "skipped.csv").read_text()


def test_what_did_not_change_in_a_bucket_is_not_read_again(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rehead.data.known.RACY_S", 0.0)
    store.put("changing", folder)
    time.sleep(1.1)  # S3 tells times in seconds

    def scanned() -> tuple[Catalog, list[str]]:
        source, read = open_source("s3://changing", cache=tmp_path), []
        noted = replace(source, read=lambda row: (read.append(row.path), source.read(row))[1])
        return scan(noted, seed=0, valid_fraction=0.3, cache=tmp_path), sorted(read)

    first, read = scanned()
    assert len(read) == 22
    second, read = scanned()
    assert read == ["blue/broken.png"]  # 12 bytes are no photo, and of what is none nothing is remembered
    assert second.photos == first.photos
    store.client().put_object(Bucket="changing", Key="red/1.png", Body=(folder / "red" / "2.png").read_bytes() + b"0")
    assert scanned()[1] == ["blue/broken.png", "red/1.png"]


@pytest.mark.slow
def test_a_run_on_a_bucket_is_taken_up_and_reported_from_its_address(
    rehead: Program, folder: Path, store: Store, tmp_path: Path
) -> None:
    done = rehead("tune", "s3://photos/zoo/big ones", "--out", "run", "--report", **store.variables)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert json.loads((tmp_path / "run" / "photos.json").read_text())["source"] == "s3://photos/zoo/big ones"
    done = rehead("verify", "run/bundle", "s3://photos/zoo/big ones", **store.variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_photos_in_a_bucket_are_there_for_the_second_run_that_goes_on_from_theirs(
    folder: Path, store: Store, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    first = tune("s3://photos/zoo/big ones", out=tmp_path / "first", cache=cache, report=False)
    more = make_photos(tmp_path / "more", {"grey": 10})
    second = tune(more, from_run=first.run, out=tmp_path / "second", cache=cache, report=False)
    earlier, finished = read_earlier(second.run, cache), read_finished(second.run, cache).catalog
    far = [photo for photo in earlier.photos if photo.path.startswith("s3://photos/zoo/big ones/")]
    assert len(far) == 21
    for photo in (far[0], next(photo for photo in finished.photos if photo.path == far[0].path)):
        assert (
            earlier.read(photo)
            == finished.read(photo)
            == (folder / photo.path.removeprefix("s3://photos/zoo/big ones/")).read_bytes()
        )
    assert not any(map(earlier.is_gone, earlier.photos))
    assert not any(map(finished.is_gone, finished.photos))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_in_a_bucket_and_one_of_addresses_give_what_a_local_one_gives(
    suffix: str, folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("*/[0-9]*.png"))
    rows = [(name, name.split("/")[0], "valid" if "3" in name else "train") for name in [*names, "red/gone.png"]]

    def written(to: Path, begin: str) -> Path:
        table = pyarrow.table(
            {
                "path": [begin + name for name, _, _ in rows],
                "label": [label for _, label, _ in rows],
                "split": [side for *_, side in rows],
            }
        )
        if suffix == "csv":
            pyarrow.csv.write_csv(table, to)
        else:
            pyarrow.parquet.write_table(table, to)
        return to

    local = written(folder / f"table.{suffix}", "")
    store.client().upload_file(str(local), "photos", f"zoo/big ones/table.{suffix}")
    found = []
    for source in (
        local,
        f"s3://photos/zoo/big ones/table.{suffix}",
        written(tmp_path / f"of-addresses.{suffix}", "s3://photos/zoo/big%20ones/"),
    ):
        opened = open_source(source, cache=tmp_path)
        catalog = scan(opened, seed=0, valid_fraction=0.2, cache=tmp_path)
        photos = [
            (photo.path.rpartition("ones/")[2], photo.label, photo.side, photo.digest) for photo in catalog.photos
        ]
        skipped = [(skip.path.rpartition("ones/")[2], skip.reason) for skip in (*opened.skipped, *catalog.skipped)]
        found.append(photos)
        assert [path for path, _ in dict(skipped).items()] == ["red/gone.png"]
        if source is not local:
            assert all(opened.uri(row) for row in opened.rows)
    local.unlink()
    assert len(found[0]) == 20
    assert found[0] == found[1] == found[2]
    assert not list(tmp_path.rglob("*fetched*"))


@pytest.mark.parametrize(
    ("name", "layout"), [("labels.csv", "auto"), ("meta/labels.parquet", "auto"), ("meta/labels.csv", "manifest")]
)
def test_a_manifest_in_a_folder_of_a_bucket_is_found_as_in_a_folder(name: str, layout: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "big ones" / "meta", {"red": 2, "blue": 2}).parent
    begin = "" if "/" in name else "meta/"
    paths = [f"{begin}{label}/{i}.png" for label in ("red", "blue") for i in range(2)]
    table = pyarrow.table({"path": paths, "label": ["warm", "cold"] * 2})
    if name.endswith(".csv"):
        pyarrow.csv.write_csv(table, photos / name)
    else:
        pyarrow.parquet.write_table(table, photos / name)
    (photos / "notes.csv").write_text("date,what\n")
    make_photos(photos / "meta", {"red": 3})  # one that the table does not name
    notes: list[str] = []
    told = SimpleNamespace(note=notes.append, phase=lambda *_: None, advance=lambda _: None)
    here, there = (open_source(at, cache=tmp_path, layout=layout, progress=told) for at in (photos, in_memory(photos)))
    assert notes == [f"{name} says what is learned; 1 picture that it does not name is left out"] * 2
    assert {row.label for row in here.rows} == {"warm", "cold"}
    assert [*there.rows] == [*here.rows]
    assert (there.layout, there.name) == ("manifest", here.name)
    assert there.read(there.rows[3]) == here.read(here.rows[3])


@pytest.mark.parametrize(
    ("header", "layout"),
    [("path,label,age", "auto"), ("path,label,age", "manifest"), ("date,what", "manifest"), ("", "split")],
)
def test_what_is_amiss_with_a_folder_is_said_of_a_bucket_too(header: str, layout: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    if header:
        (photos / "labels.csv").write_text(header)
    told: list[list[str]] = []
    for at in (str(photos), in_memory(photos)):
        said: list[str] = []
        listener = SimpleNamespace(note=said.append, phase=lambda *_: None, advance=lambda _: None)
        try:
            said.append(open_source(at, cache=tmp_path, layout=layout, progress=listener).layout)
        except SourceError as error:
            said.append(str(error).replace(at, "PHOTOS"))
        told.append(said)
    here, there = told
    assert there == here
    assert len(here) == (2 if layout == "auto" else 1)


@pytest.mark.parametrize(
    ("layout", "photo"), [("folders", "all/red/1.png"), ("split", "all/train/red/1.png"), ("flat", "all/red.1.png")]
)
def test_a_forced_layout_and_runs_among_photos_are_read_in_a_bucket_as_in_a_folder(
    layout: str, photo: str, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for name in (photo, photo.replace("red", "blue"), "all/runs/a/recipe.toml", "all/runs/a/1.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"a photo")
    here, there = (open_source(at, cache=tmp_path, layout=layout) for at in (photos, in_memory(photos)))
    assert {row.label for row in here.rows} == {"red", "blue"}
    assert [*there.rows] == [*here.rows]
    assert [skip.path for skip in here.skipped] == ["all/runs/a"]
    assert there.skipped == here.skipped


@pytest.mark.parametrize("name", ["../images/red.png", "red/.hidden/1.png", "@tmp/1.png"])
def test_a_manifest_in_a_bucket_names_what_a_local_one_names(name: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos" / "meta", {"red": 1, "blue": 1})
    (photos / name).parent.mkdir(parents=True, exist_ok=True)
    (photos / "red" / "0.png").rename(photos / name)
    (photos / "labels.csv").write_text(f"path,label\n{name},red\nblue/0.png,blue\n../none.png,red\nred/0.png,red\n")
    address = in_memory(photos.parent)
    here, there = (
        scan_held_out(open_source(at, cache=tmp_path)) for at in (photos / "labels.csv", f"{address}/meta/labels.csv")
    )
    assert [photo.path for photo in here.photos] == [name, "blue/0.png"]
    assert [*there.photos] == [*here.photos]
    assert {*there.skipped} == {*here.skipped}


def test_a_manifest_in_a_bucket_is_to_be_saved_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "labels.csv").write_text("path,label\nred/0.png,Löwe\n", encoding="cp1252")
    address = f"{in_memory(tmp_path / 'meta')}/labels.csv"
    with pytest.raises(SourceError, match="which is not UTF-8") as caught:
        open_source(address, cache=tmp_path)
    assert caught.value.fix == "Save it as UTF-8 (in Excel: CSV UTF-8)."


@pytest.mark.parametrize("scheme", ["memory", "file", "file and path", "path and file"])
def test_what_is_held_out_among_the_photos_is_no_class_of_theirs(scheme: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "big photos", {"red": 3, "blue": 3})
    make_photos(photos / "later on", {"red": 2, "blue": 2})
    (photos / "later on and on").mkdir()
    shutil.copy(photos / "red" / "0.png", photos / "later on and on" / "0.png")
    if scheme == "memory":
        address = in_memory(photos)
        source, test = address, f"{address}/later%20on/"
    else:
        source, test = photos.as_uri(), (photos / "later on").as_uri()
        if scheme == "file and path":
            test = str(photos / "later on")
        if scheme == "path and file":
            source = str(photos)
    here, there = (
        open_source(at, test=late, cache=tmp_path) for at, late in ((photos, photos / "later on"), (source, test))
    )
    assert Counter((row.label, row.side) for row in here.rows) == {
        ("red", "train"): 3, ("blue", "train"): 3, ("later on and on", "train"): 1, ("red", "test"): 2, ("blue", "test"): 2,
    }  # fmt: skip
    assert Counter((row.label, row.side) for row in there.rows) == Counter((row.label, row.side) for row in here.rows)
    with pytest.raises(SourceError, match="is to be tuned on and held out at once"):
        open_source(source, test=f"{source}/", cache=tmp_path)


def test_a_table_in_a_bucket_teaches_nothing_that_is_held_out(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 2, "blue": 2})
    make_photos(photos / "later on", {"red": 2, "blue": 2})
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    (photos / "labels.csv").write_text("path,label\n" + "".join(f"{name},{name.split('/')[-2]}\n" for name in names))
    address = in_memory(photos)
    found = open_source(address, test=f"{address}/later%20on", cache=tmp_path)
    assert Counter((row.label, row.side) for row in found.rows) == {
        ("red", "train"): 2, ("blue", "train"): 2, ("red", "test"): 2, ("blue", "test"): 2,
    }  # fmt: skip


def test_a_shard_in_a_bucket_that_is_held_out_is_not_learned_from(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 4, "blue": 4})
    for n in range(2):
        with tarfile.open(tmp_path / f"{n}.tar", "w") as shard:
            for k, path in enumerate(sorted(photos.rglob("*.png"))[n::2]):
                for name, data in (f"{k}.png", path.read_bytes()), (f"{k}.cls", path.parent.name.encode()):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    shutil.rmtree(photos)
    address = in_memory(tmp_path)
    found = open_source(address, test=f"{address}/1.tar", cache=tmp_path / "cache")
    assert Counter(row.side for row in found.rows) == {"train": 4, "test": 4}


def test_an_archive_in_a_bucket_gives_what_its_folder_gives(folder: Path, store: Store, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.variables.items():
            patch.setenv(name, value)
        made = shutil.make_archive(str(tmp_path / "zoo"), "tar", folder.parent, "zoo")
        store.client().upload_file(made, "photos", "archives/zoo.tar")
        opened = open_source("s3://photos/archives/zoo.tar", cache=tmp_path)
        assert len(opened.rows) == 22
        assert opened.name == "zoo"
        with pytest.raises(SourceError, match="There is nothing at s3:"):
            open_source("s3://photos/archives/none.tar", cache=tmp_path)


def test_a_full_disk_is_not_blamed_on_the_address(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "zoo.zip").write_bytes(bytes(200_000))
    address = in_memory(tmp_path / "photos")
    with small_disk(tmp_path / "cache", "size=64k") as cache:
        with pytest.raises(SourceError) as error:
            open_source(f"{address}/zoo.zip", cache=cache)
        what, why, fix = error.value.what, error.value.why, error.value.fix
        del error  # whose frames hold the cache in use
        gc.collect()
        assert not list(cache.glob("archives/*"))
    assert what == f"There is not enough room on the disk to fetch {address}/zoo.zip."
    assert why == f"{cache} has 0 MiB free."
    assert "--cache DIR" in fix


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ("ro", StoreError, "The cache folder {cache} cannot be written.\nRead-only file system"),
        ("nr_inodes=1", SourceError, "There is not enough room on the disk to fetch {address}."),
    ],
)
@pytest.mark.parametrize("name", ["zoo.zip", "zoo.csv"])
def test_a_cache_that_cannot_be_made_is_not_blamed_on_the_address(
    name: str, options: str, kind: type[ReheadError], words: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(b"path,label\n")
    address = f"{in_memory(tmp_path / 'photos')}/{name}"
    with small_disk(tmp_path / "disk", options) as disk:
        with pytest.raises(kind) as error:
            open_source(address, cache=disk / "cache")
        assert str(error.value).startswith(words.format(cache=disk / "cache", address=address))
        assert "--cache DIR" in error.value.fix


def test_a_folder_of_the_cache_that_cannot_be_written_is_not_blamed_on_the_address(tmp_path: Path) -> None:
    for name in ("photos", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "zoo.csv").write_bytes(b"path,label\n")
    address = f"{in_memory(tmp_path / 'photos')}/zoo.csv"
    with small_disk(tmp_path / "cache" / "archives", "ro") as there, pytest.raises(StoreError) as error:
        open_source(address, cache=tmp_path / "cache")
    assert error.value.what == f"The cache folder {there} cannot be written."


def test_a_table_in_a_bucket_is_sent_to_other_machines(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    cloudpickle = pytest.importorskip(
        "cloudpickle", reason="needs cloudpickle, as Ray has one: pip install 'rehead[ray]'"
    )
    rows = [f"{label}/{i}.png,{label}" for label in ("red", "blue") for i in range(10)]
    body = "\n".join(["path,label", *rows]).encode()
    store.client().put_object(Bucket="photos", Key="zoo/big ones/sent.csv", Body=body)

    class Terminal(Silent):
        def __reduce__(self) -> str:
            raise TypeError("a terminal cannot be sent")

    opened = open_source("s3://photos/zoo/big ones/sent.csv", cache=tmp_path, progress=Terminal())
    catalog = scan(opened, seed=0, valid_fraction=0.3)
    sent = pickle.loads(cloudpickle.dumps(catalog))
    assert sent.read(sent.photos[3]) == catalog.read(catalog.photos[3])
    assert sent.uri(sent.photos[3]) == catalog.uri(catalog.photos[3])


@pytest.mark.parametrize("crowded", [1_000, 1])
def test_folders_are_listed_beside_each_other(
    crowded: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(listing, "CROWDED", crowded)
    names = [
        "1.jpg",
        "a/2.jpg",
        "a/b/3.jpg",
        "a/b/c/d/4.jpg",
        "a/b2/5.jpg",
        "e/f/g/6.jpg",
        "a/.hidden/7.jpg",
        ".h/8.jpg",
    ]
    for name in names:
        (tmp_path / "below" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "below" / name).write_text(name)
    store.put(f"listed-{crowded}", tmp_path / "below", "deep/er/")
    store.client().put_object(Bucket=f"listed-{crowded}", Key="deep/er/a//twice.jpg", Body=b"")  # no folder of its own
    found = listing.listed(f"s3://listed-{crowded}/deep/er", Request(cache=tmp_path))
    assert [name for name in found if "//" not in name] == sorted(names[:6])
    assert len(set(found)) == len(found) <= 7
    assert all(stamp is not None and stamp[0] == len(name) for name, stamp in found.items() if "//" not in name)


def test_a_line_that_no_store_gives_costs_itself_alone(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    store.client().upload_file(str(folder / "red" / "7.png"), "photos", "zoo/what?.png")
    good = [f"s3://photos/zoo/big ones/{label}/{i}.png" for label in ("red", "blue") for i in range(7)]
    bad = [
        "s3://no-such-bucket/1.png", "nosuch://photos/1.png", "s3://photos/zoo/gone.png", "s3:///1.png", "s3://[photos/1.png",
        "s3://photos/zoo//1.png", "part+s3://photos/1.png",
    ]  # fmt: skip
    lines = [f"{path},{path.split('/')[-2]}" for path in good] + [
        "s3://photos/zoo/what?.png,red",
        *(f"{path},red" for path in bad),
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    catalog = scan(open_source(tmp_path / "table.csv", cache=tmp_path), seed=0, valid_fraction=0.3)
    assert {photo.path for photo in catalog.photos} == {*good, "s3://photos/zoo/what?.png"}
    [asked] = [photo for photo in catalog.photos if "what?" in photo.path]
    assert catalog.read(asked) == (folder / "red" / "7.png").read_bytes()
    told = {skip.path: skip.reason for skip in catalog.skipped}
    assert told.keys() == set(bad)
    said = ("is not there", "reads nosuch://", "is not there", "names no bucket", "is no address", "cannot", "cannot")
    for path, words in zip(bad, said, strict=True):
        assert words in told[path], told


@pytest.mark.parametrize(
    "address", ["s3://key:secret@photos/1.jpg", "https://photos.example/1.jpg?X-Amz-Signature=5ec"]
)
def test_a_table_may_not_hold_a_secret(address: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"path,label\n{address},a\n")
    with pytest.raises(SourceError, match="holds a secret"):
        open_source(table, cache=tmp_path)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://nowhere/photos", "there is no such bucket"),
        ("s3://photos/nothing", "There is nothing at s3://photos/nothing"),
        ("s3:/photos/zoo", "Write s3://photos/zoo"),
        ("file:/photos/zoo", "Write file:///photos/zoo"),
        ("gopher://photos/zoo", "Nothing here reads gopher:// addresses"),
        ("s3://key:secret@photos/zoo", "holds a secret"),
        ("s3://photos[/zoo", "is no address"),
        ("s3://", "names no bucket"),
        ("file://photos/zoo", "names no file of this machine"),
    ],
)
def test_what_is_not_there_is_said(rehead: Program, folder: Path, store: Store, address: str, says: str) -> None:
    done = rehead("tune", address, **store.variables)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "key:secret" not in done.stderr


def test_keys_that_a_store_does_not_know_are_said(rehead: Program, strict_store: Store) -> None:
    done = rehead("tune", "s3://photos/zoo", **strict_store.variables)
    assert done.returncode == 2, done.stderr
    assert "does not let this machine read there" in done.stderr


@pytest.mark.long
def test_a_store_that_is_not_reached_is_said(rehead: Program, store: Store) -> None:
    elsewhere = {**store.variables, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = rehead("tune", "s3://photos/zoo", **elsewhere)
    assert done.returncode == 2, done.stderr
    assert "cannot be reached" in done.stderr


def test_a_single_photo_is_neither_photos_nor_a_folder_of_features(
    rehead: Program, folder: Path, store: Store, tmp_path: Path
) -> None:
    photo = "s3://photos/zoo/big ones/red/0.png"
    as_source = rehead("tune", photo, **store.variables)
    assert (as_source.returncode, f"{photo} is a single file" in as_source.stderr) == (2, True)
    as_features = rehead("tune", str(folder), "--features", photo, **store.variables)
    assert (as_features.returncode, f"{photo} is a file, not a folder" in as_features.stderr) == (2, True)


@pytest.mark.parametrize("place", [pytest.param("folder", marks=pytest.mark.slow), "bucket"])
@pytest.mark.long
def test_features_that_are_shared_are_computed_once(
    rehead: Program, folder: Path, store: Store, tmp_path: Path, place: str
) -> None:
    shared = "s3://photos/team features" if place == "bucket" else str(tmp_path / "team features")
    told = []
    for name in ("mine", "hers", "again"):
        words = ("tune", folder, "--features", shared, "--json", "--out", name)
        done = rehead(*words, REHEAD_CACHE=str(tmp_path / f"{name}-cache"), **store.variables)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout)["images"])
        if name == "mine":
            assert "Features of 21 photos are new in" in done.stderr
        else:
            assert "Features of 21 photos were in" in done.stderr
    heads = [(tmp_path / name / "bundle" / "head.safetensors").read_bytes() for name in ("mine", "hers", "again")]
    assert heads[0] == heads[1] == heads[2]
    assert told[0] == told[1]


@pytest.mark.long
def test_the_catalog_beside_shared_features_is_a_source(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehead.features.shared.CATALOG_PHOTOS", 8)
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    notes: list[str] = []

    class Told(Silent):
        def note(self, line: str) -> None:
            notes.append(line)

    photos, team = "s3://photos/zoo/big ones", "s3://photos/a team"
    plain = {
        "features": team,
        "progress": Told(),
        "tie_copies": False,
    }  # where sides are given no photo is read for it, and folds would be others
    first = tune(photos, cache=tmp_path / "cache", out=tmp_path / "first", **plain)
    [address] = [line.partition(" are in ")[2] for line in notes if "addresses, labels and sides are in" in line]
    found = store.client().list_objects_v2(Bucket="photos", Prefix="a team/catalog/")["Contents"]
    assert [one["Key"].rpartition("/")[2] for one in found] == [f"part-0000{n}-of-00003.parquet" for n in range(3)]
    again = tune(address, cache=tmp_path / "new", out=tmp_path / "again", **plain)
    assert f"Features of 21 photos were in {team}" in notes
    assert (again.verdict.side, again.verdict.top1) == ("valid", first.verdict.top1)
    heads = [load_file(run / "bundle" / "head.safetensors") for run in (first.run, again.run)]
    assert all(np.array_equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_features_are_shared_while_others_are_computed(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is lost on the way costs others at most a file, and what was not written yet."""
    monkeypatch.setattr("rehead.features.shared.FILE_BYTES", 4 * 2 * 1280)
    monkeypatch.setattr("rehead.features.extract.COMMIT_EVERY_S", -1)
    begin_writing = _Writer._write

    def write(writer: _Writer) -> None:  # and waits: what is not written yet is not shared
        begin_writing(writer)
        writer._wait()

    monkeypatch.setattr(_Writer, "_write", write)
    shutil.copytree(cache / "prefixes", tmp_path / "cache" / "prefixes")
    files: list[int] = []

    class Lost(Silent):
        def advance(self, n: int = 1) -> None:
            files.append(len([*(tmp_path / "team").glob("*/*.parquet")]))
            if files[-1] > 1:
                raise KeyboardInterrupt

    (tmp_path / "team").mkdir()
    with pytest.raises(KeyboardInterrupt):
        tune(folder, cache=tmp_path / "cache", out=tmp_path / "run", features=str(tmp_path / "team"), progress=Lost())
    assert files[-1] in (2, 3), "nothing was shared before the end"


def test_shared_features_that_may_not_be_added_cost_a_line(
    rehead: Program, folder: Path, store: Store, tmp_path: Path
) -> None:
    done = rehead("tune", folder, "--features", "s3://nobodys/features", "--out", "run", **store.variables)
    assert done.returncode == 2  # nothing can be listed there: said before anything is computed
    assert "there is no such bucket" in done.stderr
    (tmp_path / "team").write_text("a file")
    done = rehead("tune", folder, "--features", tmp_path / "team" / "deeper", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Features cannot be written to" in done.stderr


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("AWS Error INTERNAL_FAILURE during ListObjectsV2 operation: HTTP status 500", "the store failed"),
        ("AWS Error SLOW_DOWN during GetObject operation", "the store failed"),
        ("AWS Error SERVICE_UNAVAILABLE during ListObjectsV2 operation: HTTP status 503", "the store failed"),
        ("500, message='Internal Server Error', url='https://photos.example/zoo'", "the store failed"),
        ("AWS Error NETWORK_CONNECTION during ListObjectsV2 operation", "the store cannot be reached"),
        ("When listing: HTTP status 403", "does not let this machine read there"),
    ],
)
def test_what_a_store_answers_is_told_for_what_it_is(said: str, means: str) -> None:
    error = refused("s3://photos/zoo", OSError(said))
    assert means in error.what
    assert "Check the address" not in error.fix


@pytest.mark.parametrize("how", ["cut off", "a bit"])
@pytest.mark.long
def test_a_file_of_shared_features_that_is_damaged_is_computed_again(
    rehead: Program, folder: Path, tmp_path: Path, how: str
) -> None:
    words = ("tune", folder, "--features", tmp_path / "team", "--out")
    done = rehead(*words, "first", REHEAD_CACHE=str(tmp_path / "first-cache"))
    assert done.returncode == 0, done.stderr
    [part] = (tmp_path / "team").glob("*/*.parquet")
    data = part.read_bytes()
    part.write_bytes(data[:20_000] + bytes([data[20_000] ^ 1]) + data[20_001:] if how == "a bit" else data[:-100])
    done = rehead(*words, "second", REHEAD_CACHE=str(tmp_path / "second-cache"))
    assert done.returncode == 0, done.stderr
    assert "Features of 21 photos are new in" in done.stderr
    assert f"Passed over in {tmp_path / 'team'}, as they cannot be read or are damaged: " in done.stderr
    assert part.name in done.stderr
    heads = [(tmp_path / name / "bundle" / "head.safetensors").read_bytes() for name in ("first", "second")]
    assert heads[0] == heads[1]


@pytest.mark.parametrize("place", ["here", "bucket"])
def test_a_file_that_a_line_names_by_its_address_is_a_file_of_this_machine_alone(place: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "big photos", {"red": 2, "blue": 2})
    (photos / "red" / "0.png").rename(photos / "red" / "why?#.png")
    files = sorted(photos.glob("*/*.png"))
    lines = [f"{file.as_uri()},{file.parent.name}" for file in files]
    lines += [f"{(photos / 'none.png').as_uri()},red", "file://elsewhere/1.png,red"]
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    folder = str(tmp_path / "table") if place == "here" else in_memory(tmp_path / "table")
    found = open_source(f"{folder}/labels.csv", cache=tmp_path)
    assert [found.file(row) for row in found.rows] == [str(file) for file in files]
    assert [found.uri(row) for row in found.rows] == [None] * 4
    assert [found.read(row) for row in found.rows] == [file.read_bytes() for file in files]
    assert [skip.reason for skip in found.skipped] == [
        "is not there", "cannot be read: file://elsewhere/1.png names no file of this machine.",
    ]  # fmt: skip


def test_a_file_address_is_the_folder(folder: Path, tmp_path: Path) -> None:
    opened = open_source(folder.as_uri(), cache=tmp_path)
    assert [row.path for row in opened.rows] == [path.relative_to(folder).as_posix() for path in walk(folder)]
    assert opened.root == folder


def test_bytes_of_a_bucket_are_those_of_the_file(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    opened = open_source("s3://photos/zoo/big%20ones", cache=tmp_path)
    assert len(opened.rows) == 22
    for row in opened.rows:
        assert opened.read(row) == (folder / row.path).read_bytes()
        assert opened.file(row) is None
        assert str(opened.uri(row)).startswith("s3://photos/zoo/big%20ones/")
    assert np.unique([opened.uri(row) for row in opened.rows]).size == 22
