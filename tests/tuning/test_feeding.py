"""Photos fed to a training by processes: the batches that threads give, and an error for a photo that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_photos

from rehead import activations
from rehead.activations import Extracted, feed_of
from rehead.data.catalog import Catalog
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import SourceError
from rehead.features import decoders
from rehead.nets.card import Card
from rehead.pixels import Preprocess
from rehead.tuning.feed import Feed
from rehead.tuning.recipe import Recipe

SQUARE = Preprocess(height=32, width=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SMALLER = Preprocess(height=24, width=24, mean=SQUARE.mean, std=SQUARE.std)
CARD = Card(
    name="x", architecture="x", weights="", origin="", licence="", shape=(1,), parameters=1, macs=1, preprocess=SQUARE,
)  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    photos = make_photos(tmp_path / "photos", {"red": 20, "blue": 20})
    return scan(open_source(photos, cache=tmp_path), seed=0, valid_fraction=0.2)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(activations, "beside", lambda device, n_photos, decode: decoders.Processes(decode))
    yield
    pool = decoders.executor()
    decoders.forget(pool)
    pool.shutdown(wait=True, kill_workers=True)


def fed(catalog: Catalog) -> Feed:
    extracted = Extracted(catalog.on("train"), catalog.on("valid"), (), [], None, {}, 0)
    return feed_of(extracted, catalog, Recipe(train="all", augment="crop"), CARD, (SMALLER, SQUARE), None, "cpu")


def batches(feed: Feed, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = np.random.default_rng(epoch).permutation(40)
    return [*feed.batches(order, epoch, 12, 1), *((x, x) for x in feed.plain(order, 16))]


def test_batches_are_the_same_by_threads_and_by_processes(catalog: Catalog, request: pytest.FixtureRequest) -> None:
    threads = [batches(fed(catalog), epoch) for epoch in (0, 1)]
    request.getfixturevalue("processes")
    for epoch, wanted in enumerate(threads):
        for (x, y), (other, labels) in zip(batches(fed(catalog), epoch), wanted, strict=True):
            assert torch.equal(x, other)
            assert torch.equal(y, labels)


@pytest.mark.usefixtures("processes")
def test_a_photo_that_is_gone_while_it_is_learned_from_is_an_error(catalog: Catalog) -> None:
    for i in range(40):
        Path(str(catalog.file(catalog.photos[i]))).unlink()
    with pytest.raises(SourceError, match=r"learned from\.\n(red|blue)/\d+\.png .* It was there") as error:
        batches(fed(catalog), 0)
    assert "--resume RUN" in error.value.fix


def test_it_is_so_by_threads_too(catalog: Catalog) -> None:
    for i in range(40):
        Path(str(catalog.file(catalog.photos[i]))).unlink()
    with pytest.raises(SourceError, match="while it is learned from"):
        batches(fed(catalog), 0)
