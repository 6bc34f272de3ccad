"""The photos of a training as it reads them: activations at the cut, of each view, or the photos themselves.

And which of them it learns from, which say what epoch is kept, and which are held out. Nothing here trains.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.columns import Positions
from rehead.data.rows import Photo, Skip, bounded
from rehead.data.spill import let_go
from rehead.divided import in_store, photos_there, sides_of, watched
from rehead.errors import DiskFull, PhotoError, SourceError
from rehead.exporting.prefixes import ready_prefix
from rehead.extraction import extract_missing, left_out, open_store
from rehead.features.bad import check_bad, skip_of
from rehead.features.decoders import Decode, File, Found, beside, bytes_or_file
from rehead.features.engines import resolve
from rehead.features.extract import decoded
from rehead.features.jpegs import Jpeg, augmented_files
from rehead.features.store import Store
from rehead.features.views import PLAIN, augmented_each, stored_views, view_names
from rehead.heap import hand_back
from rehead.job import Job
from rehead.nets.card import Card, with_fit
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import Preprocess
from rehead.runs.footing import Footing
from rehead.tuning.plan import Plan
from rehead.tuning.recipe import Recipe
from rehead.tuning.scale import Scale

if TYPE_CHECKING:
    from rehead.tuning.feed import Feed

AT_ONCE = 16  # photos that processes are asked for at once: handing them over costs little beside decoding them
IN_MEMORY_BYTES = 32 << 20  # of a view; a larger one is read from a file as it is learned from
SMALL = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # enough to know that it decodes


@dataclass(frozen=True)
class Extracted:
    """views: (n, *shape) float16 each: of train and held-out photos the first, of train photos the others. names: theirs."""

    train: Sequence[int]
    held_out: Sequence[int]
    names: tuple[str, ...]
    views: list[NDArray[np.float16]]
    card: Card | None
    bad: dict[int, Skip]
    n_stored: int


def at_the_cut(
    job: Job, recipe: Recipe, plan: Plan, order: Sequence[int], bad: dict[int, Skip], footing: Footing | None
) -> Extracted:
    """What is needed to train by this plan; what the store lacks is extracted. Raises SourceError for too many bad photos.

    order: the photos. bad: others that are known to be no use. footing: of a training that stands on them already, so that
    nobody may end it before all of them are there.
    """
    if footing is not None:
        job, recipe = replace(job, stop=lambda: False, is_late=lambda: False), replace(recipe, budget_s=None)
    catalog = job.catalog
    if plan.cut is None:
        there, unreadable = _readable(job, order, recipe)
        bad = bad | unreadable
        train, held_out = sides_of(catalog, sorted(there), recipe, n_bad=len(bad), is_ended=job.ends())
        return Extracted(train, held_out, (), [], None, bad, 0)
    weights = recipe.weights_file
    prefix = ready_prefix(
        recipe.backbone,
        weights=weights,
        arguments=dict(recipe.backbone_args),
        cut=plan.cut,
        cache=job.cache,
        progress=job.progress,
        pooled=False,
    )
    if recipe.fit != "default":
        prefix = replace(prefix, card=with_fit(prefix.card, recipe.fit))
    wanted: dict[str, Positions] = {}
    train, held_out, n_stored = Positions(), Positions(), 0
    names = view_names(recipe.augment, recipe.views) if footing is None else footing.views
    begun, whole = time.monotonic(), replace(recipe, budget_s=None)
    for view in names:
        # The budget is of all views: the first has its share, as the photos that it comes to need the others.
        until = None if recipe.budget_s is None else begun + recipe.budget_s / (len(names) if view == PLAIN else 1)
        timed = _until(job, until)
        with open_store(job.cache, prefix, recipe, view) as store:
            if view == PLAIN:
                n_stored = int(store.has(catalog.digests(order)).sum())
                bad = bad | extract_missing(timed, order, prefix, whole, store).bad
                train, held_out = photos_there(catalog, order, store, recipe, n_bad=len(bad), is_ended=job.ends())
                wanted[view] = Positions(np.concatenate([train, held_out]))
                continue
            extract_missing(timed, train, prefix, whole, store, view)
            if len(in_store(catalog, train, store)) == len(train):
                wanted[view] = train
            else:
                job.progress.note(f"The view {view} is not whole and is left out.")
    hand_back()
    views = []
    for view, positions in wanted.items():  # read when no more is extracted: both would be in memory at once
        with open_store(job.cache, prefix, recipe, view) as store:
            views.append(_read(store, catalog, positions))
    return Extracted(train, held_out, tuple(wanted), views, prefix.card, bad, n_stored)


def _until(job: Job, ends: float | None) -> Job:
    """The same job, which is late from a moment on."""
    if ends is None:
        return job
    return replace(job, is_late=lambda: job.is_late() or time.monotonic() > ends)


def feed_of(
    extracted: Extracted,
    catalog: Catalog,
    recipe: Recipe,
    card: Card,
    sizes: Sequence[Preprocess],
    scale: Scale | None,
    device: str,
) -> Feed:
    """The train photos first, then those held out; places in it are those in that order.

    sizes: how photos are seen in each epoch where they are read anew. scale: of numbers that are learned; they are
    standardised by it. device: where training happens; CUDA decodes JPEG files too, where torchvision can.
    """
    import torch

    from rehead.features.on_device import decodes
    from rehead.tuning.feed import PhotoFeed, Request, StoredFeed

    photos = [*extracted.train, *extracted.held_out]
    labels = scale.standardised(catalog.labels(photos)) if scale else catalog.labels(photos)
    if extracted.views:
        return StoredFeed(extracted.views, labels, recipe.seed)
    learner = (
        torch.device(device) if torch.device(device).type == "cuda" else None
    )  # what crosses to others is copied at once anyway
    see = augmented_files if learner is not None and decodes(learner) else augmented_each
    alone: Decode[Any] = functools.partial(see, recipe.augment)
    decode = beside(device, len(photos), alone)

    def job(place: int, drawn: tuple[int, int] | None) -> tuple[bytes | File, Preprocess, int | None]:
        data = bytes_or_file(decode, catalog, catalog.photos[photos[place]])
        if drawn is None:
            return data, card.preprocess, None
        epoch, seed = drawn
        return data, sizes[min(epoch, len(sizes) - 1)], seed

    def read(requests: Sequence[Request]) -> list[NDArray[np.uint8] | Jpeg]:
        jobs = []
        for request in requests:
            with _told_of(catalog.photos[photos[request[0]]]):
                jobs.append(job(*request))
        return [_good(catalog.photos[photos[r[0]]], one) for r, one in zip(requests, decode(jobs), strict=True)]

    return PhotoFeed(
        read,
        labels, card.preprocess.mean, card.preprocess.std, recipe.seed, 1 if decode is alone else AT_ONCE, learner,
    )  # fmt: skip


def _good(photo: Photo, found: Found) -> NDArray[np.uint8] | Jpeg:
    """The same. Raises SourceError for a photo that cannot be read any more."""
    with _told_of(photo):
        if isinstance(found, Exception):
            raise found
    assert isinstance(found, np.ndarray | Jpeg)
    return found


@contextlib.contextmanager
def _told_of(photo: Photo) -> Iterator[None]:
    """Where a photo that was readable is so no more, SourceError says which: to learn on without it would be another job."""
    try:
        yield
    except (PhotoError, OSError) as error:
        lost = skip_of(photo, error)
        raise SourceError(
            what="A photo cannot be read any more while it is learned from.",
            why=f"{bounded(lost.path, 200)} {lost.reason}. It was there when the training began.",
            fix="Bring it back and go on from the last checkpoint with --resume RUN; add --force to go on without it.",
        ) from error


def slices(catalog: Catalog, train: Sequence[int], recipe: Recipe) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places among the training photos to learn from, and those that decide which epoch is kept, groups kept together."""
    is_watched = watched(catalog, train, recipe.watch, recipe.seed)
    return np.flatnonzero(~is_watched), np.flatnonzero(is_watched)


def _readable(job: Job, order: Sequence[int], recipe: Recipe) -> tuple[list[int], dict[int, Skip]]:
    """The photos that can be decoded, of those that were looked at until the job was to end, and why others cannot. Raises
    SourceError when these are too many."""
    catalog, gone = job.catalog, left_out(job, order, order)
    job = _until(job, None if recipe.budget_s is None else time.monotonic() + recipe.budget_s)
    order = [i for i in order if i not in gone]
    alone: Decode[tuple[bytes | File, bytes]] = functools.partial(stored_views, PLAIN, SMALL)
    decode = beside(resolve("torch", recipe.device)[1], len(order), alone)
    n, workers = (1, n_cores()) if decode is alone else (4 * AT_ONCE, 2 * n_cores())
    job.progress.phase("Checking", len(order))
    bad: dict[int, Skip] = {}
    n_seen = 0
    some_of = itertools.takewhile(lambda _: not job.ends(), batched(order, n))
    for part in ordered_map(
        lambda some: decoded(catalog, dict.fromkeys(some), decode), some_of, workers=workers, ahead=64
    ):
        n_seen += len(part[0]) + len(part[2])
        job.progress.advance(len(part[0]) + len(part[2]))
        bad.update(part[2])
    check_bad(list(bad.values()), n_seen, recipe.max_bad, before=catalog.bad, n_all=catalog.n_all)
    return [i for i in order[:n_seen] if i not in bad], bad | gone


def _read(store: Store, catalog: Catalog, positions: Sequence[int]) -> NDArray[np.float16]:
    digests = catalog.digests(positions)
    try:
        rows = store.read(digests, dtype=np.float16, memory_limit_bytes=IN_MEMORY_BYTES)
    except DiskFull:
        return store.read(digests, dtype=np.float16)
    let_go(rows)
    return rows
