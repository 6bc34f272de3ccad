"""What is read of one photo: no more than the beginning of what is none, and never without bound."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import make_photos, noise

from rehead.data import photo_bytes, samples
from rehead.data.addresses import part_of, photo_at
from rehead.data.photo_bytes import HEAD_BYTES, MOST_BYTES, PIECE_BYTES, photo_from, photo_in
from rehead.data.rows import Row
from rehead.data.samples import indexed
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import PhotoError, SourceError
from rehead.pixels import opened

FILM = b"\0\0\0\x20ftypisom" + bytes(1 << 20)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(HEAD_BYTES)
TOO_LARGE = "has over 1.4 GB, more than any photo that can be opened"


def sparse(path: Path, beginning: bytes, size: int) -> Path:
    """A file of so many bytes, which takes no room."""
    path.write_bytes(beginning)
    os.truncate(path, size)
    return path


def test_of_a_film_in_a_folder_of_photos_the_beginning_is_read(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"red": 10, "blue": 10})
    sparse(photos / "red" / "film.mp4", FILM, 8 << 30)
    sparse(photos / "red" / "film.jpg", FILM, 8 << 30)
    sparse(photos / "blue" / "endless.png", PNG, MOST_BYTES + 1)
    source = open_source(photos, cache=tmp_path)
    assert len(source.read(Row("red/film.mp4", "red"))) == HEAD_BYTES
    catalog = scan(source, seed=0, valid_fraction=0.2)
    assert len(catalog.photos) == 20
    assert {skip.path: skip.reason for skip in catalog.skipped} == {
        "red/film.jpg": "is not an image that can be read",
        "blue/endless.png": TOO_LARGE,
    }


HEIC = b"\0\0\0\x18ftypheic" + bytes(100)
WITHOUT_HEIC = """if True:
    import sys
    from pathlib import Path
    sys.modules["pillow_heif"] = None
    from rehead.data.samples import indexed
    from rehead.data.scan import scan
    from rehead.data.sources import open_source
    from rehead.errors import SourceError

    photos, shard = map(Path, sys.argv[1:])
    try:
        scan(open_source(photos, cache=photos.parent), seed=0, valid_fraction=0.2)
    except SourceError as error:
        print(error)
    with shard.open("rb") as stream:
        print(*indexed(stream).skipped)
"""


def test_photos_in_heic_say_what_to_install_where_it_is_not_there(tmp_path: Path) -> None:
    for label in ("red", "blue"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "IMG_1.HEIC").write_bytes(HEIC)
    (tmp_path / "photos" / "red" / "film.mp4").write_bytes(FILM)
    with tarfile.open(tmp_path / "shard.tar", "w") as file:
        for name, data in (("1.heic", HEIC), ("1.cls", b"7")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    words = [sys.executable, "-c", WITHOUT_HEIC, str(tmp_path / "photos"), str(tmp_path / "shard.tar")]
    said = subprocess.run(words, capture_output=True, text=True)
    why = 'is HEIC: install with pip install "rehead[heic]"'
    assert f"Each of 2, such as blue/IMG_1.HEIC, {why}" in said.stdout, said.stderr
    assert 'Install it with: pip install "rehead[heic]"' in said.stdout
    assert "one folder of photos for each class" not in said.stdout
    assert "Mend" not in said.stdout
    assert f"('1.heic', {why!r})" in said.stdout, said.stderr


@pytest.mark.parametrize(("n_photos", "advice"), [(1, "one folder of photos for each class"), (9, "Mend these files")])
def test_where_nothing_can_be_read_most_files_say_what_to_do(n_photos: int, advice: str, tmp_path: Path) -> None:
    for name in [*(f"{n}.png" for n in range(n_photos)), "a.pdf", "b.pdf"]:
        (tmp_path / "photos" / "red").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "red" / name).write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        scan(open_source(tmp_path / "photos", cache=tmp_path), seed=0, valid_fraction=0.2)
    assert advice in caught.value.fix


def test_a_damaged_photo_in_heic_does_not_say_to_install_what_is_there() -> None:
    pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    with pytest.raises(PhotoError, match="is not an image that can be read"), opened(HEIC):
        pass


def test_of_a_photo_all_is_read(tmp_path: Path) -> None:
    noise(1, (200, 60, 60), 300).save(tmp_path / "1.png")
    data = (tmp_path / "1.png").read_bytes()
    assert photo_in(tmp_path / "1.png") == data
    assert photo_from(io.BytesIO(data).read, len(data)) == data
    large = data + bytes(PIECE_BYTES)
    assert photo_from(io.BytesIO(large).read, len(large)) == large
    (tmp_path / "2.png").write_bytes(b"")
    assert photo_in(tmp_path / "2.png") == b""


@pytest.mark.parametrize("at", [lambda uri: uri, lambda uri: part_of(uri, 0, 8 << 30)])
def test_an_address_is_bounded_too(tmp_path: Path, at: Callable[[str], str]) -> None:
    png = sparse(tmp_path / "1.png", PNG, 8 << 30)
    with pytest.raises(PhotoError, match=TOO_LARGE):
        photo_at(at(png.as_uri()))


def test_of_a_film_at_an_address_one_piece_is_read(tmp_path: Path) -> None:
    assert len(photo_at(sparse(tmp_path / "film.mp4", FILM, 8 << 30).as_uri())) == PIECE_BYTES


def test_a_photo_in_a_shard_that_is_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_BYTES", 1000)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for name, data in (("1.png", PNG + bytes(1000)), ("1.cls", b"red"), ("2.png", PNG), ("2.cls", b"red")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    found = indexed(io.BytesIO(stream.getvalue()))
    assert [photo.name for photo in found.photos] == ["2.png"]
    assert found.skipped == [("1.png", TOO_LARGE)]


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends for as long as anybody listens: a picture, a film, or a picture by drops."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        by_drops = self.path == "/drops.png"
        piece = FILM if self.path == "/film" else PNG
        try:
            while True:
                self.wfile.write(piece)
                piece = b"\0" if by_drops else bytes(1 << 16)
                time.sleep(0.05 * by_drops)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def endless() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_sends_for_ever_is_left(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_bytes, "MOST_BYTES", 1_000_000)
    with pytest.raises(PhotoError, match="more than any photo"):
        photo_at(f"{endless}/1.png")
    monkeypatch.setattr("rehead.data.web.PHOTO_S", 0.5)
    with pytest.raises(OSError, match=r"did not send all of it within 0.5 s"):
        photo_at(f"{endless}/drops.png")


def test_of_a_film_on_the_web_the_beginning_is_read(endless: str) -> None:
    assert HEAD_BYTES <= len(photo_at(f"{endless}/film")) <= PIECE_BYTES
