"""A table of photos on the web: each is read from where it is."""

from __future__ import annotations

import functools
import http.server
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import blake3
import pytest
from conftest import make_photos

import rehead
from rehead.data import addresses
from rehead.data.addresses import fetched
from rehead.data.rows import Request
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import SourceError
from rehead.features.cache import other_bytes
from rehead.features.clearing import Cleared, clear

ASKED: list[str] = []  # what the server was asked for


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_request(self, *_: object) -> None:
        ASKED.append(self.requestline)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", {"red": 24, "blue": 24})


@pytest.fixture
def web(photos: Path) -> Iterator[str]:
    """The address of the photos."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(photos)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def table(photos: Path, web: str, tmp_path: Path) -> Path:
    names = sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*.png"))
    lines = [f"{web}/{name},{name.partition('/')[0]}" for name in names]
    path = tmp_path / "urls.csv"
    path.write_text("\n".join(["path,label", *lines]) + "\n")
    return path


def test_photos_on_the_web_become_a_model(table: Path, photos: Path, cache: Path, tmp_path: Path) -> None:
    tuned = rehead.tune(table, cache=cache, out=tmp_path / "run", report=False)
    assert (tuned.images["used"], tuned.images["skipped"]) == (48, 0)
    digests = {blake3.blake3(path.read_bytes()).hexdigest() for path in photos.glob("*/*.png")}
    assert {line.split(",")[3] for line in (tmp_path / "run" / "catalog.csv").read_text().splitlines()[1:]} == digests


def test_one_that_is_not_there_and_one_that_is_no_photo_cost_themselves(table: Path, web: str, tmp_path: Path) -> None:
    with table.open("a") as file:
        file.write(f"{web}/red/none.png,red\n{web}/,red\n")
        file.write("http://127.0.0.1:9/red/down.png,red\nhttps://nowhere.invalid/1.png,red\n")
    ASKED.clear()
    catalog = scan(open_source(table, cache=tmp_path / "cache"), seed=0, valid_fraction=0.2)
    assert len(catalog.photos) == 48
    assert len(ASKED) == 49  # one request each
    told = {skip.path.removeprefix(web): skip.reason for skip in catalog.bad}
    assert "onnect" in told.pop("http://127.0.0.1:9/red/down.png")
    assert told.pop("https://nowhere.invalid/1.png").startswith("cannot be read: ")
    assert told == {"/red/none.png": "is not there", "/": "names no photo"}


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehead.data.web.WEB_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError, match=r"did not answer within 0.5 s"):
        addresses.read_address(f"http://127.0.0.1:{silent.getsockname()[1]}/1.jpg")


@pytest.mark.parametrize("asked", ["", "?dl=1&name=a%20b"])
def test_an_archive_is_asked_for_as_its_address_is_written(photos: Path, web: str, tmp_path: Path, asked: str) -> None:
    shutil.move(shutil.make_archive(str(tmp_path / "zoo 1"), "zip", photos), photos)
    ASKED.clear()
    source = open_source(f"{web}/zoo%201.zip{asked}", cache=tmp_path / "cache")
    assert (source.name, len(source.rows)) == ("zoo-1", 48)
    assert {line.split()[1] for line in ASKED} == {f"/zoo%201.zip{asked}"}


def test_what_is_fetched_lies_where_it_is_cleared_when_nobody_uses_it(web: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with fetched(f"{web}/red/0.png", Request(cache=cache)) as path:
        assert os.listdir(cache) == ["archives"]
        os.utime(path, (0, 0))
        os.utime(path.parent, (0, 0))
        assert clear(cache) == Cleared(freed_bytes=0, kept_in_use=1, matched=1)
        assert path.is_file()
        killed = shutil.copytree(path.parent, path.parent.with_name(f".fetched-{'0' * 12}.part"))
    os.utime(killed, (0, 0))
    assert other_bytes(cache) > 0
    assert clear(cache).matched == 1
    assert os.listdir(cache / "archives") == []


@pytest.fixture
def failing(web: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The same server, told to fail: "503", "403" or "429" at once; "503 late" and "broken" in what comes behind its begin."""

    def fails(how: str) -> str:
        def do_get(handler: Quiet) -> None:
            status, is_late, begins = (
                how[:3],
                how.endswith("late"),
                handler.headers.get("Range", "bytes=0-").startswith("bytes=0-"),
            )
            if status.isdigit() and not (is_late and begins):
                return handler.send_error(int(status))
            if is_late and "Range" in handler.headers:
                body = bytes(2**20)
                handler.send_response(206)
                handler.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{20 * 2**20}")
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)
                return None
            handler.send_response(200)
            handler.send_header("Accept-Ranges", "bytes")
            handler.send_header("Content-Length", str(20 * 2**20))
            handler.end_headers()
            if handler.command == "GET":
                handler.wfile.write(bytes(1000))
                handler.close_connection = True
            return None

        monkeypatch.setattr(Quiet, "do_GET", do_get)
        monkeypatch.setattr(Quiet, "do_HEAD", do_get)
        return web

    return fails


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("503", "the store failed"), ("429", "the store failed"), ("403", "the store does not let this machine read there"),
        ("503 late", "the store failed"), ("broken", "the store failed"), ("404", "There is nothing at"),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_told(failing: Callable[[str], str], how: str, said: str, tmp_path: Path) -> None:
    web = failing(how)
    files = ["photos.zip", "table.csv", "shards.tar"]
    for name in files if how in ("503 late", "broken") else [*files, "photos/", "photo.jpg"]:
        with pytest.raises(SourceError) as caught:
            open_source(f"{web}/{name}", cache=tmp_path / "cache")
        assert said in caught.value.what, name
        assert (" cannot be listed: " in caught.value.what) == (name in ("photos/", "photo.jpg") and how != "404"), name
    assert not list(tmp_path.rglob("*fetched*.part"))


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(SourceError, match="the store cannot be reached"):
        open_source(f"http://127.0.0.1:{port}/photos.zip", cache=tmp_path)


def test_what_a_store_refused_is_said_again_without_what_was_said_before() -> None:
    errors = []
    for _ in range(3):
        with pytest.raises(SourceError) as caught:
            addresses.store_at("nosuch://here", "1.jpg")
        errors.append(caught)
    assert len({str(caught.value) for caught in errors}) == 1
    assert len({id(caught.value) for caught in errors}) == 3
    assert len(errors[1].traceback) == len(errors[2].traceback)


def test_without_its_library_the_error_says_what_to_install(table: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['aiohttp'] = None; from rehead.cli.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "tune", str(table), "--cache", str(tmp_path / "cache")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "Each of 48, such as http://127.0.0.1:" in told
    assert "needs the library 'aiohttp', which is not installed" in told
    assert 'pip install "rehead[web]"' in told
    assert "Mend what the list names." in told


def test_all_names_of_a_shard_on_the_web_are_read(photos: Path, web: str, tmp_path: Path) -> None:
    """They are no image, of which only the beginning would be asked for."""
    with tarfile.open(photos / "train-0.tar", "w") as shard:
        for i, path in enumerate(sorted(photos.glob("*/*.png"))):
            shard.add(path, f"{i:03d}.png")
            info = tarfile.TarInfo(f"{i:03d}.cls")
            info.size = 6
            shard.addfile(info, io.BytesIO(b"%06d" % (60_000 - i % 2)))
    (photos / "classnames.txt").write_text("".join(f"name {i}\n" for i in range(60_001)))
    opened = open_source(f"{web}/train-0.tar", cache=tmp_path / "cache")
    assert {row.label for row in opened.rows} == {"name 60000", "name 59999"}
