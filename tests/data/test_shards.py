"""WebDataset shards: photos and labels in tar files, read where they are, gone through once."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from bucket import Store
from conftest import make_photos

from rehead.data import reading, shards
from rehead.data.rows import side_in
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import SourceError, TooManyBad
from rehead.features.cache import other_bytes
from rehead.features.clearing import clear
from rehead.progress import Silent

Files = Sequence[tuple[str, bytes]]


JPEG_XL = b"\0\0\0\x0cJXL \r\n\x87\n"  # a format that Pillow does not read by itself


def tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("shards") / "photos", {"red": 20, "blue": 20})


def samples(photos: Path, says: Callable[[Path], tuple[str, bytes]]) -> list[list[tuple[str, bytes]]]:
    """Of each photo its file, and what it shows beside it, before or behind."""
    found = []
    for number, path in enumerate(sorted(photos.glob("*/*.png"))):
        ending, text = says(path)
        files = [(f"{number:06d}.png", path.read_bytes()), (f"{number:06d}.{ending}", text)]
        found.append(files if number % 2 else files[::-1])
    return found


def sharded(place: Path, made: Sequence[Files], names: Sequence[str]) -> Path:
    for n, name in enumerate(names):
        tar(place / name, [file for sample in made[n :: len(names)] for file in sample])
    return place


SAYS: dict[str, Callable[[Path], tuple[str, bytes]]] = {
    "cls": lambda path: ("cls", b"%d\n" % ["blue", "red"].index(path.parent.name)),
    "json": lambda path: ("json", json.dumps({"width": 9, "label": path.parent.name}).encode()),
    "txt": lambda path: ("txt", path.parent.name.encode()),
}


@pytest.mark.parametrize("how", SAYS)
def test_shards_give_what_a_folder_gives(how: str, photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS[how]), ["a-0.tar", "a-1.tar", "deep/a-2.tar"])
    if how == "cls":
        (place / "classnames.txt").write_text("blue\nred\n")
    opened = open_source(place, cache=tmp_path / "cache")
    assert (opened.layout, opened.name, len(opened.rows)) == ("webdataset", "zoo", 40)
    catalog = scan(opened, seed=0, valid_fraction=0.2)
    wanted = scan(open_source(photos, cache=tmp_path), seed=0, valid_fraction=0.2)
    assert {(p.digest, p.label, p.side) for p in catalog.photos} == {(p.digest, p.label, p.side) for p in wanted.photos}
    kept = {photo.digest: wanted.read(photo) for photo in wanted.photos}
    assert all(catalog.read(photo) == kept[photo.digest] for photo in catalog.photos)


def test_what_is_no_labelled_photo_is_told(photos: Path, tmp_path: Path) -> None:
    png = (photos / "red" / "0.png").read_bytes()
    place = tmp_path / "s.tar"
    tar(
        place,
        [
            ("good.png", png), ("good.seg.png", b"mask"), ("good.cls", b"7"),
            ("list.png", png), ("list.json", b'{"label": ["a", "b"]}'),
            ("bare.png", png),
            ("empty.png", b""), ("empty.cls", b"7"),
            ("text.jpg", b"no photo"), ("text.cls", b"7"),
            ("xl.jxl", JPEG_XL), ("xl.cls", b"7"),
            ("told.png", png), ("told.txt", b"a long tale " * 30),
            ("odd.png", png), ("odd.json", b"{"),
            ("torn.png", png), ("torn.json", b'{"label": ["x;y", "z"]}'),
            ("inside.png", png), ("inside.json", b'{"label": ' + b"[" * 900 + b"]" * 900 + b"}"),
            ("half.png", png), ("half.json", b'{"label": "\\ud800"}'),
            ("nested.png", png), ("nested.json", b"[" * 500_000),
            ("IMG.2.png", png), ("IMG.2.cls", b"7"),
            ("deep/good.png", png), ("deep/good.cls", "caf\u00e9".encode()),
            ("good.png", png), ("good.cls", b"8"),
            ("alone.cls", b"7"),
            ("latin.png", png), ("latin.cls", b"caf\xe9"),
        ],
    )  # fmt: skip
    opened = open_source(place, layout="webdataset", cache=tmp_path)
    assert [(row.path, row.label) for row in opened.rows] == [
        ("s.tar/good.png", "7"), ("s.tar/list.png", "a;b"), ("s.tar/half.png", r"\ud800"), ("s.tar/deep/good.png", "caf\u00e9"),
    ]  # fmt: skip
    told = {skip.path: skip.reason for skip in opened.skipped}
    assert told.keys() == {
        f"s.tar/{name}.png"
        for name in ("bare", "empty", "told", "odd", "torn", "inside", "nested", "IMG.2", "good", "latin")
    } | {"s.tar/text.jpg", "s.tar/xl.jxl"}
    assert "has no label" in told["s.tar/bare.png"]
    assert told["s.tar/odd.png"] == told["s.tar/torn.png"] == "has a .json beside it that names no label"
    assert told["s.tar/empty.png"] == "is empty (0 bytes)"
    assert told["s.tar/text.jpg"] == told["s.tar/xl.jxl"] == "is not an image that can be read"
    assert "twice" in told["s.tar/good.png"]


@pytest.mark.parametrize("is_first", [False, True])
def test_what_is_no_picture_displaces_no_photo(is_first: bool, photos: Path, tmp_path: Path) -> None:
    png = (photos / "red" / "0.png").read_bytes()
    pair = [("1.jxl", JPEG_XL), ("1.jxl", JPEG_XL), ("1.png", png)][:: 1 if is_first else -1]
    alone = [("2.jxl", JPEG_XL), ("2.jpg", b""), ("2.cls", b"7")]
    opened = open_source(tar(tmp_path / "s.tar", [("1.cls", b"7"), *pair, *alone]), layout="webdataset", cache=tmp_path)
    assert [(row.path, opened.digest(row)) for row in opened.rows] == [("s.tar/1.png", blake3(png).digest())]
    assert [skip.path for skip in opened.skipped] == ["s.tar/2.jxl"]


def test_the_files_of_a_sample_need_not_follow_each_other(photos: Path, tmp_path: Path) -> None:
    made = samples(photos, SAYS["cls"])
    files = [(f"./{name}", data) for sample in made for name, data in sorted(sample)]
    apart = tar(tmp_path / "apart" / "0.tar", sorted(files, key=lambda file: (file[0].endswith("cls"), file[0][::-1])))
    follow = tar(tmp_path / "follow" / "0.tar", files)
    found = [open_source(place.parent, cache=tmp_path) for place in (apart, follow)]
    assert {(row.path, row.label, found[0].digest(row)) for row in found[0].rows} == {
        (row.path, row.label, found[1].digest(row)) for row in found[1].rows
    }
    assert len(found[0].rows) == 40


def test_what_may_lie_beside_shards(photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["txt"]), ["0.tar", "1.tar"])
    (place / "README").write_text("shards")
    (place / "0.idx").write_text("0")
    assert open_source(place, cache=tmp_path).layout == "webdataset"
    (place / "stray.jpg").write_bytes((photos / "red" / "0.png").read_bytes())
    with pytest.raises(SourceError, match="--layout webdataset reads these alone"):
        open_source(place, cache=tmp_path)
    packed = tmp_path / "packed" / "0.tar"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress((place / "0.tar").read_bytes()))
    with pytest.raises(TooManyBad, match="compressed, which shards may not be"):
        open_source(packed.parent, cache=tmp_path)
    with pytest.raises(SourceError, match="is no shard"):
        open_source(packed.rename(tmp_path / "0.tar.gz"), layout="webdataset", cache=tmp_path)


def test_a_shard_that_is_held_out_is_not_learned_from(photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["cls"]), [f"{n}.tar" for n in range(4)])
    (tmp_path / "linked.tar").symlink_to(place / "2.tar")
    for test in place / "2.tar", tmp_path / "linked.tar":
        opened = open_source(place, test=test, cache=tmp_path)
        assert [sum(row.side == side for row in opened.rows) for side in ("train", "test")] == [30, 10]
        assert len(scan(opened, seed=0, valid_fraction=0.2).photos) == 40
    with pytest.raises(SourceError, match="to be tuned on and held out at once"):
        open_source(place / "2.tar", test=tmp_path / "linked.tar", cache=tmp_path)


@pytest.mark.parametrize(
    ("path", "side"),
    [
        ("pets-train-val/train-0.tar", "train"),
        ("pets-train-val/val-0.tar", "valid"),
        ("train/val/3.tar", "valid"),
        ("train_val-0.tar", "train"),
        ("split=test/0.tar", "test"),
        ("label=test_tube/part-0.parquet", None),
        ("train/label=test/part-0.parquet", "train"),
    ],
)
def test_the_word_nearest_to_the_file_tells_the_side(path: str, side: str | None) -> None:
    assert side_in(path) == side


def test_names_of_shards_tell_sides(photos: Path, tmp_path: Path) -> None:
    made = samples(photos, SAYS["txt"])
    opened = open_source(sharded(tmp_path / "a", made, ["train/0.tar", "train/1.tar", "x-val01.tar"]), cache=tmp_path)
    assert {row.side for row in opened.rows if "val" in row.path} == {"valid"}
    assert {row.side for row in opened.rows if "train" in row.path} == {"train"}
    opened = open_source(sharded(tmp_path / "b", made, ["train-0.tar", "train-1.tar"]), cache=tmp_path)
    assert {row.side for row in opened.rows} == {None}


def test_a_broken_shard_costs_itself_alone_and_too_many_stop_the_job(photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["txt"]), [f"{n}.tar" for n in range(10)])
    whole = (place / "3.tar").read_bytes()
    (place / "3.tar").write_bytes(whole[: len(whole) // 2])
    (place / "4.tar").write_bytes(b"\x00no shard" * 300)
    opened = open_source(place, cache=tmp_path / "cache")
    assert [skip.path for skip in opened.skipped] == ["3.tar", "4.tar"]
    assert "truncated or broken" in opened.skipped[0].reason
    n_left = sum(row.path.startswith("3.tar/") for row in opened.rows)
    assert 0 < n_left < 4
    assert len(opened.rows) == 32 + n_left
    (place / "5.tar").write_bytes(b"")
    with pytest.raises(TooManyBad, match="3 of 10 shards"):
        open_source(place, cache=tmp_path / "cache")
    assert len(open_source(place, cache=tmp_path / "cache", max_bad=0.3).rows) == 28 + n_left


def test_a_shard_that_was_cut_or_damaged_between_two_photos_is_told(photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["txt"]), [f"{n}.tar" for n in range(5)])
    with tarfile.open(place / "2.tar") as archive:
        end = archive.getmembers()[-2].offset
    whole = (place / "2.tar").read_bytes()
    damaged = whole[:end] + b"\xff" * 512 + whole[end + 512 :]
    for data in (whole[:end], whole[: end + 100], damaged):
        (place / "2.tar").write_bytes(data)
        opened = open_source(place, cache=tmp_path / "cache")
        assert [skip.path for skip in opened.skipped] == ["2.tar"]
        assert "what stood behind is lost" in opened.skipped[0].reason
        assert len(opened.rows) == 39


def test_a_shard_is_gone_through_once_until_it_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = samples(photos, SAYS["txt"])
    place = sharded(tmp_path / "zoo", made, ["0.tar", "1.tar"])
    read: list[Any] = []
    indexed = shards.indexed
    monkeypatch.setattr(shards, "RACY_S", 0)
    monkeypatch.setattr(shards, "indexed", lambda stream, **how: read.append(1) or indexed(stream, **how))
    first = open_source(place, cache=tmp_path / "cache")
    assert len(read) == 2
    again = open_source(place, cache=tmp_path / "cache")
    assert len(read) == 2
    assert [(row, again.digest(row)) for row in again.rows] == [(row, first.digest(row)) for row in first.rows]
    assert other_bytes(tmp_path / "cache") > 0
    tar(place / "1.tar", [file for sample in made[:4] for file in sample])
    assert len(open_source(place, cache=tmp_path / "cache").rows) == 24
    assert len(read) == 3
    for kept in (tmp_path / "cache" / shards.INDEX).glob("*/*"):
        kept.write_text("[damaged")
    assert len(open_source(place, cache=tmp_path / "cache").rows) == 24
    for kept in [*(tmp_path / "cache" / shards.INDEX).rglob("*"), tmp_path / "cache" / shards.INDEX]:
        os.utime(kept, (0, 0))
    open_source(place, cache=tmp_path / "cache")
    assert clear(tmp_path / "cache", older_than_s=3600).matched == 0  # used now, though made long ago
    clear(tmp_path / "cache")
    assert not [*(tmp_path / "cache" / shards.INDEX).iterdir()]


def test_an_archive_of_class_folders_is_none(photos: Path, tmp_path: Path) -> None:
    made = shutil.make_archive(str(tmp_path / "zoo"), "tar", photos.parent, "photos")
    assert open_source(made, cache=tmp_path).layout == "folders"
    one = tar(tmp_path / "one.tar", [file for sample in samples(photos, SAYS["cls"]) for file in sample])
    assert open_source(one, cache=tmp_path).layout == "webdataset"


def test_an_archive_of_class_folders_with_texts_beside_photos_is_none(photos: Path, tmp_path: Path) -> None:
    files = [
        (f"{path.parent.name}/{path.stem}.{ending}", data)
        for path in sorted(photos.glob("*/*.png"))
        for ending, data in (("png", path.read_bytes()), ("txt", b"0 0.5 0.5 0.2 0.3"))
    ]
    assert open_source(tar(tmp_path / "boxes.tar", files), cache=tmp_path).layout == "folders"


def test_names_of_classes_stand_beside_the_shards_also_where_a_folder_holds_both(photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "all" / "zoo", samples(photos, SAYS["cls"]), ["train-0.tar", "train-1.tar"])
    (place / "classnames.txt").write_text("blue\nred\n")
    packed = shutil.make_archive(str(tmp_path / "zoo"), "zip", tmp_path / "all")
    for source in (place.parent, packed):
        opened = open_source(source, cache=tmp_path / "cache")
        assert {row.label for row in opened.rows} == {"blue", "red"}


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_shards_in_an_archive_are_shards(kind: str, photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["json"]), ["train-0.tar", "train-1.tar", "test-0.tar"])
    found = open_source(shutil.make_archive(str(tmp_path / "packed"), kind, place), cache=tmp_path / "cache")
    wanted = open_source(place, cache=tmp_path / "cache")
    assert (found.layout, found.name) == ("webdataset", "packed")
    assert [*found.rows] == [*wanted.rows]
    assert found.read(found.rows[7]) == wanted.read(wanted.rows[7])


def test_a_tar_file_among_photos_or_beside_a_table_is_no_shard(photos: Path, tmp_path: Path) -> None:
    mixed = Path(shutil.copytree(photos, tmp_path / "mixed"))
    tar(mixed / "backup.tar", [("1.png", b"x"), ("1.cls", b"1")])
    for path in mixed.glob("*/*.png"):
        path.rename(path.with_suffix(""))  # a name's ending decides nothing
    assert open_source(mixed, cache=tmp_path).layout == "folders"
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "t.csv").write_text(f"path,label\n{photos}/red/0.png,red\n{photos}/blue/0.png,blue\n")
    tar(tmp_path / "table" / "backup.tar", [("1.png", b"x"), ("1.cls", b"1")])
    assert open_source(tmp_path / "table", cache=tmp_path).layout == "manifest"


def test_names_of_classes_may_stand_twice_and_be_no_utf8(photos: Path, tmp_path: Path) -> None:
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["cls"]), ["0.tar"])
    (place / "classnames.txt").write_bytes(b"\xef\xbb\xbfcr\xffne\ncr\xffne\n")
    assert {row.label for row in open_source(place, cache=tmp_path).rows} == {"cr\ufffdne (0)", "cr\ufffdne (1)"}
    (place / "classnames.txt").write_text("crane\n")
    told = Told()
    assert {row.label for row in open_source(place, cache=tmp_path, progress=told).rows} == {"0", "1"}
    assert "classnames.txt is left out" in told.notes[0]


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_header_that_claims_very_much_is_not_believed(photos: Path, tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    place = tar(tmp_path / "zoo" / "1.tar", [file for sample in samples(photos, SAYS["txt"]) for file in sample])
    place.write_bytes(place.read_bytes().rstrip(b"\0").ljust(1 << 20, b"\0")[: 1 << 20])
    with (tmp_path / "zoo" / "0.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    opened = open_source(tmp_path / "zoo", cache=tmp_path / "cache", max_bad=0.5)
    assert "claims" in opened.skipped[0].reason


def test_shards_without_labels_are_refused_with_an_example(photos: Path, tmp_path: Path) -> None:
    tar(tmp_path / "zoo" / "0.tar", [("1.png", (photos / "red" / "0.png").read_bytes())])
    with pytest.raises(SourceError, match=r"has no shard with a photo and its label(.|\n)*000017\.cls"):
        open_source(tmp_path / "zoo", cache=tmp_path)


class Machines:
    """Other machines that do what they are asked in this process."""

    at_once = 2

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def each(self, work: Callable[[list[Any]], list[Any]], rows: Sequence[Any]) -> list[Any]:
        self.asked += rows
        return work(list(rows))


def test_shards_in_a_bucket_are_read_in_parts_and_gone_through_by_other_machines(
    photos: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    place = sharded(tmp_path / "zoo", samples(photos, SAYS["cls"]), ["train-0.tar", "train #1.tar"])
    (place / "classnames.txt").write_text("blue\nred\n")
    store.put("shards", place, "a zoo/")
    machines = Machines()
    monkeypatch.setattr(shards, "RACY_S", -5)
    opened = open_source("s3://shards/a zoo", cache=tmp_path / "cache", readers=machines)
    assert sorted(machines.asked) == ["s3://shards/a%20zoo/train%20%231.tar", "s3://shards/a%20zoo/train-0.tar"]
    here = open_source(place, cache=tmp_path / "own")
    assert sorted((row.path, row.label, opened.digest(row)) for row in opened.rows) == sorted(
        (row.path, row.label, here.digest(row)) for row in here.rows
    )
    assert {row.path: opened.read(row) for row in opened.rows[::7]} == {
        row.path: here.read(row) for row in here.rows if row.path in {one.path for one in opened.rows[::7]}
    }
    assert all(opened.uri(row) for row in opened.rows)
    open_source("s3://shards/a zoo", cache=tmp_path / "cache", readers=machines)
    assert len(machines.asked) == 2, "the stamps of the bucket did not change"
    catalog = scan(opened, seed=0, valid_fraction=0.2, readers=machines)
    assert len(machines.asked) == 2, "digests are known"
    assert len(catalog.photos) == 40
    one = open_source("s3://shards/a zoo/train-0.tar", cache=tmp_path / "third")
    assert (one.layout, len(one.rows)) == ("webdataset", 20)
    with pytest.raises(SourceError, match="There is nothing at"):
        open_source("s3://shards/a zoo/none.tar", layout="webdataset", cache=tmp_path)


class Apart(Machines):
    """Others that no address is open to."""

    at_once = 1

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def each(self, work: Callable[[list[Any]], list[Any]], rows: Sequence[Any]) -> list[Any]:
        def refused(_: str) -> bytes:
            raise self.error

        with pytest.MonkeyPatch.context() as there:
            there.setattr(reading, "read_address", refused)
            there.setattr(shards, "open_address", refused)
            return super().each(work, rows)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), PermissionError(13, "Access denied")])
@pytest.mark.parametrize("kind", ["folders", "shards"])
def test_what_other_machines_have_no_way_to_is_read_here(
    kind: str, error: Exception, photos: Path, tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'rehead[parquet]'")
    place = photos if kind == "folders" else sharded(tmp_path / "zoo", samples(photos, SAYS["cls"]), ["0.tar", "1.tar"])
    fsspec.filesystem("memory").put(f"{place}/", f"/apart/{kind}/", recursive=True)
    machines = Apart(error)
    opened = open_source(f"memory://apart/{kind}", cache=tmp_path / "cache", readers=machines)
    catalog = scan(opened, seed=0, valid_fraction=0.2, readers=machines)
    assert len(machines.asked) == (40 if kind == "folders" else 2)
    assert len(catalog.photos) == 40
    assert not catalog.skipped
