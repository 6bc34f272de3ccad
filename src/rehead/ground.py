"""What a training of layers stands on: the network and what of it learns, its feed, and the head it begins with.

The training itself is `deeper.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rehead.activations import Extracted, feed_of
from rehead.bundle import Head
from rehead.data.columns import Positions
from rehead.divided import folds_of, watched
from rehead.errors import BackboneError, counted
from rehead.exporting.prefixes import prefix_there
from rehead.extraction import chosen_prefix, extract_missing, lost_with, open_store
from rehead.features.room import free_bytes, on_disk
from rehead.features.views import view_names
from rehead.job import Job, as_it_is, trained_dense
from rehead.nets.card import Card, with_fit
from rehead.runs.footing import Footing
from rehead.tuning.grow import grown, takes
from rehead.tuning.layers import HEAD, POOL, Stage, adapters_in, names_in
from rehead.tuning.plan import Plan, check_mixing, described, needed_bytes, planned
from rehead.tuning.recipe import STOP_SHARE, Recipe
from rehead.tuning.scale import Scale
from rehead.tuning.tasks import first_head, fit_task

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone
    from rehead.nets.chain import Chain, Layer
    from rehead.tuning.feed import Feed
    from rehead.tuning.lora import Adapters


T = TypeVar("T")
N_ADAPT = 1_024  # photos on which norms take their statistics: tens of thousands of pixels a channel


@dataclass(frozen=True)
class Ground:
    """What a training stands on. body: the layers from the cut on, with pooled features at the end. learn, watch: places
    in the feed, which holds the train photos first. feeds: the same feed for another device, elsewhere. scale: of
    numbers that are learned."""

    job: Job
    backbone: Backbone
    plan: Plan
    card: Card
    body: Any
    feed: Feed
    feeds: Callable[[str], Feed]
    train: Sequence[int]
    learn: NDArray[np.int64]
    watch: NDArray[np.int64]
    scale: Scale | None
    device: str


def network_of(recipe: Recipe) -> Backbone:
    """The recipe's backbone, with its weights."""
    from rehead.nets.backbone import load_backbone

    return load_backbone(recipe.backbone, weights=recipe.weights, arguments=recipe.backbone_args)


def planned_network(
    job: Job, recipe: Recipe, backbone: Backbone, order: Sequence[int], footing: Footing | None
) -> Plan:
    """What learns and where the network is cut, which is told. order: the photos. footing: of what has begun already."""
    stages = stages_of(backbone.chain, recipe)
    if footing is not None:
        recipe = replace(recipe, cut=footing.cut or "none")
    plan = planned(recipe, stages, len(order), job.cache, partial(kept_bytes, job, recipe, order))
    if recipe.cut is None and (cut := _where_gone_are_kept(job, recipe, stages, plan, order)) is not None:
        recipe, plan = replace(recipe, cut=cut), replace(plan, cut=cut)
    check_mixing(recipe, stages, plan)
    for line in described(stages, plan, recipe, len(order)):
        job.progress.note(line)
    return plan


def _where_gone_are_kept(
    job: Job, recipe: Recipe, stages: Sequence[Stage], plan: Plan, order: Sequence[int]
) -> str | None:
    """Another layer than the plan's, whatever the limit, where the activations behind it are all that is left of earlier
    photos that cannot be spared, and the disk has room for the others'; else None, with a word on the photos that this costs.
    """
    gone = [i for i in order if job.catalog.is_gone(job.catalog.photos[i])]
    lost = gone and _lost_behind(job, recipe, gone, plan.cut)
    if not lost:
        return None
    names = [stage.name for stage in stages]
    below = names[: names.index((*plan.learning, POOL)[0])]
    left = dict[str, int]()  # how many are lost behind each; where the network is cut at best comes first
    for name in reversed(below):
        if name != plan.cut:
            left[name] = len(_lost_behind(job, recipe, gone, name))
            if not left[name]:
                break
    cut = min(left, key=lambda name: left[name], default=None)
    if cut is None or left[cut] >= len(lost):
        return None
    stage = stages[names.index(cut)]
    missing_bytes = needed_bytes(stage, recipe, len(order)) - kept_bytes(job, recipe, order, cut)
    has_room, photos = missing_bytes <= free_bytes(job.cache), counted(len(lost) - left[cut], "earlier photo")
    are_missed = len(lost) > recipe.max_bad * len(order) or bool(lost_with(job.catalog, order, lost))
    if has_room and are_missed:
        job.progress.note(f"Cut behind {cut}, whatever --cache-limit says: nothing else is left of {photos}")
        return cut
    fix = "lower" if plan.cut in below[below.index(cut) :] else "raise"
    job.progress.note(
        f"What is left of {photos} is kept behind {cut}: "
        + (f"{fix} --cache-limit to keep them" if has_room else "the disk has no room for what all take there")
    )
    return None


def _lost_behind(job: Job, recipe: Recipe, gone: Sequence[int], cut: str | None) -> list[int]:
    """Those of these photos of which not all is kept behind a layer that it takes: all views of one to learn from, one of
    others. All where nothing is kept."""
    if cut is None:
        return list(gone)
    n_needed = np.where(job.catalog.is_on("train")[gone], len(view_names(recipe.augment, recipe.views)), 1)
    lost: list[int] = np.asarray(gone)[_kept(job, recipe, gone, cut)[0] < n_needed].tolist()
    return lost


def kept_bytes(job: Job, recipe: Recipe, order: Sequence[int], cut: str) -> int:
    """What the store holds already of what these photos take behind a layer."""
    n_views, value_bytes = _kept(job, recipe, order, cut)
    return int(n_views.sum()) * value_bytes


def _kept(job: Job, recipe: Recipe, order: Sequence[int], cut: str) -> tuple[NDArray[np.int64], int]:
    """How many views of each of these photos the store holds behind a layer, (n,), and what one takes."""
    n_views = np.zeros(len(order), np.int64)
    prefix = prefix_there(
        recipe.backbone,
        weights=recipe.weights_file,
        arguments=dict(recipe.backbone_args),
        cut=cut,
        cache=job.cache,
        pooled=False,
    )
    if prefix is None:
        return n_views, 0
    prefix = replace(prefix, card=photo_card(prefix.card, recipe))
    for view in view_names(recipe.augment, recipe.views):
        with open_store(job.cache, prefix, recipe, view) as store:
            n_views += store.has(job.catalog.digests(order))
    return n_views, on_disk(2 * math.prod(prefix.card.shape))


def check_layers(recipe: Recipe, cache: Path) -> None:
    """Raises UnknownLayer and RecipeError for layers that the backbone does not have, before a photo is read.

    The network is looked at without its weights. One that can only be taken apart with them is left for later.
    """
    from rehead.nets.backbone import sketch

    try:
        chain = sketch(recipe.backbone, recipe.backbone_args)
    except BackboneError:
        return
    if recipe.train == HEAD:
        chain.place(recipe.cut or POOL)
        return
    planned(recipe, stages_of(chain, recipe), 1, cache)


def stages_of(chain: Chain, recipe: Recipe) -> list[Stage]:
    """The backbone's layers, in parts where the recipe names parts; where it asks for adapters, with what could have some."""
    layers = _layers(chain, recipe)
    stages = [Stage(layer.name, layer.parameters, layer.macs, layer.shape) for layer in layers]
    if adapters_in(recipe.train) is None:
        return stages
    from rehead.tuning.lora import linear_layers

    linear = linear_layers(chain, [stage.name for stage in stages])
    return [replace(stage, linear=sum(linear.get(stage.name, {}).values())) for stage in stages]


def _layers(chain: Chain, recipe: Recipe) -> Sequence[Layer]:
    return chain.opened_at(names_in(recipe.train) | ({recipe.cut} if recipe.cut else set()))


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
    if plan.cut is None and not takes(body, sizes[0]):
        job.progress.note(
            f"{backbone.name} takes photos of {card.preprocess.height} pixels alone: all epochs see those."
        )
        sizes = [card.preprocess]
    scale = Scale.of(job.catalog.labels(extracted.train)) if job.catalog.task == "regression" else None
    device = job.device(recipe.device)
    feeds = partial(feed_of, extracted, job.catalog, recipe, card, sizes, scale)
    feed = feeds(device)
    if extracted.views:
        feeds = partial(as_it_is, feed)  # elsewhere no photo is read, and none need be told of
    body.to(device, memory_format=layout_for(torch.device(device)))
    return Ground(job, backbone, plan, card, body, feed, feeds, extracted.train, learn, watch, scale, device)


def first_head_on(ground: Ground, recipe: Recipe) -> tuple[Head, str]:
    """The head to begin with: solved on what the layers give before they learn, or random numbers."""
    from rehead.nets.heads import head_from_module, mlp_module
    from rehead.tuning.modes import adapt_norms
    from rehead.tuning.ranges import hidden_widths
    from rehead.tuning.watching import logits_of

    catalog, hidden = ground.job.catalog, hidden_widths(recipe.head)
    task, n_outputs = catalog.task, catalog.n_outputs
    body, feed, device = ground.body, ground.feed, ground.device
    if recipe.warm_head:
        if recipe.norm == "adapt":
            some = np.random.default_rng(recipe.seed).permutation(ground.learn)[:N_ADAPT]
            learning = [ground.backbone[name] for name in ground.plan.learning]
            n_batches = math.ceil(
                len(some) / recipe.course.batch_size
            )  # as large as each other: the mean is over batches
            size = math.ceil(len(some) / n_batches)
            adapt_norms(body, learning, (x.to(device) for x in feed.plain(some, size)))
        pooled, learned = _frozen_features(ground, recipe), _learned(ground)
        labels, folds = feed.labels[ground.learn], folds_of(catalog, learned, recipe)
        if not hidden:
            return first_head(task, pooled, labels, n_outputs, folds, recipe)
        by, watch = (
            partial(trained_dense, ground.job, recipe.device),
            watched(catalog, learned, STOP_SHARE, recipe.seed),
        )
        progress = ground.job.progress
        fitted = fit_task(task, pooled, labels, n_outputs, folds, recipe, device, progress, by=by, watch=watch)
        return fitted.head, fitted.note
    width = logits_of(body, feed, np.arange(1), device).shape[1]
    module = mlp_module(width, hidden, n_outputs, recipe.activation, seed=recipe.seed)
    kind: Any = "mlp" if hidden else "linear"
    return head_from_module(module, kind, recipe.activation), f"{kind}: random at first"


def _learned(ground: Ground) -> Positions:
    """The photos to learn from, without those that are watched: these say how well it is learned."""
    return Positions(np.asarray(ground.train, np.int64)[ground.learn])


def _frozen_features(ground: Ground, recipe: Recipe) -> NDArray[np.float32]:
    """(n, width) of the photos to learn from, before layers learn. Of photos on the CPU by an engine, through the store."""
    from rehead.tuning.feed import PhotoFeed
    from rehead.tuning.watching import logits_of

    if ground.device != "cpu" or recipe.norm == "adapt" or not isinstance(ground.feed, PhotoFeed):
        return logits_of(ground.body, ground.feed, ground.learn, ground.device)
    catalog, whole = ground.job.catalog, replace(recipe, cut=None, budget_s=None)
    job = replace(ground.job, stop=lambda: False)  # what is begun here is needed
    prefix = chosen_prefix(job, whole)
    with open_store(job.cache, prefix, whole) as store:
        extract_missing(job, _learned(ground), prefix, whole, store)
        return store.read(catalog.digests(_learned(ground)))


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
    names = [layer.name for layer in _layers(ground.backbone.chain, recipe)]
    return [name for name in names if name not in (*ground.plan.learning, HEAD)]


def photo_card(card: Card, recipe: Recipe) -> Card:
    return with_fit(card, recipe.fit) if recipe.fit != "default" else card
