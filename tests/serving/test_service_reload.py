"""Bundles that are replaced, damaged or deleted while they are served."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from little import bundle, picture
from served import Here, here

from rehead.serving import shelf
from rehead.serving.limits import Limits

QUICK = Limits(watch_s=0.1)


def wait_for(running: Here, event: str, n: int = 1) -> None:
    ends = time.monotonic() + 10
    while len([line for line in running.said if line["event"] == event]) < n:
        assert time.monotonic() < ends, running.said
        time.sleep(0.01)


def model(running: Here) -> dict[str, object]:
    described: dict[str, object] = running.get("/v1/model").json["models"][0]
    return described


def test_a_bundle_that_is_replaced_is_served_from_then_on(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    with here({"x": folder}, limits=QUICK) as running:
        before = model(running)
        assert running.predict(picture()).json["results"][0]["label"] == "red"
        bundle(folder, ("rot", "grün", "blau"))
        wait_for(running, "reloaded")
        said = running.predict(picture()).json
        assert said["results"][0]["label"] == "rot"
        assert said["version"] == model(running)["version"] != before["version"]
        assert 'rehead_reloads_total{model="x",result="reloaded"} 1.0' in running.get("/metrics").body.decode()


def test_a_bundle_that_is_deleted_goes_on_answering_until_another_comes(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    with here({"x": folder}, limits=QUICK) as running:
        shutil.rmtree(folder)
        wait_for(running, "stale")
        assert running.predict(picture()).json["results"][0]["label"] == "red"
        assert model(running)["stale"] is True
        assert running.get("/readyz").status == 200
        bundle(folder, ("rot", "grün", "blau"))
        wait_for(running, "reloaded")
        assert running.predict(picture()).json["results"][0]["label"] == "rot"
        assert model(running)["stale"] is False


def test_a_link_that_leads_to_nothing_beside_the_bundle_does_not_matter(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    (folder / "notes").symlink_to("nowhere")
    with here({"x": folder}, limits=QUICK) as running:
        assert running.predict(picture()).json["results"][0]["label"] == "red"


def test_one_that_cannot_be_loaded_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    with here({"x": folder}, limits=QUICK) as running:
        (folder / "model.onnx").write_bytes(b"broken")
        wait_for(running, "stale")
        line = next(line for line in running.said if line["event"] == "stale")
        assert "was changed after the bundle was written" in line["why"]
        assert running.predict(picture()).json["results"][0]["label"] == "red"


def test_one_that_is_copied_file_by_file_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    folder, other = bundle(tmp_path / "bundle"), bundle(tmp_path / "other", ("rot", "grün", "blau"), 9)
    with here({"x": folder}, limits=QUICK) as running:
        shutil.copy(other / "rehead.json", folder)
        wait_for(running, "stale")
        assert running.predict(picture()).json["results"][0]["label"] == "red"
        for name in ("model.onnx", "head.safetensors", "README.md"):
            shutil.copy(other / name, folder)
        wait_for(running, "reloaded")
        assert running.predict(picture()).json["results"][0]["label"] == "rot"


def test_an_error_that_nobody_thought_of_ends_no_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, load = bundle(tmp_path / "bundle"), shelf.load_named

    def failing(*_: Any) -> Any:
        raise RuntimeError("as of a library,\nin two lines")

    with here({"x": folder}, limits=QUICK) as running:
        monkeypatch.setattr(shelf, "load_named", failing)
        bundle(folder, ("rot", "grün", "blau"))
        wait_for(running, "stale")
        line = next(line for line in running.said if line["event"] == "stale")
        assert line["why"] == "RuntimeError: as of a library, in two lines"
        assert model(running)["stale"] is True
        assert running.predict(picture()).json["results"][0]["label"] == "red"
        monkeypatch.setattr(shelf, "load_named", load)
        bundle(folder, ("rouge", "vert", "bleu"))
        wait_for(running, "reloaded")
        assert running.predict(picture()).json["results"][0]["label"] == "rouge"
