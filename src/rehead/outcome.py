"""What came out of a training of layers: the tuned network as a graph, and what it says of held-out photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.activations import Extracted
from rehead.bundle import Familiar, Head
from rehead.errors import Diverged
from rehead.exporting.graph import export_prefix
from rehead.features.engines import CPU_BATCH
from rehead.ground import Ground
from rehead.heap import hand_back
from rehead.nets.card import Card
from rehead.parallel import batched, n_cores, ordered_map
from rehead.runners import open_session
from rehead.runs.contents import BODY
from rehead.runs.folder import RunFolder
from rehead.runs.footing import read_footing
from rehead.solution import Solution
from rehead.tuning.familiar import far, fit_familiar
from rehead.tuning.labels import chosen_thresholds


def solution_of(
    model: Any,
    ground: Ground,
    extracted: Extracted,
    first: Head,
    note: str,
    run: RunFolder,
    known: NDArray[np.int64],
    *,
    lr: float,
) -> Solution:
    """What came out, its graph written to the run. known: places of photos that tell what is familiar. lr: the last rate.
    Raises Diverged when it is no numbers."""
    from rehead.nets.cut import Pooled
    from rehead.nets.heads import head_from_module

    n_train, network, card = len(extracted.train), ground.backbone.network, ground.card
    export_prefix(Pooled(network).eval(), card.preprocess, run.path / BODY)
    hand_back()
    features_of = partial(_features, model[0], ground.feed, run.path / BODY)
    shown = features_of(np.arange(n_train, n_train + len(extracted.held_out)))
    head = head_from_module(model[1], first.kind, first.activation)
    apart, familiar = _apart(features_of, ground, known, head)
    if ground.scale:
        head = ground.scale.on(head)
    logits, alone, catalog = head.logits(shown), read_footing(run.path).alone, ground.job.catalog
    if not np.isfinite(logits).all():
        raise Diverged("What the network gives for held-out photos is no numbers.", lr)
    return Solution(
        catalog=catalog,
        head=head,
        thresholds=_thresholds(ground, model),
        note=note,
        train=extracted.train,
        held_out=extracted.held_out,
        logits=logits,
        body=run.path / BODY,
        features=lambda pixels: _by_network(network, card, pixels),
        card=card,
        bad=extracted.bad,
        n_stored=extracted.n_stored,
        learned=ground.plan.learning,
        n_watched=len(ground.watch),
        apart=apart,
        familiar=familiar,
        bank=() if familiar is None else tuple(ground.train[int(place)] for place in known),
        distances=None if familiar is None else far(shown, familiar.bank, familiar.k),
        alone=None if alone is None else _each(alone, catalog.digests(extracted.held_out)),
    )


def _each(said: Mapping[bytes, Sequence[float]], digests: Iterable[bytes]) -> NDArray[Any] | None:
    """What was said of each photo, a row each, None where one was not looked at."""
    found = [said.get(digest) for digest in digests]
    return None if None in found else np.array(found)


def _features(body: Any, feed: Any, graph: Path, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, width) of photos of the feed as they are: by the tuned layers from what is stored of them, or, where the photos
    themselves are what goes in, by the whole network's graph: ONNX Runtime takes a fifth of PyTorch's time."""
    from rehead.tuning.feed import PhotoFeed
    from rehead.tuning.watching import logits_of

    if not isinstance(feed, PhotoFeed):
        return logits_of(body, feed, positions, "cpu")
    session = open_session(graph)

    def run(batch: list[int]) -> NDArray[np.float32]:
        return np.asarray(session.run(["features"], {"pixels": feed.shown(batch)})[0])

    workers = n_cores()
    batches = batched(positions.tolist(), CPU_BATCH)
    return np.concatenate(list(ordered_map(run, batches, workers=workers, ahead=2 * workers)))


def _apart(
    features_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    ground: Ground,
    known: NDArray[np.int64],
    head: Head,
) -> tuple[tuple[list[int], NDArray[np.float32]] | None, Familiar | None]:
    """What the watched photos of the training side are given, from which nothing was learned, and what is familiar."""
    features = features_of(known)
    if not len(ground.watch):
        return None, fit_familiar(features)
    watched = features_of(ground.watch)
    apart = None
    if ground.job.catalog.task == "classification":
        apart = [ground.train[place] for place in ground.watch], head.logits(watched)
    return apart, fit_familiar(features, watched)


def _thresholds(ground: Ground, model: Any) -> tuple[float, ...]:
    """Of several labels a photo: chosen on the watched photos of the training side, from which the layers did not learn."""
    from rehead.tuning.watching import logits_of

    catalog = ground.job.catalog
    if catalog.task != "multilabel":
        return ()
    none = np.empty((0, catalog.n_outputs), np.float32)
    outputs = logits_of(model, ground.feed, ground.watch, "cpu") if len(ground.watch) else none
    return chosen_thresholds(outputs, ground.feed.labels[ground.watch])


def _by_network(network: Any, card: Card, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch

    from rehead.nets.cut import Pooled

    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) * 255 for v in (card.preprocess.mean, card.preprocess.std))
    with torch.inference_mode():
        rows = [
            Pooled(network).eval()((torch.from_numpy(part).permute(0, 3, 1, 2).float() - mean) / std).numpy()
            for part in np.array_split(pixels, len(pixels))  # one by one: they are few, and many would take 40 MB
        ]
    return np.concatenate(rows)
