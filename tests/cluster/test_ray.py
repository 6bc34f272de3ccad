"""The same job on a Ray cluster: the same features, head and verdict, also when a node, an actor or the driver is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bucket import Store
from conftest import make_photos
from extracting import on_two_cores
from safetensors.numpy import load_file
from test_sent import CARD

from rehead.cluster.computing import _each
from rehead.cluster.connection import in_words
from rehead.cluster.nodes import LEARNING, SAME, Node, beside_driver, compare, versions
from rehead.cluster.parts import Desk, Shipped, Worker
from rehead.cluster.pool import _refused
from rehead.errors import ClusterError
from rehead.features.cache import list_stores
from rehead.features.store import Store as Features

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'rehead[ray]'")
Program = Callable[..., subprocess.CompletedProcess[str]]
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}  # else it depends on whether somebody made one on this machine before
NODES = Path(__file__).with_name("nodes.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 photos, of which one is damaged."""
    made = make_photos(tmp_path_factory.mktemp("cluster") / "photos", {"red": 100, "blue": 100})
    (made / "red" / "3.png").write_bytes((made / "red" / "3.png").read_bytes()[:200])
    return made


@pytest.fixture(scope="module")
def alone(folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run on one machine, and its cache."""
    place = tmp_path_factory.mktemp("alone")
    own = copied(cache, place / "cache")
    done = program("tune", folder, "--out", place / "run", "--no-report", cache=own)
    assert done.returncode == 0, done.stderr
    return place / "run", own


def copied(cache: Path, to: Path) -> Path:
    """The exported network alone."""
    shutil.copytree(cache / "prefixes", to / "prefixes")
    return to


def program(*words: Any, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rehead", *map(str, words)],
        capture_output=True, text=True, timeout=280, env={**os.environ, **NO_TOKEN, "REHEAD_CACHE": str(cache), **environment},
    )  # fmt: skip


def on_nodes(scenario: str, folder: Path, cache: Path, tmp_path: Path, **environment: str) -> dict[str, Any]:
    own = copied(cache, tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, str(NODES), scenario, str(folder), str(tmp_path / "run"), str(own)],
        capture_output=True, text=True, timeout=280, env={**os.environ, **NO_TOKEN, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-9000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def features(cache: Path, run: Path) -> np.ndarray:
    """Of the run's photos, in the order of its catalog; those that could not be read are left out."""
    digests = [bytes.fromhex(line.split(",")[3]) for line in (run / "catalog.csv").read_text().splitlines()[1:]]
    [folder] = (cache / "features").iterdir()
    with Features.open(cache, folder.name, shape=(1280,), about={}) as store:
        absent = set(store.missing(digests))
        return store.read([digest for digest in digests if digest not in absent])


def same(run: Path, cache: Path, alone: tuple[Path, Path]) -> None:
    """Features, head, split and verdict are those of one machine."""
    wanted, own = alone
    np.testing.assert_array_equal(features(cache, run), features(own, wanted))
    head, other = (load_file(place / "bundle" / "head.safetensors") for place in (run, wanted))
    for name in other:
        np.testing.assert_allclose(head[name], other[name], atol=1e-4, rtol=0)
    assert (run / "catalog.csv").read_text() == (wanted / "catalog.csv").read_text()
    assert (run / "skipped.csv").read_text() == (wanted / "skipped.csv").read_text()
    verdicts = [json.loads((place / "verdict.json").read_text()) for place in (run, wanted)]
    assert verdicts[0]["top1"] == verdicts[1]["top1"]
    images = [json.loads((place / "run.json").read_text())["images"] for place in (run, wanted)]
    assert images[0] == images[1]


def test_ray_local_gives_what_one_machine_gives_and_the_run_says_so(
    folder: Path, cache: Path, alone: tuple[Path, Path], tmp_path: Path
) -> None:
    own = copied(cache, tmp_path / "cache")
    done = program("tune", folder, "--ray", "local", "--out", tmp_path / "run", "--no-report", cache=own)
    assert done.returncode == 0, done.stderr
    same(tmp_path / "run", own, alone)
    assert "Ray: 1 node" in done.stderr + done.stdout
    shown = program("runs", "show", tmp_path / "run", cache=own)
    assert "1 node" in shown.stdout, shown.stdout + shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["plain", "node_killed"])
def test_nodes_give_what_one_machine_gives(
    scenario: str, folder: Path, cache: Path, alone: tuple[Path, Path], tmp_path: Path
) -> None:
    told = on_nodes(scenario, folder, cache, tmp_path)
    assert told["images"] == {"used": 199, "skipped": 1, "from_store": 0}
    same(tmp_path / "run", tmp_path / "cache", alone)


@pytest.mark.slow
def test_activations_below_layers_that_learn_are_computed_by_nodes(folder: Path, cache: Path, tmp_path: Path) -> None:
    words = ("tune", folder, "--train", "last:2", "--epochs", "1", "--no-report", "--out")
    for name, more in (("alone", ()), ("ray", ("--ray", "local"))):
        done = program(*words, tmp_path / name, *more, cache=copied(cache, tmp_path / f"{name}-cache"))
        assert done.returncode == 0, done.stderr
    heads = [load_file(tmp_path / name / "bundle" / "head.safetensors") for name in ("alone", "ray")]
    for name in heads[0]:
        np.testing.assert_allclose(heads[1][name], heads[0][name], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_photos_in_memory_are_sent_to_the_nodes(folder: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    good = shutil.copytree(folder, tmp_path / "good" / "photos")
    (good / "red" / "3.png").unlink()
    told = on_nodes("in_memory", good, cache, tmp_path)
    assert told["images"] == {"used": 199, "skipped": 0, "from_store": 0}
    assert told["verdict"]["top1"]["value"] == 1.0


@pytest.mark.slow
def test_what_has_no_room_to_be_computed_is_told_and_can_be_ended(folder: Path, cache: Path, tmp_path: Path) -> None:
    told = on_nodes("busy", folder, cache, tmp_path)
    assert any("no room for 1 core of one node yet" in note for note in told["notes"]), told["notes"]
    assert told["seconds"] < 10, told["said"]


@pytest.mark.slow
def test_a_photo_that_always_kills_its_actor_is_skipped_like_a_bad_one(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    told = on_nodes("poison", folder, cache, tmp_path, POISON="/blue/77.png")
    assert 'blue/77.png,"could not be computed: the process that tried to ended, 2 times"' in told["skipped"]
    assert told["images"] == {"used": 198, "skipped": 2, "from_store": 0}


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_where_it_was(
    folder: Path, cache: Path, alone: tuple[Path, Path], tmp_path: Path
) -> None:
    own = copied(cache, tmp_path / "cache")
    words = [
        sys.executable,
        "-m",
        "rehead",
        "tune",
        str(folder),
        "--ray",
        "local",
        "--no-report",
        "--out",
        str(tmp_path / "run"),
    ]
    with on_two_cores():
        begun = subprocess.Popen(words, env={**os.environ, "REHEAD_CACHE": str(own)}, stderr=subprocess.DEVNULL)
    with begun as process:
        while process.poll() is None and not any(store.photos for store in list_stores(own)):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    kept = sum(store.photos for store in list_stores(own))
    assert 0 < kept < 199, "killed too late to say anything"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    done = program(*words[3:], "--json", cache=own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"]["from_store"] >= kept
    np.testing.assert_array_equal(features(own, tmp_path / "run"), features(alone[1], alone[0]))
    head, other = (load_file(place / "bundle" / "head.safetensors") for place in (tmp_path / "run", alone[0]))
    for name in other:
        np.testing.assert_allclose(head[name], other[name], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_nodes_read_a_bucket_by_themselves(folder: Path, cache: Path, store: Store, tmp_path: Path) -> None:
    good = shutil.copytree(folder, tmp_path / "good")
    (good / "red" / "3.png").unlink()  # what nodes cannot decode is looked at here too
    store.put("cluster", good)
    told = on_nodes("bucket", good, cache, tmp_path, ADDRESS="s3://cluster", **store.variables)
    assert told["images"] == {"used": 199, "skipped": 0, "from_store": 0}


@pytest.mark.slow
def test_photos_that_nodes_do_not_find_are_sent(
    folder: Path, cache: Path, alone: tuple[Path, Path], tmp_path: Path
) -> None:
    on_nodes("elsewhere", folder, cache, tmp_path)
    same(tmp_path / "run", tmp_path / "cache", alone)


@pytest.mark.realdata
@pytest.mark.slow
def test_cats_and_dogs_by_two_workers_are_those_of_one_machine(cache: Path, data: Path, tmp_path: Path) -> None:
    runs = []
    for name, more in (("alone", ()), ("ray", ("--ray", "local"))):
        own = copied(cache, tmp_path / name / "cache")
        done = program("tune", data / "dogscats", *more, "--out", tmp_path / name / "run", "--no-report", cache=own)
        assert done.returncode == 0, done.stderr
        runs.append((tmp_path / name / "run", own))
    same(*runs[1], runs[0])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ray", "ray://127.0.0.1:9"), "Nobody answers at 127.0.0.1:9."),
        (("--ray", "http://127.0.0.1"), "names no cluster"),
        (("--ray", "auto"), "No Ray cluster runs here."),
        (("--ray", "local", "--engine", "torch"), "needs the device of the nodes"),
        (("--ray", "local", "--device", "cuda"), "has no GPU"),
        (("--ray", "local", "--device", "mps"), "do not go together"),
        (("--ray", "local", "--device", "cuda", "--backbone", "auto"), "do not go together"),
    ],
)
@pytest.mark.long
def test_what_cannot_be_is_said(folder: Path, cache: Path, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    none = (
        {"RAY_TMPDIR": str(tmp_path)} if words == ("--ray", "auto") else {}
    )  # else one that was killed may be on record
    done = program("tune", folder, *words, "--out", tmp_path / "run", cache=cache, **none)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_was_killed_is_not_waited_for(folder: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    words = ("tune", folder, "--ray", "auto", "--out", tmp_path / "run")
    done = program(*words, cache=cache, RAY_TMPDIR=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "No Ray cluster runs here." in done.stderr
    assert "at 127.0.0.1:9, does not answer" in done.stderr


@pytest.mark.slow
def test_nodes_run_the_network_by_pytorch_as_one_machine_does(folder: Path, cache: Path, tmp_path: Path) -> None:
    """On CPUs: on a GPU it is the same way, but for the device's name."""
    own = copied(cache, tmp_path / "alone-cache")
    settings = ("--engine", "torch", "--device", "cpu", "--no-report")
    done = program("tune", folder, *settings, "--out", tmp_path / "alone", cache=own)
    assert done.returncode == 0, done.stderr
    on_nodes("by_torch", folder, cache, tmp_path)
    ours, wanted = features(tmp_path / "cache", tmp_path / "run"), features(own, tmp_path / "alone")
    np.testing.assert_allclose(ours, wanted, atol=2e-3 * np.abs(wanted).max())
    verdicts = [json.loads((place / "verdict.json").read_text()) for place in (tmp_path / "run", tmp_path / "alone")]
    assert verdicts[0]["cells"] == verdicts[1]["cells"]


@pytest.mark.slow
def test_a_row_that_ends_each_process_costs_itself_alone(folder: Path, cache: Path, tmp_path: Path) -> None:
    said = on_nodes("deadly", folder, cache, tmp_path)["said"]
    assert said == ["3 is fine", "could not be looked at: the process that tried to ended, 2 times", "5 is fine"]


def test_a_node_with_other_versions_is_refused() -> None:
    ours = versions((*SAME, *LEARNING))
    with pytest.raises(ClusterError, match=r"has onnxruntime 1\.0\.0, and this machine"):
        compare("ray://head:10001", {"10.0.0.2": {**ours, "onnxruntime": "1.0.0"}}, ours)
    with pytest.raises(ClusterError, match="has no torch"):
        compare("ray://head:10001", {"10.0.0.2": {**ours, "torch": ""}}, ours)
    with pytest.raises(ClusterError, match=f"has no {', '.join((*SAME, *LEARNING))}"):
        compare("ray://head:10001", {"10.0.0.2": {}}, ours)
    compare("ray://head:10001", {"10.0.0.2": ours}, ours)


@pytest.mark.parametrize(("here", "asked"), [("head", ["10.0.0.1"]), ("worker", [])])
def test_a_head_without_cores_is_asked_too(monkeypatch: pytest.MonkeyPatch, here: str, asked: list[str]) -> None:
    there = [
        {"NodeID": "head", "NodeManagerAddress": "10.0.0.1"},
        {"NodeID": "worker", "NodeManagerAddress": "10.0.0.2"},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: there)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: here))
    assert [node.address for node in beside_driver([Node("worker", "10.0.0.2", 4)])] == asked


class Near:
    """An actor as its handle shows it, here."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._actor, name))


def test_a_node_that_joined_later_with_other_versions_is_refused_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    desk = Desk()
    desk.keep(Shipped(CARD, "ray://head:10001", versions={**versions(SAME), "numpy": "1.0.0"}))
    other = r"has numpy \S+, and this machine 1\.0\.0"
    with pytest.raises(ClusterError, match="gave up"), in_words(), _refused(Near(desk)):
        raise ray.exceptions.ActorDiedError
    with pytest.raises(ClusterError, match=other):
        Worker(Near(desk), "onnxruntime", "cpu", 1, "plain")
    with pytest.raises(ClusterError, match=other), in_words(), _refused(Near(desk)):
        raise ray.exceptions.ActorDiedError


def test_what_a_task_refuses_is_said_in_its_words() -> None:
    with pytest.raises(ClusterError, match="has no a library") as said:
        _each("ray://head:10001", {**versions(SAME), "a library": "1"}, list, [1])
    assert _each("ray://head:10001", versions(SAME), list, [1]) == [1]
    with pytest.raises(ClusterError, match="has no a library"), in_words():
        raise ray.exceptions.RayTaskError("_each", "Traceback", said.value).as_instanceof_cause()


@pytest.mark.slow
def test_actors_on_a_node_with_other_versions_end_the_job(folder: Path, cache: Path, tmp_path: Path) -> None:
    said = on_nodes("otherwise", folder, cache, tmp_path)["said"]
    assert "has rehead 0.1, and this machine" in said
    assert "Install one version everywhere" in said


@dataclass(frozen=True)
class Head:
    """Where a cluster is asked by its nodes, and from outside."""

    inside: str
    outside: str


@contextlib.contextmanager
def head(version: str = ray.__version__) -> Iterator[Head]:
    """A cluster of one node, whose Ray says that it has this version."""
    with socket.socket() as free, socket.socket() as also:
        for one in (free, also):
            one.bind(("127.0.0.1", 0))
        port, client_port = free.getsockname()[1], also.getsockname()[1]
    code = f"import ray; ray.__version__ = {version!r}; from ray.scripts.scripts import main; main()"
    words = ["start", "--head", "--block", "--num-cpus=1", "--include-dashboard=false", "--object-store-memory=80000000",
             f"--port={port}", f"--ray-client-server-port={client_port}"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **NO_TOKEN})  # fmt: skip
    try:
        for _ in range(600):
            try:
                for one in (port, client_port):
                    socket.create_connection(("127.0.0.1", one), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        else:
            raise AssertionError("never ready")
        yield Head(f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
def test_another_version_of_ray_is_said(folder: Path, cache: Path, tmp_path: Path) -> None:
    with head("2.1.0") as other:
        for address in (other.inside, other.outside):
            done = program("tune", folder, "--ray", address, "--out", tmp_path / "run", cache=cache)
            assert done.returncode == 2, done.stderr
            assert "another version of Ray" in done.stderr, done.stderr
            assert "2.1.0" in done.stderr


@pytest.mark.slow
def test_a_cluster_is_used_from_outside_and_from_one_of_its_nodes(
    folder: Path, cache: Path, alone: tuple[Path, Path], tmp_path: Path
) -> None:
    with head() as there:
        for name, address in (("outside", there.outside), ("inside", there.inside)):
            own = copied(cache, tmp_path / f"{name}-cache")
            words = ("tune", folder, "--ray", address, "--out", tmp_path / name, "--no-report")
            done = program(*words, cache=own)
            assert done.returncode == 0, done.stderr
            same(tmp_path / name, own, alone)
