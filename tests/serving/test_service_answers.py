"""What a running service says of good pictures: the same as `rehead predict`, in the order sent."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import noise
from little import GOLDEN, bundle, picture
from PIL import Image
from served import Here, here

import rehead as package
from rehead.serving.models import Loaded

Cli = Callable[..., subprocess.CompletedProcess[str]]
TASKS = {"one": "bundle-3", "old": "bundle-1", "several": "bundle-2", "number": "bundle-2-number"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folders = {name: GOLDEN / folder for name, folder in TASKS.items()}
    with here({**folders, "little": bundle(tmp_path_factory.mktemp("little") / "bundle")}) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pictures of several formats; one is broken, one lies on its side."""
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.webp", "d.gif", "e.jpg", "f.png")]
    for i, path in enumerate(paths[:-1]):
        exif = Image.Exif()
        exif[0x0112] = 6
        noise(i, ((200, 60, 60), (60, 60, 200))[i % 2], 40 + i).save(path, exif=exif if i == 4 else b"")
    paths[-1].write_bytes(paths[0].read_bytes()[:300])
    return paths


@pytest.mark.parametrize("name", TASKS)
def test_the_same_bytes_give_the_same_answer_as_predict(
    service: Here, rehead: Cli, files: list[Path], name: str
) -> None:
    done = rehead("predict", GOLDEN / TASKS[name], *files, "--format", "jsonl", "--top", "2")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    answer = service.predict_form([(path.name, path.read_bytes()) for path in files], f"?model={name}&top=2")
    assert answer.status == 200
    assert [row.pop("name") for row in answer.json["results"]] == [path.name for path in files]
    assert [Path(row.pop("path")).name for row in said] == [path.name for path in files]
    assert answer.json["results"] == [{**row, "name": path.name} for row, path in zip(said, files, strict=True)]
    assert "error" in said[-1]
    alone = service.predict(files[0].read_bytes(), f"?model={name}&top=2")
    assert alone.json["results"] == [{**said[0], "name": None}]


def test_an_answer_names_model_version_task_and_request(service: Here) -> None:
    answer = service.predict(picture(), "?model=several", X_Request_ID="mine-1")
    said = answer.json
    assert (said["model"], said["task"], said["request_id"]) == ("several", "multilabel", "mine-1")
    assert answer.headers["x-request-id"] == "mine-1"
    facts = (GOLDEN / "bundle-2" / "rehead.json").read_bytes()
    assert said["version"] == hashlib.sha256(facts).hexdigest()[:12]
    other = service.predict(picture(), X_Request_ID="a b\tc")
    assert other.json["request_id"] == other.headers["x-request-id"] != "a b\tc"
    assert other.json["model"] == "one"  # the first


def test_names_of_files_come_back_as_they_were_sent(service: Here) -> None:
    names = ["Ünïcode 猫.png", "a b.png", "../../etc/passwd", "", "same", "same"]
    answer = service.predict_form([(name, picture()) for name in names])
    assert [row["name"] for row in answer.json["results"]] == names


def test_a_map_covers_the_part_that_the_network_sees(service: Here, tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40, 2], pixels[:, 40:, 0] = 200, 250
    Image.fromarray(pixels).save(tmp_path / "halves.png")
    answer = service.predict((tmp_path / "halves.png").read_bytes(), "?model=little&explain=true")
    heat = answer.json["results"][0]["heat"]
    assert (heat["label"], heat["method"]) == ("red", "class activation map")
    assert heat["box"] == pytest.approx([0.28125, 0.0625, 0.71875, 0.9375])  # 87.5 % of the shorter side, in the middle
    kind, _, data = heat["image"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert image.mode == "RGBA"
    assert len(data) < 8_000
    assert alpha[:, : alpha.shape[1] // 4].mean() < 10 < 100 < alpha[:, -alpha.shape[1] // 4 :].mean()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_map_of_a_picture_that_lies_on_its_side_covers_the_same_part_in_every_format(
    service: Here, kind: str
) -> None:
    lying = Image.Exif()
    lying[0x0112] = 6
    with io.BytesIO() as file:
        Image.new("RGB", (300, 200)).save(file, kind, exif=lying)
        answer = service.predict(file.getvalue(), "?model=little&explain=true")
    assert answer.json["results"][0]["heat"]["box"] == pytest.approx([0.0625, 0.2083, 0.9375, 0.7917], abs=1e-4)


def test_a_bundle_without_a_map_says_so(service: Here) -> None:
    for name, word in (("old", "no map"), ("number", "a number")):
        row = service.predict(picture(), f"?model={name}&explain=true").json["results"][0]
        assert word in row["heat"]["error"]


def test_models_are_described(service: Here) -> None:
    said = service.get("/v1/model").json
    assert [model["name"] for model in said["models"]] == [*TASKS, "little"]
    one, little = said["models"][0], said["models"][-1]
    assert one["classes"] == ["blue", "red"]
    assert one["input"] == {"height": 16, "width": 16}
    assert (one["unsure_below"], one["unfamiliar_above"], one["n_train"]) == (0.8, 0.1, 16)
    assert (said["models"][1]["explains"], little["explains"], one["stale"]) == (False, True, False)
    assert said["models"][2]["thresholds"] == [0.5, 0.75, 0.25]
    assert said["feedback"] is False
    assert said["limits"]["images"] == 64


def test_health_and_metrics(service: Here) -> None:
    assert service.get("/healthz").json == {"status": "alive"}
    assert service.get("/readyz").json == {"status": "ready"}
    service.predict_form([("a", picture()), ("b", b"no")], "?model=little")
    text = service.get("/metrics").body.decode()
    assert 'rehead_requests_total{route="/v1/predict",status="200"}' in text
    assert 'rehead_bad_photos_total{model="little"} 1.0' in text
    for name in ("rehead_request_seconds_bucket", "rehead_batch_photos_bucket", "rehead_waiting_photos 0.0"):
        assert name in text
    assert "rehead_held_bytes 0.0" in text  # a gauge: what is over is given back


def test_the_log_has_a_line_a_request_without_names_and_content(service: Here) -> None:
    service.predict_form([("secret-name.png", picture())], "?model=little", X_Request_ID="logged")
    service.get("/healthz")  # the line before it is written by then
    line = next(line for line in service.said if line["request_id"] == "logged")
    assert (line["event"], line["method"], line["route"]) == ("request", "POST", "/v1/predict")
    assert (line["status"], line["photos"], line["model"]) == (200, 1, "little")
    assert line["ms"] > 0
    assert "secret-name" not in json.dumps(service.said)


def test_docs_come_from_here_alone(service: Here) -> None:
    page = service.get("/docs").body.decode()
    assert "http" not in page.replace('http-equiv="', "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        answer = service.get(f"/docs/{name}")
        assert answer.status == 200
        assert f"docs/{name}" in page
    assert service.get("/docs/..%2fapp.py").status == 404
    assert "/v1/predict" in service.get("/openapi.json").json["paths"]


def test_browsers_are_told_to_load_nothing_else(service: Here) -> None:
    for path in ("/v1/model", "/docs", "/nothing"):
        headers = service.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_so_they_are_by_an_answer_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Loaded) -> dict[str, Any]:
        raise ValueError("nobody thought of it")

    monkeypatch.setattr(Loaded, "to_dict", fail)
    other = "https://elsewhere.example"
    with here({"x": GOLDEN / "bundle-3"}, cors=[other]) as running:
        answer = running.get("/v1/model", Origin=other)
        assert (answer.status, answer.headers["x-request-id"]) == (500, answer.json["request_id"])
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["access-control-allow-origin"] == other
        failed = [line for line in running.said if line["event"] == "failed"]
    assert [line["request_id"] for line in failed] == [answer.json["request_id"]]
    assert "ValueError: nobody thought of it" in failed[0]["trace"]
    assert [line["status"] for line in running.said if line["event"] == "request"] == [500]


def test_a_service_in_python_needs_no_program(tmp_path: Path) -> None:
    """The one law that all of this stands for: what is served is what a loaded bundle says."""
    model = package.load(GOLDEN / "bundle-3")
    with here({"x": GOLDEN / "bundle-3"}) as running:
        said = running.predict(picture((10, 20, 240))).json["results"][0]
    assert said == {"name": None, **model.predict(picture((10, 20, 240))).to_dict(model.task, 5)}
