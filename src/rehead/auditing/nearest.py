"""The photos a model learned from that a picture looks most like to it: often they tell why it is named so."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from rehead.ambient import own_settings
from rehead.divided import in_store
from rehead.errors import RunError, StoreError
from rehead.extraction import open_store
from rehead.fitting import prefix_of_run
from rehead.job import Job
from rehead.predict import Model, Picture, load
from rehead.runs.finished import read_finished
from rehead.runs.place import cache_of
from rehead.verdict.neighbours import neighbours as nearest


@dataclass(frozen=True)
class Neighbour:
    """A photo that was learned from. similarity: cosine of the features, -1..1."""

    path: str
    label: str
    similarity: float


@own_settings()
def neighbours(
    bundle: str | os.PathLike[str] | Model,
    picture: Picture,
    *,
    k: int = 5,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[Neighbour, ...]:
    """The k nearest photos that a bundle learned from, the nearest first. bundle: where it was made, in its run.

    Raises RunError where the run is not there, has other weights now, or trained layers, whose features are not kept,
    StoreError where features were cleared, PhotoError.
    """
    model = bundle if isinstance(bundle, Model) else load(bundle)
    place = cache_of(model.bundle.folder, cache)
    run = read_finished(model.bundle.folder, place)
    recipe = replace(run.run.recipe, fit=run.bundle.preprocess.fit)
    if recipe.train != "head":
        raise RunError(
            what=f"The features by which {run.run.path} names photos are not kept: it trained {recipe.train}.",
            fix="Ask a run whose layers are frozen.",
        )
    job = Job(run.catalog, place)
    with open_store(place, prefix_of_run(job, recipe, run.bundle), recipe) as store:
        there = in_store(run.catalog, run.outputs.train.tolist(), store)
        if not there:
            raise StoreError(
                what="The features of the photos it learned from are not in the store any more.",
                fix="Name the cache that has them with --cache DIR, or tune again.",
            )
        features = store.read(run.catalog.digests(there))
    found = nearest(features, model.features(picture)[None], k)
    return tuple(
        Neighbour(run.catalog.photos[there[i]].path, run.catalog.photos[there[i]].label, float(near))
        for i, near in zip(found.places[0], found.similarity[0], strict=True)
    )
