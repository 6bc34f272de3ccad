"""Small pictures of photos learned from: cut from the sheet of the very bundle that answers, and of no other."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from little import bundle as little
from little import picture
from PIL import Image
from served import here
from shown import COLOURS, TILE, bundle, until

from rehead.bundle import read
from rehead.bundle_facts import MAX_TILES
from rehead.durable import sha256_file
from rehead.errors import BundleError
from rehead.jpeg_markers import MAX_SCANS
from rehead.serving.limits import Limits


def test_the_pictures_are_of_the_photos_that_are_named(tmp_path: Path) -> None:
    made = bundle(tmp_path / "colours")
    with here({"my colours": made}) as service:
        assert service.get("/v1/model").json["models"][0]["neighbours"] is True
        for name, colour in COLOURS.items():
            (row,) = service.predict(picture(colour), "?nearest=3").json["results"]
            assert [one["label"] for one in row["nearest"]] == [name] * 3
            alike = [one["similarity"] for one in row["nearest"]]
            assert alike == sorted(alike, reverse=True)
            assert 1 >= alike[0] > 0.95
            for one in row["nearest"]:
                tile = service.get(one["image"])
                assert tile.headers["content-type"] == "image/jpeg"
                assert "immutable" in tile.headers["cache-control"]
                pixels = np.asarray(Image.open(io.BytesIO(tile.body)))
                assert pixels.shape == (TILE, TILE, 3)
                assert np.abs(pixels.mean(axis=(0, 1)) - colour).max() < 40
        assert service.get("/v1/neighbours/my%20colours/29").headers["cache-control"] == "no-store"
        for path in ("my%20colours/30", "my%20colours/-1", "my%20colours/x", "other/1"):
            assert service.get(f"/v1/neighbours/{path}").status in (404, 422)
        assert "nearest" not in service.predict(picture()).json["results"][0]


def test_as_many_as_are_allowed_are_told(tmp_path: Path) -> None:
    with here({"colours": bundle(tmp_path / "colours")}) as service:
        asked = service.get("/openapi.json").json["paths"]["/v1/predict"]["post"]["parameters"]
        (most,) = (one["schema"]["maximum"] for one in asked if one["name"] == "nearest")
        (row,) = service.predict(picture(), f"?nearest={most}").json["results"]
        assert len(row["nearest"]) == most
        assert service.predict(picture(), f"?nearest={most + 1}").status == 422


@pytest.mark.parametrize("kind", ["little", "none"])
def test_a_bundle_that_shows_none_names_none(tmp_path: Path, kind: str) -> None:
    made = little(tmp_path / "made") if kind == "little" else bundle(tmp_path / "made", neighbours=False)
    with here({"made": made}) as service:
        assert service.get("/v1/model").json["models"][0]["neighbours"] is False
        assert service.predict(picture(), "?nearest=3").json["results"][0]["nearest"] == []
        assert service.get("/v1/neighbours/made/0").status == 404


def test_a_sheet_that_is_another_than_the_bundle_came_with_is_not_shown(tmp_path: Path) -> None:
    made = bundle(tmp_path / "colours")
    with here({"colours": made}) as service:
        (made / "neighbours.jpg").write_bytes(picture((1, 2, 3), "JPEG", 160))
        assert service.get("/v1/neighbours/colours/0").status == 404
        assert service.predict(picture()).status == 200


def with_sheet(folder: Path, data: bytes, **about: object) -> Path:
    """A bundle that somebody gave another sheet, and says other things of it."""
    made = bundle(folder)
    (made / "neighbours.jpg").write_bytes(data)
    facts = json.loads((made / "rehead.json").read_text())
    facts["files"]["neighbours.jpg"] = sha256_file(made / "neighbours.jpg")
    facts["neighbours"] |= about
    (made / "rehead.json").write_text(json.dumps(facts))
    return made


@pytest.mark.parametrize("data", [picture((1, 2, 3), "JPEG", 20), b"no picture"])
def test_a_sheet_that_is_smaller_than_it_says_or_is_no_picture_that_is_opened_is_not_shown(
    tmp_path: Path, data: bytes
) -> None:
    with here({"colours": with_sheet(tmp_path / "colours", data)}) as service:
        assert service.get("/v1/neighbours/colours/0").status == 404
        assert service.predict(picture(), "?nearest=3").status == 200


def test_scans_alone_make_a_sheet_one_that_is_not_shown(tmp_path: Path) -> None:
    for n, status in ((MAX_SCANS, 200), (MAX_SCANS + 1, 404)):
        data = picture((1, 2, 3), "JPEG", 16, progressive=True)
        last = data[data.rindex(b"\xff\xda") : -2]
        data = data[:-2] + last * (n - data.count(b"\xff\xda")) + data[-2:]
        made = with_sheet(tmp_path / str(n), data, tile=1, columns=8)
        with here({"colours": made}) as service:
            assert service.get("/v1/neighbours/colours/0").status == status


def test_a_bundle_of_more_small_pictures_than_are_cut_is_refused(tmp_path: Path) -> None:
    made = with_sheet(tmp_path / "colours", picture((1, 2, 3), "JPEG", 100), tile=1, columns=100, labels=[""] * 10_000)
    assert len(read(made).facts["neighbours"]["labels"]) == MAX_TILES == 10_000
    more = with_sheet(tmp_path / "more", picture((1, 2, 3), "JPEG", 128), tile=1, columns=128, labels=[""] * 10_001)
    with pytest.raises(BundleError, match=r"describes 'neighbours\.jpg', which no bundle has so"):
        read(more)


def test_a_sheet_that_could_not_be_read_once_is_tried_again(tmp_path: Path) -> None:
    made = bundle(tmp_path / "colours")
    with here({"colours": made}, limits=Limits(watch_s=1000)) as service:
        (made / "neighbours.jpg").rename(tmp_path / "elsewhere")
        assert service.get("/v1/neighbours/colours/0").status == 404
        (tmp_path / "elsewhere").rename(made / "neighbours.jpg")
        assert service.get("/v1/neighbours/colours/0").status == 200


def test_a_bundle_that_takes_its_place_shows_its_own(tmp_path: Path) -> None:
    made = bundle(tmp_path / "colours")
    with here({"colours": made}) as service:
        before = service.predict(picture(COLOURS["red"]), "?nearest=1").json
        assert service.get(before["results"][0]["nearest"][0]["image"]).status == 200
        shutil.rmtree(made)
        bundle(made, ["crimson", "lime", "navy"])
        until(lambda: service.get("/v1/model").json["models"][0]["version"] != before["version"])
        after = service.predict(picture(COLOURS["red"]), "?nearest=1").json
        assert after["results"][0]["nearest"][0]["label"] == "crimson"
        old = service.get(before["results"][0]["nearest"][0]["image"])
        assert old.status == 404  # the photo there is another one
        assert service.get(after["results"][0]["nearest"][0]["image"]).status == 200
