"""The sheet of photos that a bundle shows: each tile is the photo whose features stand at its place in the graph."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_photos
from PIL import Image

from rehead.data.catalog import Catalog
from rehead.data.rows import Photo
from rehead.reporting.sheet import COLUMNS, TILE, sheet
from rehead.runners import open_session

Rehead = Callable[..., subprocess.CompletedProcess[str]]
COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]


def coloured(n: int) -> Catalog:
    """Photos whose colour says which they are; the second is gone."""

    def read(photo: Photo) -> bytes:
        i = int(photo.path)
        if i == 1:
            raise FileNotFoundError(2, "No such file or directory")
        file = io.BytesIO()
        Image.new("RGB", (200, 120), COLOURS[i % 3]).save(file, "PNG")
        return file.getvalue()

    photos = tuple(Photo(str(i), f"red;{i}", "train", i.to_bytes(32, "big")) for i in range(n))
    return Catalog("made", "lists", photos, ("red",), read, task="multilabel")


def test_tiles_stand_in_order_and_a_photo_that_is_gone_is_grey() -> None:
    asked = [5, 1, *range(2, COLUMNS + 3)]
    told: list[None] = []
    about, data, n_gone = sheet(coloured(60), asked, lambda: told.append(None))
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (2 * TILE, COLUMNS * TILE, 3)
    assert (n_gone, len(told), len(about["labels"])) == (1, len(asked), len(asked))
    assert about["labels"][0] == "5, red"
    for place, i in enumerate(asked):
        top, left = place // COLUMNS * TILE, place % COLUMNS * TILE
        tile = pixels[top : top + TILE, left : left + TILE].astype(int)
        wanted = (128, 128, 128) if i == 1 else COLOURS[i % 3]
        assert np.abs(tile - wanted)[1:-1, 1:-1].max() < 12, (
            place,
            i,
        )  # JPEG blends the colours of the outermost pixels


def test_a_few_photos_make_a_sheet_no_wider_than_they_are() -> None:
    _, data, _ = sheet(coloured(3), [0, 2])
    assert Image.open(io.BytesIO(data)).size == (2 * TILE, TILE)


@pytest.mark.slow
def test_each_photo_learned_from_is_nearest_to_its_own_tile(rehead: Rehead, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = rehead("tune", photos, "--with-neighbours", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "The bundle shows" in done.stderr
    assert "as small pictures in `neighbours.jpg`" in (run / "bundle" / "README.md").read_text()
    check_tiles(run, photos)


@pytest.mark.slow
def test_so_it_is_where_layers_learn(rehead: Rehead, tmp_path: Path) -> None:
    photos, run = make_photos(tmp_path / "photos", {"red": 30, "blue": 30}), tmp_path / "run"
    done = rehead("tune", photos, "--with-neighbours", "--train", "last:1", "--epochs", "1", "--out", run)
    assert done.returncode == 0, done.stderr
    check_tiles(run, photos)


@pytest.mark.slow
def test_so_it_is_with_the_photos_of_an_earlier_run(rehead: Rehead, photos: Path, tmp_path: Path) -> None:
    first, run, more = tmp_path / "first", tmp_path / "run", tmp_path / "more"
    assert rehead("tune", photos, "--out", first).returncode == 0
    make_photos(more / "red", {"green": 20})
    (more / "red" / "green").rename(more / "green")
    (more / "red").rmdir()
    done = rehead("tune", more, "--from", first, "--with-neighbours", "--out", run)
    assert done.returncode == 0, done.stderr
    facts = json.loads((run / "bundle" / "rehead.json").read_text())
    assert set(facts["neighbours"]["labels"]) == {"red", "blue", "green"}


@pytest.mark.slow
def test_too_few_photos_have_no_neighbours(rehead: Rehead, tmp_path: Path) -> None:
    photos, run = make_photos(tmp_path / "photos", {"red": 8, "blue": 8}), tmp_path / "run"
    done = rehead("tune", photos, "--with-neighbours", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "The bundle shows no neighbours" in done.stderr
    assert json.loads((run / "bundle" / "rehead.json").read_text())["neighbours"] is None


def check_tiles(run: Path, photos: Path) -> None:
    """The tile at the nearest place of each photo learned from is that photo, and its similarity is that of a copy."""
    import rehead

    model = rehead.load(run / "bundle")
    about = model.bundle.facts["neighbours"]
    pixels = np.asarray(Image.open(run / "bundle" / about["file"])).astype(float)
    session = open_session(model.bundle.model)
    with (run / "catalog.csv").open() as file:
        learned = [row for row in csv.DictReader(file) if row["side"] == "train"]
    places = []
    for row in learned:
        path = photos / row["path"]
        nearest, similarity, distance = session.run(
            ["nearest", "similarity", "distance"], {"pixels": model.pixels(path)[None]}
        )
        place = int(nearest[0, 0])
        if similarity[0, 0] < 0.9999:  # watched, while layers learned: not in the bank
            continue
        assert 1 - similarity[0, -1] == pytest.approx(distance[0], abs=1e-6)
        assert (np.diff(similarity[0]) <= 0).all()
        assert about["labels"][place] == row["label"]
        assert place == _most_like(path, pixels, about), row
        places.append(place)
    assert sorted(places) == list(range(len(about["labels"])))
    assert len(places) >= 30


def _tile(pixels: Any, about: dict[str, Any], place: int) -> Any:
    side, top, left = about["tile"], place // about["columns"], place % about["columns"]
    return pixels[top * side : (top + 1) * side, left * side : (left + 1) * side]


def _most_like(path: Path, pixels: Any, about: dict[str, Any]) -> int:
    """The tile whose pixels are nearest to the photo's."""
    side = about["tile"]
    photo = np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    return int(np.argmin([np.abs(_tile(pixels, about, i) - photo).mean() for i in range(len(about["labels"]))]))
