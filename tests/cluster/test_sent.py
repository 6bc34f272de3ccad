"""What a training is fed with can be sent to nodes, whatever the photos came as: no cluster is needed to see that."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_photos
from PIL import Image

import rehead
from rehead import phase, run
from rehead.activations import Extracted, feed_of
from rehead.data.catalog import Catalog
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.data.spill import mapped
from rehead.features.engines import ENGINES
from rehead.features.extract import by_engine
from rehead.features.views import stored_views
from rehead.nets.card import Card
from rehead.pixels import Preprocess
from rehead.progress import Silent
from rehead.runs.earlier import read_earlier
from rehead.tuning.feed import StoredFeed
from rehead.tuning.recipe import Recipe
from rehead.tuning.train import train_layers

cloudpickle = pytest.importorskip("ray.cloudpickle", reason="needs Ray: pip install 'rehead[ray]'")
SQUARE = Preprocess(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CARD = Card(
    name="x", architecture="x", weights="", origin="", licence="", shape=(1,), parameters=1, macs=1, preprocess=SQUARE,
)  # fmt: skip


class Held(Sequence[Any]):
    """Photos in memory, with what can be sent nowhere."""

    def __init__(self, photos: Path) -> None:
        self.pairs = [(np.asarray(Image.open(path)), path.parent.name) for path in sorted(photos.glob("*/*.png"))]
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: Any) -> Any:
        return self.pairs[i]


class Machines:
    """Other machines, which are this one: what they are to learn from comes to them as bytes."""

    about, at_once, n_trained = "this one", 1, 0

    def check(self, device: str, with_torch: bool) -> None:
        return

    def compute(self, catalog: Any, positions: Any, prefix: Any, engine: str, device: str, view: str) -> Any:
        decode = partial(stored_views, view, prefix.card.preprocess)
        return by_engine(catalog, positions, ENGINES[engine](prefix, device, 1), decode)

    def train(self, training: Any, start: Any, feeds: Any, begin: Any, device: str) -> Any:
        begin(start)
        self.n_trained += 1
        return train_layers(replace(training, feed=cloudpickle.loads(cloudpickle.dumps(feeds))("cpu")), start)


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def sent(catalog: Catalog) -> None:
    """What is fed from the photos of a catalog is the same where it is sent to."""
    extracted = Extracted(catalog.on("train"), catalog.on("valid"), (), [], None, {}, 0)
    feeds = partial(feed_of, extracted, catalog, Recipe(train="all", augment="crop"), CARD, (SQUARE,), None)
    order = np.arange(len(catalog.photos))
    wanted, found = (
        [*feed.batches(order, 0, 8, 0)] for feed in (feeds("cpu"), cloudpickle.loads(cloudpickle.dumps(feeds))("cpu"))
    )
    assert len(found) > 1
    for (x, y), (other, labels) in zip(wanted, found, strict=True):
        assert torch.equal(x, other)
        assert torch.equal(y, labels)


def test_photos_in_memory_are_sent(photos: Path, tmp_path: Path) -> None:
    sent(scan(open_source(Held(photos).pairs, cache=tmp_path), seed=0, valid_fraction=0.2))


def test_photos_of_an_earlier_run_are_sent_also_those_of_an_archive(cache: Path, tmp_path: Path) -> None:
    packed = make_photos(tmp_path / "packed", {"red": 12, "blue": 12})
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", packed)
    tuned = rehead.tune(archive, cache=cache, out=tmp_path / "run", head="prototype", report=False)
    more = open_source(make_photos(tmp_path / "new", {"green": 12}), cache=cache)
    new = scan(more, seed=0, valid_fraction=0.2, is_learned=False)
    sent(read_earlier(tuned.run, cache).joined(new, Silent()))


@pytest.mark.long
def test_activations_are_sent_without_the_photos(
    photos: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = Machines()
    monkeypatch.setattr(run, "_machines", lambda *_: contextlib.nullcontext(by))
    settings: dict[str, Any] = {"train": "last:1", "epochs": 1, "augment": "none", "report": False, "cache": cache}
    tuned = rehead.tune(Held(photos), ray="local", out=tmp_path / "run", **settings)
    assert (by.n_trained, tuned.verdict.top1.value) == (1, 1.0)
    monkeypatch.setattr(phase, "MOST_SENT_BYTES", 1_000)
    told = Told()
    again = rehead.tune(Held(photos), ray="local", out=tmp_path / "again", progress=told, **settings)
    assert (by.n_trained, again.verdict.top1.value) == (1, 1.0)
    assert any(note.startswith("Layers learn here: activations of") for note in told.notes)


def test_activations_in_a_file_are_sent_without_a_copy() -> None:
    views = [mapped((40, 30, 2), np.float16, None) for _ in range(2)]
    for n, view in enumerate(views):
        view[:] = np.random.default_rng(n).normal(size=view.shape)
    feed, parts = StoredFeed(views, np.arange(40), 0), []
    data = cloudpickle.dumps(feed, protocol=5, buffer_callback=parts.append)
    assert len(data) < 1_000 < feed.n_bytes
    there, order = pickle.loads(data, buffers=parts), np.arange(40)
    for x, other in zip(feed.batches(order, 0, 8, 0), there.batches(order, 0, 8, 0), strict=True):
        assert torch.equal(x[0], other[0])
