"""What a training of layers stands on: the network, its feed, and the head it begins with; what of it learns is `cutting.py`'s.

The training itself is `deeper.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.activations import Extracted, feed_of
from rehead.bundle import Head
from rehead.cutting import layers_of
from rehead.data.columns import Positions
from rehead.divided import folds_of, watched
from rehead.errors import counted
from rehead.extraction import extract_missing, open_store
from rehead.fitting import chosen_prefix
from rehead.job import Job, as_it_is, trained_dense
from rehead.nets.card import Card
from rehead.tuning.grow import grown, refused
from rehead.tuning.layers import HEAD, adapters_in
from rehead.tuning.plan import Plan
from rehead.tuning.ranges import hidden_widths
from rehead.tuning.recipe import STOP_SHARE, Recipe
from rehead.tuning.scale import Scale
from rehead.tuning.tasks import first_head, fit_task

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone
    from rehead.tuning.feed import Feed
    from rehead.tuning.lora import Adapters


T = TypeVar("T")
N_ADAPT = 1_024  # photos on which norms take their statistics: tens of thousands of pixels a channel


@dataclass(frozen=True)
class Ground:
    """What a training stands on. body: the layers from the cut on, with pooled features at the end. learn, watch: places
    in the feed, which holds the train photos first, then those held out. feeds: the same feed for another device, elsewhere.
    scale: of numbers that are learned."""

    job: Job
    backbone: Backbone
    plan: Plan
    card: Card
    body: Any
    feed: Feed
    feeds: Callable[[str], Feed]
    train: Sequence[int]
    held_out: Sequence[int]
    learn: NDArray[np.int64]
    watch: NDArray[np.int64]
    scale: Scale | None
    device: str


def network_of(recipe: Recipe) -> Backbone:
    """The recipe's backbone, with its weights."""
    from rehead.nets.backbone import load_backbone

    return load_backbone(recipe.backbone, weights=recipe.weights, arguments=recipe.backbone_args)


def ground_of(
    job: Job,
    recipe: Recipe,
    backbone: Backbone,
    plan: Plan,
    extracted: Extracted,
    card: Card,
    learn: NDArray[np.int64],
    watch: NDArray[np.int64],
) -> Ground:
    import torch

    from rehead.nets.cut import Pooled
    from rehead.tuning.train import layout_for

    body: Any = backbone.suffix(plan.cut) if plan.cut is not None else Pooled(backbone.network)
    sizes = grown(card.preprocess, recipe.start_scale, recipe.course.epochs)
    if plan.cut is None and (other := refused(body, sizes)) is not None:
        job.progress.note(
            f"{backbone.name} takes no photos of {other.height} pixels: all epochs see those of {card.preprocess.height}."
        )
        sizes = [card.preprocess]
    scale = Scale.of(job.catalog.labels(extracted.train)) if job.catalog.task == "regression" else None
    device = job.device(recipe.device)
    feeds = partial(feed_of, extracted, job.catalog, recipe, card, sizes, scale)
    feed = feeds(device)
    if extracted.views:
        feeds = partial(as_it_is, feed)  # elsewhere no photo is read, and none need be told of
    body.to(device, memory_format=layout_for(torch.device(device), body))
    sides = extracted.train, extracted.held_out
    return Ground(job, backbone, plan, card, body, feed, feeds, *sides, learn, watch, scale, device)


def frozen_features(ground: Ground, recipe: Recipe) -> NDArray[np.floating[Any]]:
    """(n, width) of all photos of the feed, before layers learn. Of photos on the CPU by an engine, through the store, and in
    half precision as there."""
    from rehead.tuning.feed import PhotoFeed
    from rehead.tuning.watching import logits_of

    photos = np.array([*ground.train, *ground.held_out], np.int64)
    if ground.device != "cpu" or not isinstance(ground.feed, PhotoFeed):
        return logits_of(ground.body, ground.feed, np.arange(len(photos)), ground.device)
    catalog, whole = ground.job.catalog, replace(recipe, cut=None, budget_s=None)
    job = replace(ground.job, stop=lambda: False, is_late=lambda: False)  # what is begun here is needed
    prefix, mixed = chosen_prefix(job, whole), np.random.default_rng(recipe.seed).permutation(photos)
    with open_store(job.cache, prefix, whole) as store:
        extract_missing(job, Positions(mixed), prefix, whole, store)
        job.progress.phase("Solving the head")
        return store.read(catalog.digests(photos), dtype=np.float16)


def outputs_alone(ground: Ground, recipe: Recipe, seen: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """What a linear head alone gives for the held-out photos, (n, n_outputs): solved on the whole training side, as
    --train head does. seen: as `frozen_features` gives them."""
    catalog, n = ground.job.catalog, len(ground.train)
    labels, folds = catalog.labels(ground.train), folds_of(catalog, ground.train, recipe)
    linear = Recipe(class_weight=recipe.class_weight)
    return fit_task(catalog.task, seen[:n], labels, catalog.n_outputs, folds, linear).head.logits(seen[n:])


def first_head_on(ground: Ground, recipe: Recipe, seen: NDArray[np.floating[Any]] | None) -> tuple[Head, str]:
    """The head to begin with: solved on what the layers give before they learn, or random numbers. seen: as `frozen_features`
    gives them, None for random numbers."""
    from rehead.nets.heads import head_from_module, mlp_module
    from rehead.tuning.watching import logits_of

    catalog, hidden = ground.job.catalog, hidden_widths(recipe.head)
    task, n_outputs, device = catalog.task, catalog.n_outputs, ground.device
    if seen is None:
        width = logits_of(ground.body, ground.feed, np.arange(1), device).shape[1]
        module = mlp_module(width, hidden, n_outputs, recipe.activation, seed=recipe.seed)
        kind: Any = "mlp" if hidden else "linear"
        return head_from_module(module, kind, recipe.activation), f"{kind}: random at first"
    pooled: NDArray[Any] = seen[ground.learn]
    if recipe.norm == "adapt":
        adapt(ground, recipe)
        pooled = logits_of(ground.body, ground.feed, ground.learn, device)
    learned = Positions(np.asarray(ground.train, np.int64)[ground.learn])  # the others say how well it is learned
    labels, folds = ground.feed.labels[ground.learn], folds_of(catalog, learned, recipe)
    if not hidden:
        return first_head(task, pooled, labels, n_outputs, folds, recipe)
    by, progress = partial(trained_dense, ground.job, recipe.device), ground.job.progress
    watch = watched(catalog, learned, STOP_SHARE, recipe.seed)
    fitted = fit_task(task, pooled, labels, n_outputs, folds, recipe, device, progress, by=by, watch=watch)
    return fitted.head, fitted.note


def adapt(ground: Ground, recipe: Recipe) -> None:
    """Norms of the layers that learn take their statistics on some of the photos to learn from."""
    from rehead.tuning.modes import adapt_norms

    some = np.random.default_rng(recipe.seed).permutation(ground.learn)[:N_ADAPT]
    learning = [ground.backbone[name] for name in ground.plan.learning]
    n_batches = math.ceil(len(some) / recipe.course.batch_size)  # as large as each other: the mean is over batches
    batches = (x for part in np.array_split(some, n_batches) for x in ground.feed.plain(part, len(part)))
    adapt_norms(ground.body, learning, (x.to(ground.device) for x in batches))


def with_head_on(body: Any, head: Head) -> Any:
    import torch

    from rehead.nets.heads import module_from_head

    model = torch.nn.Sequential()
    model.add_module("body", body)
    model.add_module(HEAD, module_from_head(head))
    return model


def with_adapters(ground: Ground, recipe: Recipe) -> Adapters | None:
    """Puts adapters into the layers that learn, where the recipe says so."""
    from rehead.tuning.lora import add_adapters, linear_layers

    asked = adapters_in(recipe.train)
    if asked is None:
        return None
    chain, learning = ground.backbone.chain, ground.plan.learning
    linear = linear_layers(chain, [*_frozen(ground, recipe), *learning])
    taken = {path for name in linear if name not in learning for path in linear[name]}
    return add_adapters(ground.body, _each_once([linear[name] for name in learning], taken), asked[0], recipe.seed)


def parameters_that_learn(ground: Ground, recipe: Recipe) -> list[list[Any]]:
    """Of each layer that learns, without adapters, its parameters: each once, and none that a frozen layer uses too, by which
    what is kept of the photos was computed."""
    chain, learning = ground.backbone.chain, ground.plan.learning
    of_layer = [{id(p): p for p in ground.backbone[name].parameters()} for name in learning]
    taken = {id(p) for name in _frozen(ground, recipe) for p in chain[name].parameters()}
    if shared := len(taken & {key for layer in of_layer for key in layer}):
        ground.job.progress.note(f"{counted(shared, 'parameter')} that frozen layers use too stay frozen.")
    return [[layer[key] for key in own] for layer, own in zip(of_layer, _each_once(of_layer, taken), strict=True)]


def _each_once(layers: Sequence[Iterable[T]], taken: Iterable[T]) -> list[list[T]]:
    """What each layer has, in the first of them that has it, without what is taken."""
    seen, kept = set(taken), []
    for layer in layers:
        kept.append([one for one in layer if one not in seen])
        seen.update(kept[-1])
    return kept


def _frozen(ground: Ground, recipe: Recipe) -> list[str]:
    """The layers below the head that do not learn."""
    names = [layer.name for layer in layers_of(ground.backbone.chain, recipe)]
    return [name for name in names if name not in (*ground.plan.learning, HEAD)]
