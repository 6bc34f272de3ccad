"""`rehead serve` as it is started and ended: its words when it cannot, its exit code when it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little import GOLDEN, bundle, heavy, picture
from safetensors.numpy import save
from served import BOUNDARY, Answer, Program, form, program

from rehead.cli.service import _origin, _token
from rehead.durable import sha256_file
from rehead.errors import BundleError, RecipeError, RunError
from rehead.serving import server
from rehead.serving.app import make_app
from rehead.serving.journal import Journal
from rehead.serving.models import load_named, named_bundles
from rehead.serving.server import bound

Cli = Callable[..., subprocess.CompletedProcess[str]]
BUNDLE = GOLDEN / "bundle-3"


def test_a_program_serves_and_ends_in_order(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    with program(BUNDLE, f"other={GOLDEN / 'bundle-1'}", "--token-file", tmp_path / "token") as running:
        assert running.get("/v1/model").status == 401
        said = running.get("/v1/model", Authorization="Bearer 0123456789abcdef").json
        assert [model["name"] for model in said["models"]] == ["bundle-3", "other"]
        assert running.get("/healthz", Host="elsewhere.example").status == 421
        assert running.end() == 0
        assert running.said[-1]["event"] == "ended"


def test_a_variant_answers_where_one_is_named(rehead: Cli) -> None:
    with program(GOLDEN / "bundle-4", "--variant", "copy") as running:
        assert [model["variant"] for model in running.get("/v1/model").json["models"]] == ["copy"]
        assert running.predict(picture()).status == 200
        assert running.end() == 0
    done = rehead("serve", GOLDEN / "bundle-4", "--variant", "int8", "--port", "0")
    assert done.returncode == 2
    assert "has no variant 'int8'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.long
def test_what_is_under_way_is_answered_first(tmp_path: Path, number: int) -> None:
    running = Program(bundle(tmp_path / "bundle"), "--threads", "1")
    answers: list[Answer] = []
    pictures = [(str(i), heavy(9)) for i in range(12)]
    thread = threading.Thread(target=lambda: answers.append(running.predict_form(pictures)), name="rehead-test")
    thread.start()
    time.sleep(0.2)  # it takes two seconds and more
    assert not answers
    assert running.end(number) == 0
    thread.join()
    assert [row["label"] for row in answers[0].json["results"]] == ["red"] * 12
    with pytest.raises(ConnectionRefusedError):
        running.predict(picture())


def test_answers_after_the_signal_close_their_connections(tmp_path: Path) -> None:
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    with program(bundle(tmp_path / "bundle"), "--threads", "1") as running:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)) as client:
            client.request("GET", "/healthz")
            before = client.getresponse()
            before.read()
            client.request("POST", "/v1/predict", form([(str(i), heavy(9)) for i in range(8)]), kind)
            time.sleep(0.15)  # they take a second and more
            running.process.send_signal(signal.SIGTERM)
            after = client.getresponse()
            assert (before.getheader("connection"), before.will_close) == (None, False)
            assert (after.status, after.getheader("connection")) == (200, "close")
        assert running.end(None) == 0


def test_where_corrections_lie_and_by_what_they_are_learned_is_said_at_the_start(tmp_path: Path) -> None:
    place, golden = tmp_path / "my feedback", GOLDEN / "bundle-2-number"
    with program(f"pets={BUNDLE}", f"sizes={golden}", "--feedback", place) as running:
        assert running.said[0]["corrections"] == {
            "pets": f"rehead tune '{place}/pets'",
            "sizes": f"rehead tune '{place}/sizes' --task regression",
        }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_before_uvicorn_listens_to_it_ends_the_service(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = server.served

    async def late(*arguments: Any) -> None:
        signal.raise_signal(number)
        await asyncio.wait_for(begun(*arguments), 20)

    monkeypatch.setattr(server, "served", late)
    before = signal.getsignal(number)
    journal = Journal(lambda _: None)
    with bound("127.0.0.1", 0) as listening:
        server.serve(make_app({"pets": load_named("pets", BUNDLE)}, journal=journal, workers=1), listening)
    assert signal.getsignal(number) is before


def test_a_port_that_is_in_use(rehead: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = rehead("serve", BUNDLE, "--port", str(port))
    assert done.returncode == 2
    assert f"Port {port} of 127.0.0.1 is in use." in done.stderr
    assert f"--port {port + 1}" in done.stderr


def test_two_bundles_of_one_name(rehead: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        bundle(tmp_path / name / "pets" / "bundle")
    done = rehead("serve", "a/pets/bundle", "b/pets/bundle")
    assert done.returncode == 2
    assert "Two bundles would be called 'pets': a/pets/bundle and b/pets/bundle." in done.stderr
    assert "pets-1=a/pets/bundle pets-2=b/pets/bundle" in done.stderr


def test_what_is_no_bundle(rehead: Cli, tmp_path: Path) -> None:
    done = rehead("serve", tmp_path)
    assert (done.returncode, "is no bundle" in done.stderr) == (2, True)


def test_a_head_that_takes_other_features_than_the_map_has_is_refused_before_it_serves(tmp_path: Path) -> None:
    made = bundle(tmp_path / "pets")
    tensors = {"layers.0.weight": np.ones((3, 5), np.float32), "layers.0.bias": np.zeros(3, np.float32)}
    (made / "head.safetensors").write_bytes(save(tensors))
    facts = json.loads((made / "rehead.json").read_text())
    facts["files"]["head.safetensors"] = sha256_file(made / "head.safetensors")
    (made / "rehead.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"head takes 5 features, and its map has the shape \(3, 4, 4\)"):
        load_named("pets", made)


def test_names_of_bundles(tmp_path: Path) -> None:
    inside = bundle(tmp_path / "pets-1" / "bundle")
    odd = bundle(tmp_path / "a=b")
    assert named_bundles([str(inside), f"x={inside}", str(odd)]) == {"pets-1": inside, "x": inside, "a=b": odd}
    with pytest.raises(RunError, match="it has a slash") as caught:
        named_bundles([f"a/b={inside}"])
    assert f"a-b={inside}" in caught.value.fix
    assert load_named("pets", str(inside)).folder == inside
    for argument in ("=x", "x="):
        with pytest.raises(RunError, match="no name=path"):
            named_bundles([argument])


def test_names_that_are_no_utf_8_are_written_so_that_answers_can_have_them(tmp_path: Path) -> None:
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9-1/bundle")
    folders = named_bundles([place, os.fsdecode(b"\xe9=") + str(bundle(tmp_path / "b"))])
    assert folders == {"caf\\xe9-1": Path(place), "\\xe9": tmp_path / "b"}


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "not an address"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(RunError, match="for this machine alone"):
        bound(host, 0)


def test_ports_that_there_are_none_of() -> None:
    for port in (-1, 65536):
        with pytest.raises(RunError, match="There is no port"):
            bound("127.0.0.1", port)


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "is empty"), (" \n", "is empty"), ("short", "no token"), ("two words of some length", "no token")],
)
def test_a_file_without_a_token(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(RunError, match=word):
        _token(tmp_path / "token")


def test_a_token_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(RunError, match="cannot be read") as caught:
            _token(path)
        assert "openssl rand" in caught.value.fix


def test_origins() -> None:
    assert _origin("https://Photos.Example.org/") == "https://photos.example.org"
    for given, said in {
        "https://x.org:443": "https://x.org",
        "http://x.org:80": "http://x.org",
        "http://x.org:443": "http://x.org:443",
        "https://x.org:8443/": "https://x.org:8443",
        "https://München.de": "https://xn--mnchen-3ya.de",
        "https://xn--mnchen-3ya.de": "https://xn--mnchen-3ya.de",
        "http://[0::1]:8000": "http://[::1]:8000",
    }.items():
        assert _origin(given) == said
    for text in ("https://user:pw@x.org", "https://*.x.org", "https://x.org#a", "https://straße.de", "https://", "https://a b",
                 "*", "photos.example.org", "https://a.example/path", "null", "ftp://a.example",
                 "http://[::1", "http://[a]", "https://a.example:port", "https://a.example:99999"):  # fmt: skip
        with pytest.raises(RecipeError, match="no origin"):
            _origin(text)


def test_an_origin_that_is_none_ends_the_command_with_a_sentence(rehead: Cli) -> None:
    done = rehead("serve", "nowhere", "--cors", "http://[::1")
    assert done.returncode == 2
    assert "--cors 'http://[::1' is no origin." in done.stderr


@pytest.mark.parametrize("option", ["feedback", "variant"])
def test_an_option_with_an_empty_name_is_refused(rehead: Cli, option: str) -> None:
    done = rehead("serve", "nowhere", f"--{option}", "")
    assert done.returncode == 2
    assert f"--{option} has an empty name." in done.stderr


def test_who_serves_everybody_without_a_token_is_warned() -> None:
    with program(BUNDLE, "--host", "0.0.0.0") as running:
        assert "has no token" in running.wait_for("warning")["message"]
        assert running.get("/healthz", Host="anything.example").status == 200


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['fastapi'] = None; from rehead.cli.commands import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve", str(BUNDLE)], capture_output=True, text=True)
    assert (done.returncode, 'pip install "rehead[serve]"' in done.stderr) == (2, True)


def test_serving_needs_no_torch(tmp_path: Path) -> None:
    """In an interpreter that cannot import it, nor what it takes to tune; and asking for maps does not either."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'timm', 'sklearn', 'scipy', 'lmdb', 'onnx', 'matplotlib'));"
        "from rehead.cli.commands import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(bundle(tmp_path / "bundle")), "--port", "0"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = json.loads(process.stderr.readline())
        from served import Client

        client = Client(int(said["address"].rpartition(":")[2]))
        row = client.predict(picture(), "?explain=true").json["results"][0]
        assert (row["label"], row["heat"]["method"]) == ("red", "class activation map")
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stderr.close()
