"""What learns of the network, and the layer behind which it is cut: in view of the disk, and of what the store holds already.

The rule is `tuning/plan.py`'s; here are the job's photos, of which activations may be all that is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rehead.data.room import free_bytes
from rehead.errors import BackboneError, RecipeError, counted
from rehead.exporting.prefixes import prefix_there
from rehead.extraction import lost_with, open_store
from rehead.features.room import on_disk
from rehead.features.views import view_names
from rehead.job import Job
from rehead.nets.card import Card, with_fit
from rehead.runs.footing import Footing
from rehead.tuning.layers import HEAD, POOL, Stage, adapters_in, layers_that_learn, names_in
from rehead.tuning.plan import Plan, check_mixing, described, needed_bytes, planned
from rehead.tuning.recipe import Recipe

if TYPE_CHECKING:
    from rehead.nets.backbone import Backbone
    from rehead.nets.chain import Chain, Layer


def planned_network(
    job: Job, recipe: Recipe, backbone: Backbone, order: Sequence[int], footing: Footing | None
) -> Plan:
    """What learns and where the network is cut, which is told. order: the photos. footing: of what has begun already."""
    stages = stages_of(backbone.chain, recipe)
    if footing is not None:
        recipe = replace(recipe, cut=footing.cut or "none")
    plan = planned(recipe, stages, len(order), job.cache, partial(kept_bytes, job, recipe, order))
    if footing is None and (cut := _where_gone_are_kept(job, recipe, backbone.chain, plan, order)) is not None:
        recipe, plan = replace(recipe, cut=cut), replace(plan, cut=cut)
    check_mixing(recipe, stages, plan, (backbone.preprocess.height, backbone.preprocess.width))
    for line in described(stages, plan, recipe, len(order)):
        job.progress.note(line)
    return plan


def _where_gone_are_kept(job: Job, recipe: Recipe, chain: Chain, plan: Plan, order: Sequence[int]) -> str | None:
    """Another layer than the plan's, whatever the limit, where the activations behind it are all that is left of earlier
    photos that cannot be spared, and the disk has room for the others'; else None, with a word on the photos that this costs.

    Raises RecipeError where the recipe names a layer, and such photos are kept behind another.
    """
    gone = [i for i in order if job.catalog.is_gone(job.catalog.photos[i])]
    lost = gone and _lost_behind(job, recipe, gone, plan.cut)
    if not lost:
        return None
    stages = stages_of(chain, replace(recipe, cut=None))  # whole, also where the layer that is named is a part of one
    names = [stage.name for stage in stages]
    below = names[: names.index((*layers_that_learn(recipe.train, stages), POOL)[0])]
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
    if has_room and are_missed and recipe.cut is not None:
        raise RecipeError(
            what=f"--cut {recipe.cut} would leave out {counted(len(lost), 'earlier photo')}, of which no file is there.",
            why=f"What is left of {photos} is kept behind {cut}.",
            fix=f"Name --cut {cut}, or bring the files back to their place.",
        )
    if has_room and are_missed:
        job.progress.note(f"Cut behind {cut}, whatever --cache-limit says: nothing else is left of {photos}")
        return cut
    job.progress.note(
        f"What is left of {photos} is kept behind {cut}: "
        + (f"--cut {cut} keeps them" if has_room else "the disk has no room for what all take there")
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
    """The backbone's layers, in parts where the recipe names parts; where it asks for adapters, with what could have some.
    Raises RecipeError where --cut takes a layer apart, and others learn for that."""
    layers = layers_of(chain, recipe)
    stages = [Stage(layer.name, layer.parameters, layer.macs, layer.shape) for layer in layers]
    if adapters_in(recipe.train) is None:
        if recipe.cut is not None:
            _check_same_learn(stages, stages_of(chain, replace(recipe, cut=None)), recipe)
        return stages
    from rehead.tuning.lora import linear_layers

    linear = linear_layers(chain, [stage.name for stage in stages])
    return [replace(stage, linear=sum(linear.get(stage.name, {}).values())) for stage in stages]


def _check_same_learn(stages: Sequence[Stage], whole: Sequence[Stage], recipe: Recipe) -> None:
    """stages, whole: with and without --cut, which counts layers otherwise where it names a part of one."""
    learning, meant = (layers_that_learn(recipe.train, some) for some in (stages, whole))
    if learning != meant:
        names = [stage.name for stage in stages]
        behind = [name for name in learning if names.index(name) > names.index(str(recipe.cut))]
        raise RecipeError(
            what=f"--cut {recipe.cut} takes a layer apart that --train {recipe.train} counts as one.",
            why=f"Without it {', '.join(meant)} learn.",
            fix=f"Name those behind the cut that are to learn: --train {','.join(behind)}; or leave --cut out.",
        )


def layers_of(chain: Chain, recipe: Recipe) -> Sequence[Layer]:
    return chain.opened_at(names_in(recipe.train) | ({recipe.cut} if recipe.cut else set()))


def photo_card(card: Card, recipe: Recipe) -> Card:
    return with_fit(card, recipe.fit) if recipe.fit != "default" else card
