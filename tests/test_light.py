"""The program without PyTorch, in clean environments that `make test` installs as a user would: ".[serve]", ".[head]"."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos

import rehead
from rehead.bundle_head import read_head

LIGHT = Path(__file__).parents[1] / ".light"


def program(extra: str) -> Path:
    path = LIGHT / extra / "bin" / "rehead"
    if not path.is_file():
        pytest.skip(f"{path} is not there: `make {LIGHT.name}/{extra}.done` installs it")
    return path


def light(extra: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program of that environment; nothing of this one is in its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(program(extra)), *map(str, arguments)]
    environment["REHEAD_CACHE"] = str(cwd / "cache")
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("light") / "photos", {"red": 20, "blue": 20})


@pytest.fixture(scope="module")
def bundle(photos: Path, cache: Path) -> Path:
    return rehead.tune(photos, cache=cache, out=photos.parent / "run", head="prototype", report=False).bundle


@pytest.mark.parametrize("extra", ["serve", "head"])
def test_there_is_no_pytorch(extra: str) -> None:
    python = program(extra).with_name("python")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    assert subprocess.run([python, "-c", "import rehead.predict"], capture_output=True).returncode == 0


def test_predictions_are_those_of_the_whole_install(bundle: Path, photos: Path, tmp_path: Path) -> None:
    files = sorted((photos / "red").iterdir())[:5]
    done = light("serve", "predict", bundle, *files, "--format", "jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = rehead.load(bundle)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["probability"] for row in rows] == [model.predict(file).probability for file in files]
    assert [row["unfamiliar"] for row in rows] == [model.predict(file).unfamiliar for file in files]


def test_a_map_of_where_it_looks_needs_no_more(bundle: Path, photos: Path, tmp_path: Path) -> None:
    photo = photos / "red" / "0.png"
    done = light("serve", "explain", bundle, photo, "--out", tmp_path / "map.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.png").stat().st_size > 1_000


@pytest.mark.parametrize("command", [["tune", "photos"], ["verify", "bundle", "photos"], ["backbones"], ["demo"]])
def test_what_is_missing_is_said_with_what_to_install(command: list[str], tmp_path: Path) -> None:
    done = light("serve", *command, cwd=tmp_path)
    assert done.returncode == 2
    assert "which is not installed" in done.stderr
    assert f'pip install "rehead[{"tune" if command == ["backbones"] else "head"}]"' in done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["s3://bucket/photos"], "parquet"),
        ([".", "--features", "s3://b/f"], "parquet"),
        ([".", "--ray", "local"], "ray"),
    ],
)
def test_what_buckets_and_clusters_need_is_said(words: list[str], extra: str, tmp_path: Path) -> None:
    done = light("head", "tune", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert f'pip install "rehead[{extra}]"' in done.stderr, done.stderr


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(program("serve")), "serve", str(bundle), "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, text=True, cwd=tmp_path, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(200):
                try:
                    with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                        break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.1)
            else:
                raise AssertionError("never ready")
            yield process, address
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def test_it_serves_the_same_answers_and_its_page(
    server: tuple[subprocess.Popen[str], str], bundle: Path, photos: Path
) -> None:
    process, address = server
    photo = photos / "blue" / "3.png"
    request = urllib.request.Request(
        f"{address}/v1/predict", data=photo.read_bytes(), headers={"Content-Type": "application/octet-stream"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        row = json.load(answer)["results"][0]
    expected = rehead.load(bundle).predict(photo)
    assert (row["label"], row["probability"]) == ("blue", expected.probability)
    for place, words in {"/": b"What do these pictures show", "/page.js": b"import", "/docs": b"swagger"}.items():
        with urllib.request.urlopen(address + place, timeout=20) as answer:
            assert words in answer.read()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_the_default_backbone_gets_the_head_that_the_whole_install_gives_it(
    photos: Path, tmp_path: Path, cache: Path
) -> None:
    done = light("head", "tune", photos, "--no-report", "--out", tmp_path / "light", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole = rehead.tune(photos, cache=cache, out=tmp_path / "whole", report=False)
    ours, theirs = (read_head(bundle) for bundle in (tmp_path / "light" / "bundle", whole.bundle))
    for (weight, bias), (other_weight, other_bias) in zip(ours.layers, theirs.layers, strict=True):
        assert np.abs(weight - other_weight).max() < 1e-4  # of 0.2: features are rounded to half precision
        assert np.abs(bias - other_bias).max() < 1e-4
    told = light("head", "tune", photos, "--train", "last:2", cwd=tmp_path)
    assert told.returncode == 2
    assert 'pip install "rehead[tune]"' in told.stderr


@pytest.mark.parametrize("head", ["linear", pytest.param("prototype", marks=pytest.mark.slow)])
@pytest.mark.long
def test_a_bundle_gets_the_head_that_the_whole_install_gives_it(
    head: str, bundle: Path, tmp_path: Path, cache: Path
) -> None:
    photos = make_photos(tmp_path / "own", {"green": 20, "grey": 20})
    away = tmp_path / "away"
    bundle.rename(away)
    try:
        arguments = ["tune", "--from", away, photos, "--head", head, "--no-report", "--out", tmp_path / "light"]
        done = light("head", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        whole = rehead.tune(photos, from_run=away, head=head, cache=cache, out=tmp_path / "whole", report=False)
    finally:
        away.rename(bundle)
    ours, theirs = read_head(tmp_path / "light" / "bundle"), read_head(whole.bundle)
    for (weight, bias), (other_weight, other_bias) in zip(ours.layers, theirs.layers, strict=True):
        assert np.abs(weight - other_weight).max() < 1e-5
        assert np.abs(bias - other_bias).max() < 1e-5
