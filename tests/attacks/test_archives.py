"""Archives: unpacked once and whole, and what hostile or broken ones get."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disks import small_disk
from hypothesis import given
from hypothesis import strategies as st

from rehead.data.archives import unpacked
from rehead.data.limits import Limits
from rehead.data.sources import Source, open_source, walk
from rehead.errors import SourceError, StoreError, UnsafeArchive
from rehead.progress import Silent

PETS = {f"{kind}/{i}.jpg": f"{kind} {i}".encode() for kind in ("cat", "dog") for i in range(3)}
FLAT = {f"train/{kind}.{i}.jpg": f"{kind} {i}".encode() for kind in ("cat", "dog") for i in range(3)}
SMALL = Limits(n_bytes=1000, ratio=200, free_bytes=1000, n_members=20, depth=3)


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def tarred(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            file.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return stream.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str, target: str) -> bytes:
    stream = io.BytesIO()
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("cat/1.jpg", b"cat")
        file.writestr(info, target)
    return stream.getvalue()


def saved(tmp_path: Path, data: bytes, name: str = "pets.zip") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def opened(path: Path, tmp_path: Path, **options: Any) -> Source:
    return open_source(path, cache=tmp_path / "cache", **options)


def contents(source: Source) -> dict[str, bytes]:
    return {row.path: source.read(row) for row in source.rows}


def left_behind(tmp_path: Path) -> list[str]:
    """What lies in the cache's folder of archives, hidden files included."""
    folder = tmp_path / "cache" / "archives"
    return os.listdir(folder) if folder.exists() else []


# -- what is unpacked


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pets.zip", zipped(PETS)),
        ("pets.tar", tarred(dict(PETS))),
        ("pets.tar.gz", tarred(dict(PETS), "w:gz")),
        ("pets.TGZ", tarred(dict(PETS), "w:gz")),
        ("pets.tar.xz", tarred(dict(PETS), "w:xz")),
        ("pets.tar.bz2", tarred(dict(PETS), "w:bz2")),
        ("pets.tar.gz", zipped(PETS)),  # told by content
    ],
)
def test_an_archive_is_read_like_the_folder_in_it(tmp_path: Path, name: str, data: bytes) -> None:
    source = opened(saved(tmp_path, data, name), tmp_path)
    assert (source.name, source.layout) == ("pets", "folders")
    assert contents(source) == PETS


def test_an_archive_may_hold_a_manifest(tmp_path: Path) -> None:
    members = {"pets/labels.csv": b"path,label\nimages/1.jpg,cat\nimages/2.jpg,dog\n"}
    source = opened(saved(tmp_path, zipped(members | {f"pets/images/{i}.jpg": b"x" for i in (1, 2)})), tmp_path)
    assert [(row.path, row.label) for row in source.rows] == [("images/1.jpg", "cat"), ("images/2.jpg", "dog")]


def test_kaggles_zip_inside_a_zip_is_unpacked(tmp_path: Path) -> None:
    inner = {"train.zip": zipped(FLAT), "test1.zip": zipped({f"test1/{i}.jpg": b"x" for i in range(9)})}
    source = opened(saved(tmp_path, zipped({**inner, "sampleSubmission.csv": b"id,label\n1,0\n"})), tmp_path)
    assert source.layout == "flat"
    assert {row.path: source.read(row) for row in source.rows if row.path.endswith("jpg")} == FLAT
    assert {row.side for row in source.rows} == {None}
    assert [skip.path for skip in source.skipped] == ["test1"]


def test_archives_of_several_kinds_in_each_other_are_unpacked(tmp_path: Path) -> None:
    middle = tarred({"inner.tar.gz": tarred(dict(PETS), "w:gz")})
    source = opened(saved(tmp_path, zipped({"middle.tar": middle})), tmp_path)
    assert sorted(contents(source).values()) == sorted(PETS.values())


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, tarred({"train.zip": zipped(FLAT)}), "pets.tar"), tmp_path)
    assert contents(source) == FLAT


@pytest.mark.parametrize("first", ["BZ", "BZh9", "\x1f"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_a_plain_tar_may_begin_with_a_name_like_a_compressed_one(tmp_path: Path, first: str, form: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as file:
        for name, data in PETS.items():
            info = tarfile.TarInfo(f"{first}{name}")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    folder = unpacked(tmp_path / "a.tar", tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == [f"{first}{kind}" for kind in ("cat", "dog")]


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    path = saved(tmp_path, zipped(PETS))
    folder = unpacked(path, tmp_path / "cache")
    (folder / "mark").touch()
    path.rename(tmp_path / "renamed.zip")
    assert unpacked(tmp_path / "renamed.zip", tmp_path / "cache") == folder
    assert (folder / "mark").exists()
    assert left_behind(tmp_path) == [folder.name]


class Counted(Silent):
    """How far each phase came, of what."""

    def __init__(self) -> None:
        self.phases: dict[str, list[int | None]] = {}

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        self.phases[name] = [0, total]

    def advance(self, n: int = 1) -> None:
        self.phases[list(self.phases)[-1]][0] += n  # type: ignore[operator]


def test_each_file_that_reaches_the_disk_is_told(tmp_path: Path) -> None:
    told = Counted()
    unpacked(saved(tmp_path, zipped({"photos.zip": zipped(PETS), "a.txt": b"a"})), tmp_path / "cache", progress=told)
    assert told.phases["Writing to the disk"] == [len(PETS) + 1, len(PETS) + 1]


def test_of_two_jobs_that_unpack_one_archive_the_later_leaves_the_folder_of_the_first(tmp_path: Path) -> None:
    path, first = saved(tmp_path, zipped({"train.zip": zipped(FLAT)})), []

    def meanwhile(_: Path) -> bool:
        folder = unpacked(path, tmp_path / "cache")
        first.append((folder, folder.stat().st_ino))
        return False

    folder = unpacked(path, tmp_path / "cache", stays=meanwhile)
    assert first == [(folder, folder.stat().st_ino)]
    assert left_behind(tmp_path) == [folder.name]


def test_hidden_members_and_leftovers_are_not_unpacked(tmp_path: Path) -> None:
    members = PETS | {"__MACOSX/cat/._0.jpg": b"x", "cat/.DS_Store": b"x", "./dog/Thumbs.db": b"x"}
    for name, data in (("pets.zip", zipped(members)), ("pets.tar", tarred(dict(members)))):
        folder = unpacked(saved(tmp_path, data, name), tmp_path / "cache")
        assert sum(len(files) for _, _, files in os.walk(folder)) == len(PETS)


def test_backslashes_of_windows_are_separators_in_a_zip(tmp_path: Path) -> None:
    data = zipped({name.replace("/", "|"): content for name, content in PETS.items()}).replace(b"|", b"\\")
    assert contents(opened(saved(tmp_path, data), tmp_path)) == PETS


@pytest.mark.skipif(os.name == "nt", reason="names as on POSIX")
def test_strange_names_are_unpacked(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9") + " 🐈\n.jpg"
    members: dict[str, Any] = {f"{kind}/{name}": b"x" for kind in ("cat", "dog")}
    assert set(contents(opened(saved(tmp_path, tarred(members), "pets.tar"), tmp_path))) == set(members)


def test_links_inside_an_archive_become_files(tmp_path: Path) -> None:
    links = {"cat/9.jpg": link("cat/9.jpg", "0.jpg"), "dog/8.jpg": link("dog/8.jpg", "cat/1.jpg", tarfile.LNKTYPE)}
    chain = {"cat/7.jpg": link("cat/7.jpg", "../dog/6.jpg"), "dog/6.jpg": link("dog/6.jpg", "./0.jpg")}
    loop = {"cat/a.jpg": link("cat/a.jpg", "b.jpg"), "cat/b.jpg": link("cat/b.jpg", "a.jpg")}
    data = tarred({**links, **PETS, **chain, **loop, "mirror": link("mirror", "cat")})
    found = contents(opened(saved(tmp_path, data, "pets.tar"), tmp_path))
    copies = {"cat/9.jpg": b"cat 0", "dog/8.jpg": b"cat 1", "cat/7.jpg": b"dog 0", "dog/6.jpg": b"dog 0"}
    assert found == PETS | copies
    assert not any(path.is_symlink() for path in walk(tmp_path / "cache"))


def test_held_out_photos_may_be_an_archive(tmp_path: Path) -> None:
    train, test = saved(tmp_path, zipped(PETS), "train.zip"), saved(tmp_path, tarred(dict(PETS)), "test.tar")
    source = opened(train, tmp_path, test=test)
    assert len(contents(source)) == 2 * len(PETS)
    assert contents(source)["test/cat/0.jpg"] == b"cat 0"


@pytest.mark.skipif(os.name == "nt", reason="names as on POSIX")
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_colon_in_a_name_is_no_drive(tmp_path: Path, pack: Callable[[Any], bytes]) -> None:
    members = {"C: drive/1.jpg": b"c", "a: first/1.jpg": b"a"}
    name = "pets.zip" if pack is zipped else "pets.tar"
    assert contents(opened(saved(tmp_path, pack(dict(members)), name), tmp_path)) == members


@pytest.mark.parametrize(
    ("members", "named"),
    [({"cat/é" + 140 * "é" + ".jpg": b"x"}, "'cat/éé"), ({"cat": b"x", "cat/1.jpg": b"x"}, "'cat/1.jpg' ")],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_that_cannot_be_written_is_told(
    tmp_path: Path, pack: Callable[[Any], bytes], members: dict[str, bytes], named: str
) -> None:
    path = saved(tmp_path, pack(dict(members)), "pets.zip" if pack is zipped else "pets.tar")
    with pytest.raises(SourceError) as caught:
        opened(path, tmp_path)
    assert caught.value.what == f"{path} cannot be unpacked."
    assert caught.value.why.startswith(f"{named}")
    assert caught.value.fix == "Give it another name in the archive, or leave it out."
    assert left_behind(tmp_path) == []


# -- hostile ones


OUTSIDE = [
    "../evil.jpg",
    "cat/../../evil.jpg",
    "/evil.jpg",
    "C:/evil.jpg",
    *(["c:evil.jpg"] if os.name == "nt" else []),
]


@pytest.mark.parametrize("name", [*OUTSIDE, "..\\evil.jpg", "cat\\..\\..\\evil.jpg", "\\\\host\\evil.jpg"])
def test_a_zip_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, zipped({**PETS, name: b"evil"}))
    with pytest.raises(UnsafeArchive, match="outside the archive's folder"):
        opened(path, tmp_path)
    assert left_behind(tmp_path) == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_tar_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, tarred({**PETS, name: b"evil"}), "pets.tar")
    with pytest.raises(UnsafeArchive, match="outside the archive's folder"):
        opened(path, tmp_path)
    assert left_behind(tmp_path) == []


def test_an_archive_inside_that_climbs_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match=r"'../../evil.jpg' lies outside"):
        opened(saved(tmp_path, zipped({"train.zip": zipped({"../../evil.jpg": b"evil"})})), tmp_path)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret.jpg", "../cat/../../secret.jpg", "C:/secret.jpg"])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    for name, data in (
        ("pets.tar", tarred({**PETS, "cat/9.jpg": link("cat/9.jpg", target)})),
        ("pets.zip", zip_link("cat/9.jpg", target)),
    ):
        with pytest.raises(UnsafeArchive, match="outside the archive's folder"):
            opened(saved(tmp_path, data, name), tmp_path)


def test_hard_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    data = tarred({**PETS, "cat/9.jpg": link("cat/9.jpg", "../../secret.jpg", tarfile.LNKTYPE)})
    with pytest.raises(UnsafeArchive, match="outside the archive's folder"):
        opened(saved(tmp_path, data, "pets.tar"), tmp_path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    data = tarred({"cat": link("cat", "."), "cat/x": link("cat/x", ".."), **PETS})
    opened(saved(tmp_path, data, "pets.tar"), tmp_path)
    assert not any(path.is_symlink() for path in (tmp_path / "cache").rglob("*"))
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("cat/9.jpg")
    info.type = kind
    with pytest.raises(UnsafeArchive, match="is a device"):
        opened(saved(tmp_path, tarred({**PETS, "cat/9.jpg": info}), "pets.tar"), tmp_path)


def test_a_manifest_in_an_archive_cannot_name_files_outside(tmp_path: Path) -> None:
    secret = saved(tmp_path, b"secret", "secret.jpg")
    for name in (str(secret), "../../../secret.jpg"):
        data = zipped({"labels.csv": f"path,label\ncat.jpg,cat\n{name},dog\n".encode(), "cat.jpg": b"x"})
        with pytest.raises(UnsafeArchive, match="lies outside the archive"):
            opened(saved(tmp_path, data), tmp_path)


def test_no_space_leads_out_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "cache" / "archives").mkdir(parents=True)
    (tmp_path / "cache" / "archives" / "secret.jpg").write_bytes(b"secret")
    members = {"labels.csv": b"label,path\ncat, ../secret.jpg\n", "1.jpg": b"x"}
    with pytest.raises(UnsafeArchive, match="outside the archive"):
        opened(saved(tmp_path, zipped(members)), tmp_path)


def test_an_empty_path_in_the_manifest_of_an_archive_costs_its_line_alone(tmp_path: Path) -> None:
    table = b"path,label\ncat/0.jpg,cat\n,dog\ndog/0.jpg,dog\n"
    source = opened(saved(tmp_path, zipped({"labels.csv": table, **PETS})), tmp_path)
    assert [row.path for row in source.rows] == ["cat/0.jpg", "dog/0.jpg"]
    assert [skip.reason for skip in source.skipped] == ["has no path"]


# -- bombs


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("cat/1.jpg", "w", force_zip64=True) as big:
        for _ in range(1100):
            big.write(bytes(2**20))
    with pytest.raises(UnsafeArchive, match="far more than an archive of photos should"):
        opened(path, tmp_path)
    assert left_behind(tmp_path) == []


def test_sizes_are_counted_and_not_believed(tmp_path: Path) -> None:
    data = zipped({"cat/1.jpg": bytes(5000)})
    lying = data.replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != data
    with pytest.raises((UnsafeArchive, SourceError)):
        unpacked(saved(tmp_path, lying), tmp_path / "cache", limits=SMALL)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_bomb_is_refused(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path, tarred({"cat/1.jpg": bytes(300_000)}, mode), "bomb.tar")
    with pytest.raises(UnsafeArchive, match="more than 1,000 bytes"):
        unpacked(path, tmp_path / "cache", limits=SMALL)
    assert left_behind(tmp_path) == []


def test_a_bomb_in_hidden_members_or_in_parts_is_refused(tmp_path: Path) -> None:
    hidden = saved(tmp_path, tarred({".hidden": bytes(300_000)}, "w:gz"), "hidden.tar.gz")
    nested = saved(tmp_path, zipped({f"{i}.zip": zipped({"1.jpg": bytes(400)}) for i in range(3)}), "nested.zip")
    for path in (hidden, nested):
        with pytest.raises(UnsafeArchive, match="more than 1,000 bytes"):
            unpacked(path, tmp_path / "cache", limits=SMALL)


def test_a_header_that_claims_a_name_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    path = saved(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(4096), "name.tar")
    with pytest.raises(SourceError, match="a header claims"):
        unpacked(path, tmp_path / "cache")


def turned_back(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar file whose second member has a header that claims so many bytes, which may be fewer than none."""
    info = tarfile.TarInfo("cat/2.jpg")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size % 256**12).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole = tarred({"cat/1.jpg": b"cat", "dog/1.jpg": b"dog"})
    return whole[:1024] + bytes(header) + whole[1024:]


@pytest.mark.parametrize("layout", ["archive", "auto", "webdataset"])
@pytest.mark.parametrize("size", [-1, -512, -1024, -1536])
def test_a_member_that_ends_before_it_begins_does_not_come_for_ever(tmp_path: Path, layout: str, size: int) -> None:
    (tmp_path / "a.tar").write_bytes(turned_back(size))
    with pytest.raises(SourceError):
        open_source(tmp_path / "a.tar", layout=layout, cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_header_before_a_member_that_claims_less_than_nothing_is_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(turned_back(-1024, kind))
    with pytest.raises(SourceError, match=r"truncated, broken, or no archive"):
        unpacked(tmp_path / "a.tar", tmp_path / "cache")


def test_headers_that_belong_to_each_other_without_end_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    header = info.tobuf(tarfile.GNU_FORMAT) + b"a" + bytes(511)
    (tmp_path / "a.tar").write_bytes(3000 * header + tarred(PETS))
    with pytest.raises(SourceError, match=r"truncated, broken, or no archive"):
        unpacked(tmp_path / "a.tar", tmp_path / "cache")


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, zipped({f"{i}": b"" for i in range(21)}))
    with pytest.raises(UnsafeArchive, match="more than 20 members"):
        unpacked(path, tmp_path / "cache", limits=SMALL)


def test_archives_too_deep_in_each_other_are_refused(tmp_path: Path) -> None:
    data = zipped(PETS)
    for i in range(3):
        data = zipped({f"{i}.zip": data})
    with pytest.raises(UnsafeArchive, match="nested more than 3 deep"):
        opened(saved(tmp_path, data), tmp_path)


def test_a_thousand_folders_in_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="1501 folders deep"):
        opened(saved(tmp_path, tarred({"a/" * 1500 + "1.jpg": b"x"}), "deep.tar"), tmp_path)


# -- broken ones


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:xz", "w:bz2"])
def test_a_truncated_archive_is_a_clear_error(tmp_path: Path, mode: str) -> None:
    noise = {name: os.urandom(3000) for name in PETS}
    data = zipped(noise) if mode == "zip" else tarred(dict(noise), mode)
    ends = {len(data) // 2, 600, 512, 0}
    ends |= set(range(0, 9000, 512)) if mode == "w" else set()
    for end in sorted(ends):
        path = saved(tmp_path, data[:end], "pets.zip" if mode == "zip" else "pets.tar.gz")
        with pytest.raises(SourceError) as caught:
            opened(path, tmp_path)
        assert "truncated, broken, or no archive" in caught.value.what
        assert left_behind(tmp_path) == []


def test_a_flipped_byte_in_a_zip_is_found(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat/1.jpg": os.urandom(2000), "dog/1.jpg": b"x"}))
    data[1000] ^= 1
    with pytest.raises(SourceError, match=r"truncated, broken.*\n.*CRC"):
        opened(saved(tmp_path, bytes(data)), tmp_path)


def test_an_encrypted_zip_says_so(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat/1.jpg": b"x"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(SourceError, match="is encrypted"):
        opened(saved(tmp_path, bytes(data)), tmp_path)


def test_an_unknown_compression_says_so(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat/1.jpg": b"x"}))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + offset] = 9
    with pytest.raises(SourceError, match="compressed in a way that cannot be read"):
        opened(saved(tmp_path, bytes(data)), tmp_path)


def test_a_file_and_a_folder_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be unpacked"):
        opened(saved(tmp_path, zipped({"cat": b"x", "cat/1.jpg": b"y"})), tmp_path)
    assert left_behind(tmp_path) == []


GOOD = {"zip": zipped(PETS), "tar": tarred(dict(PETS)), "tar.gz": tarred(dict(PETS), "w:gz")}


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_any_damage_gives_photos_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, choice: st.DataObject
) -> None:
    tmp_path = tmp_path_factory.mktemp("damage")
    data = bytearray(GOOD[kind])
    for _ in range(choice.draw(st.integers(1, 4))):
        data[choice.draw(st.integers(0, len(data) - 1))] = choice.draw(st.integers(0, 255))
    try:
        source = opened(saved(tmp_path, bytes(data), f"pets.{kind}"), tmp_path)
    except SourceError:
        return
    assert all(source.read(row) is not None for row in source.rows)


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_archive(tmp_path: Path) -> None:
    archive = saved(tmp_path, GOOD["zip"])
    with small_disk(tmp_path / "read_only", "ro") as disk:
        with pytest.raises(StoreError) as caught:
            open_source(archive, cache=disk / "cache")
        assert caught.value.what == f"The cache folder {disk / 'cache'} cannot be written."
        assert "--cache DIR" in caught.value.fix
    with small_disk(tmp_path / "full", "nr_inodes=1") as disk, pytest.raises(SourceError, match="not enough room"):
        open_source(archive, cache=disk / "cache")


def test_a_folder_of_the_cache_that_cannot_be_written_is_not_blamed_on_the_archive(tmp_path: Path) -> None:
    archive = saved(tmp_path, GOOD["zip"])
    (tmp_path / "cache").mkdir()
    with small_disk(tmp_path / "cache" / "archives", "ro") as folder, pytest.raises(StoreError) as caught:
        open_source(archive, cache=tmp_path / "cache")
    assert caught.value.what == f"The cache folder {folder} cannot be written."


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(cache)]
    try:
        is_small = subprocess.run(mounted, capture_output=True, check=False).returncode == 0
    except OSError:
        is_small = False
    if not is_small:
        pytest.skip("a small disk can be mounted here by root only")
    try:
        with pytest.raises(SourceError, match="not enough room on the disk") as caught:
            opened(saved(tmp_path, zipped({"cat/1.jpg": os.urandom(200_000)})), tmp_path)
        assert "--cache" in caught.value.fix
        assert left_behind(tmp_path) == []
    finally:
        subprocess.run(["umount", str(cache)], check=True)
