"""What is told of a photo from its bytes, and that it is told once."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest
from conftest import noise
from made import catalog_of, shapes
from PIL import Image, ImageFilter, ImageOps

from rehead.auditing.facts import Facts, facts_of, hash_of
from rehead.auditing.hashes import MAX_BITS
from rehead.auditing.kept import FILE, Kept, facts_of_photos, hashes_of_photos
from rehead.data.rows import Photo, Row, Source
from rehead.data.scan import scan
from rehead.errors import PhotoError
from rehead.progress import Silent


def encoded(picture: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("quality", [5, 50, 75, 93, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int) -> None:
    assert facts_of(encoded(shapes(0), quality=quality)).quality == quality
    assert facts_of(encoded(shapes(0), "PNG")).quality is None


def test_how_much_detail_a_picture_has_is_not_told_by_what_is_written_beside_it() -> None:
    plain, commented = (facts_of(encoded(shapes(0), quality=90, comment=text)) for text in (b"", b"x" * 40_000))
    assert plain.detail == commented.detail
    assert commented.n_bytes > plain.n_bytes + 40_000


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_camera_date_and_upright_size_come_from_exif(form: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112], exif[0x0132] = "Ours", "X1", 6, "2020:02:03 04:05:06"
    facts = facts_of(encoded(shapes(0), form, exif=exif))
    assert (facts.camera, facts.taken, facts.width, facts.height) == ("Ours X1", 1580702706.0, 240, 320)
    exif[0x0132] = "yesterday"
    assert facts_of(encoded(shapes(0), exif=exif)).taken is None


def test_the_hash_is_that_of_the_library_imagehash() -> None:
    """As its phash(picture, hash_size=16) gives it, 4.3.2."""
    known = (
        0xF233110CCD7DB1AC4354BE6DEDD2900322B8FDD17104FDF3B61F5D2F23111093,
        0xC12C64ACAFAC5CD8C25057AFEB534E2DB7E5BDA7B0BCEA62BECC8410D22064E2,
    )
    assert tuple(facts_of(encoded(shapes(seed, (160, 160)), "PNG")).hash for seed in (0, 1)) == known


def test_a_copy_has_nearly_the_same_hash_and_another_picture_another() -> None:
    first = facts_of(encoded(shapes(0), quality=95)).hash
    copy = facts_of(encoded(shapes(0).resize((200, 150)), quality=40)).hash
    assert (first ^ copy).bit_count() <= MAX_BITS
    assert (first ^ facts_of(encoded(shapes(1))).hash).bit_count() > 60


def test_border_and_inside_are_of_the_edges() -> None:
    framed = ImageOps.expand(Image.new("RGB", (300, 300), (10, 20, 30)), 6, (200, 100, 50))
    facts = facts_of(encoded(framed, "PNG"))
    np.testing.assert_allclose(facts.border, (200, 100, 50, 0) * 4, atol=1)
    np.testing.assert_allclose(facts.inside, (10, 20, 30, 0) * 4, atol=1)


def test_a_blurred_picture_is_less_sharp() -> None:
    picture = noise(0, (120, 120, 120), 200)
    blurred = picture.filter(ImageFilter.GaussianBlur(3))
    assert facts_of(encoded(blurred)).sharpness < facts_of(encoded(picture)).sharpness / 10


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2, 3), (3000, 2), (66_000, 20), (200, 70_000)])
def test_pictures_of_any_shape_have_facts(size: tuple[int, int]) -> None:
    facts = facts_of(encoded(Image.new("RGB", size), "PNG"))
    assert (facts.width, facts.height) == size


def test_a_damaged_picture_has_none() -> None:
    with pytest.raises(PhotoError):
        facts_of(encoded(shapes(0))[:2000])


def test_no_photo_is_decoded_twice_and_a_broken_file_of_facts_costs_time_alone(tmp_path: Path) -> None:
    data, reads = [encoded(shapes(i)) for i in range(3)], []

    def read(photo: object) -> bytes:
        reads.append(photo)
        return data[int(photo.path.partition(".")[0])]  # type: ignore[attr-defined]

    catalog = replace(catalog_of("aab"), read=read)
    first, bad = facts_of_photos(catalog, [0, 1, 2], tmp_path)
    again, _ = facts_of_photos(catalog, [2, 1, 0], tmp_path)
    assert (first, bad, len(reads)) == (again, {}, 3)
    assert all(isinstance(facts, Facts) for facts in again.values())
    (tmp_path / FILE).write_bytes(b"no database, but long enough to look like a file of one")
    assert facts_of_photos(catalog, [0, 1, 2], tmp_path)[0] == first
    assert facts_of_photos(catalog, [0, 1, 2], tmp_path / "no folder")[0] == first


def test_a_photo_that_is_gone_or_damaged_is_told_with_its_reason(tmp_path: Path) -> None:
    def read(photo: object) -> bytes:
        if photo.path == "0.jpg":  # type: ignore[attr-defined]
            raise FileNotFoundError(2, "No such file")
        return b"GIF89a nothing more"

    found, bad = facts_of_photos(replace(catalog_of("ab"), read=read), [0, 1], tmp_path)
    assert (found, bad[0].reason) == ({}, "is not there any more")
    assert bad[1].path == "1.jpg"


class Machines:
    """Other machines, which are this one."""

    at_once = 2

    def __init__(self) -> None:
        self.asked = 0

    def each(self, work: Callable[[list[Any]], list[Any]], rows: Sequence[Any]) -> list[Any]:
        self.asked += len(rows)
        return work(list(rows))


def test_machines_look_at_what_has_an_address_and_this_one_at_what_they_cannot_read() -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'rehead[parquet]'")
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    data = [encoded(shapes(i)) for i in range(3)] + [b"GIF89a nothing more"]
    plain = catalog_of("aabb")
    photos = tuple(
        replace(photo, digest=blake3.blake3(one).digest()) for photo, one in zip(plain.photos, data, strict=True)
    )
    store = fsspec.filesystem("memory")
    for photo, one in zip(photos, [*data[:2], data[0], data[3]], strict=True):  # of one, other bytes than were seen
        store.pipe(f"/looked/{photo.path}", one)
    read: list[str] = []

    def read_here(photo: Photo) -> bytes:
        read.append(photo.path)
        return data[int(photo.path.partition(".")[0])]

    catalog = replace(plain, photos=photos, read=read_here, uri=lambda photo: f"memory://looked/{photo.path}")
    machines = Machines()
    found, bad = facts_of_photos(catalog, range(4), None, readers=machines)
    assert machines.asked == 4
    assert read == [photos[2].path]
    assert {i: facts.hash for i, facts in found.items()} == {i: facts_of(data[i]).hash for i in range(3)}
    assert list(bad) == [3]
    alone, also_bad = facts_of_photos(catalog, range(4), None)
    assert (alone, also_bad) == (found, bad)


def test_facts_taken_when_a_photo_at_an_address_is_read_need_no_second_reading(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'rehead[parquet]'")
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    store = fsspec.filesystem("memory")
    names = [f"{label}/{i}.jpg" for label in "ab" for i in range(4)]
    for i, name in enumerate(names):
        store.pipe(f"/besides/{name}", encoded(shapes(i)))
    read: list[str] = []

    def photo_at(row: Row) -> bytes:
        read.append(row.path)
        return bytes(store.cat(f"/besides/{row.path}"))

    source = Source(
        "far",
        "folders",
        [Row(name, name[0]) for name in names],
        photo_at,
        [],
        uri=lambda row: f"memory://besides/{row.path}",
    )
    for readers, n_here in ((None, 8), (Machines(), 0)):
        cache = tmp_path / str(n_here)
        cache.mkdir()
        read.clear()
        catalog = scan(source, seed=0, valid_fraction=0.3, besides=Kept(cache), readers=readers, is_learned=False)
        assert len(read) == n_here
        found, bad = facts_of_photos(catalog, range(8), cache, readers=readers)
        assert len(read) == n_here
        assert readers is None or readers.asked == 8
        assert not bad
        assert {i: facts.hash for i, facts in found.items()} == {
            i: facts_of(catalog.read(photo)).hash for i, photo in enumerate(catalog.photos)
        }


def test_the_hash_alone_is_that_of_the_facts_which_come_later(tmp_path: Path) -> None:
    """Also of a picture that is so plain that its hash says nothing."""
    data = [
        encoded(shapes(0)),
        encoded(Image.new("L", (300, 200), 90)),
        encoded(shapes(2, (90, 60)), "PNG"),
        b"no picture",
    ]
    assert [(facts_of(one).hash, facts_of(one).is_flat) for one in data[:3]] == [
        (hash_of(one).hash, hash_of(one).is_flat) for one in data[:3]
    ]
    plain = catalog_of("abab")
    photos = tuple(
        replace(photo, digest=blake3.blake3(one).digest()) for photo, one in zip(plain.photos, data, strict=True)
    )
    decoded: list[str] = []

    def read(photo: Photo, *_: object) -> bytes:
        decoded.append(photo.path)
        return data[int(photo.path.partition(".")[0])]

    catalog = replace(plain, photos=photos, read=read)
    for _ in range(2):  # the second time they are known, but for what is no picture
        hashes = dict(hashes_of_photos(catalog, range(4), tmp_path, Silent(), None, whole=False))
        assert hashes == {i: facts_of(data[i]).hash.to_bytes(32, "big") for i in (0, 2)}
    assert decoded.count("0.jpg") == 1
    found, bad = facts_of_photos(catalog, range(4), tmp_path)
    assert (found, list(bad)) == ({i: facts_of(data[i]) for i in range(3)}, [3])
    again, _ = facts_of_photos(catalog, range(3), tmp_path)
    assert again == found
    assert decoded.count("0.jpg") == 2
