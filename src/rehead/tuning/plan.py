"""Where the network is cut: below the first layer that learns, as far up as what is kept there fits on the disk. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rehead.data.room import free_bytes
from rehead.errors import RecipeError, UnknownLayer, counted, nearest
from rehead.features.room import on_disk
from rehead.features.views import view_names
from rehead.nets.places import places_of
from rehead.tuning.layers import HEAD, POOL, Stage, adapters_in, layers_that_learn
from rehead.tuning.recipe import Recipe

GB = 1e9
CACHE_LIMIT_GB = 20.0  # of activations by default, or half of what is free


@dataclass(frozen=True)
class Plan:
    """What learns, in order, the head apart; the layer behind which activations are kept, None to train from photos."""

    learning: tuple[str, ...]
    cut: str | None


def planned(
    recipe: Recipe, stages: Sequence[Stage], n_photos: int, cache: Path, kept_bytes: Callable[[str], int] = lambda _: 0
) -> Plan:
    """What learns and where activations are kept: below the first layer that learns, or where they fit on the disk.

    kept_bytes: what is there already behind a layer, which takes no more room.
    Raises UnknownLayer, RecipeError when --cut lies behind a layer that learns.
    """
    names = [stage.name for stage in stages]
    learning = layers_that_learn(recipe.train, stages)
    first = names.index(learning[0]) if learning else names.index(POOL)
    if recipe.cut is not None:
        if recipe.cut == "none":
            return Plan(learning, None)
        if recipe.cut not in names:
            raise UnknownLayer(
                what=f"No layer is called {recipe.cut!r}, or none that --train can be cut behind.",
                why=f"This backbone has, in order: {', '.join(names)}.",
                fix=nearest(recipe.cut, names) or "Leave --cut out, or name one of them; none trains from the photos.",
            )
        if names.index(recipe.cut) >= first:
            raise RecipeError(
                what=f"--cut {recipe.cut} is not below {learning[0] if learning else POOL}, the first layer that learns.",
                why=f"The layers are, in order: {', '.join(names)}.",
                fix="Leave --cut out, name an earlier layer if there is one, or train from the photos: --cut none.",
            )
        return Plan(learning, recipe.cut)
    for stage in reversed(stages[:first]):
        if _fits(needed_bytes(stage, recipe, n_photos), recipe.cache_limit_gb, cache, partial(kept_bytes, stage.name)):
            return Plan(learning, stage.name)
    return Plan(learning, None)


def _fits(needed: int, limit_gb: float | None, cache: Path, kept_bytes: Callable[[], int]) -> bool:
    """Whether the disk may hold so much. Without a limit that is half of what is free, for what is not there yet."""
    if needed > GB * (CACHE_LIMIT_GB if limit_gb is None else limit_gb):
        return False
    room = free_bytes(cache) / 2
    return limit_gb is not None or needed <= room or needed - kept_bytes() <= room


def check_mixing(recipe: Recipe, stages: Sequence[Stage], plan: Plan, size: tuple[int, int]) -> None:
    """Raises RecipeError when boxes are to be cut out of activations that are no maps. size: a photo's height and width."""
    asked = [f"--{name}" for name in ("cutmix", "erase") if getattr(recipe, name)]
    shape = next((stage.shape for stage in stages if stage.name == plan.cut), None)
    if asked and shape is not None and places_of(shape, size) != (1, 2):
        raise RecipeError(
            what=f"{' and '.join(asked)} cannot be used behind {plan.cut}.",
            why=f"Boxes are cut out of maps (channels, height, width); a photo is {shape} there.",
            fix="Train from the photos with --cut none, name an earlier --cut, or use --mixup.",
        )


def needed_bytes(stage: Stage, recipe: Recipe, n_photos: int) -> int:
    """What activations behind a layer take on the disk, all views of all photos."""
    return n_photos * len(view_names(recipe.augment, recipe.views)) * on_disk(2 * math.prod(stage.shape))


def described(stages: Sequence[Stage], plan: Plan, recipe: Recipe, n_photos: int) -> list[str]:
    """What learns and what does not, layer by layer; where activations are kept, and what they take on the disk."""
    lines = []
    for stage in stages:
        if stage.name == HEAD or not stage.parameters:
            continue
        lines.append(f"  {stage.name:<14} {stage.parameters:>12,} parameters  {_word(stage, plan, recipe)}")
    lines.append(f"  {HEAD:<14} {'new':>12}             learns")
    return [f"What learns ({recipe.train}):", *lines, _where(stages, plan, recipe, n_photos)]


def _word(stage: Stage, plan: Plan, recipe: Recipe) -> str:
    if stage.name not in plan.learning:
        return "frozen"
    adapters = adapters_in(recipe.train)
    return f"frozen, {adapters[0] * stage.linear:,} in adapters learn" if adapters else "learns"


def _where(stages: Sequence[Stage], plan: Plan, recipe: Recipe, n_photos: int) -> str:
    names = [stage.name for stage in stages]
    first = names.index(plan.learning[0] if plan.learning else POOL)
    below = names[first - 1] if first else None
    wanted = needed_bytes(stages[first - 1], recipe, n_photos) / GB if first else 0.0
    n_views = len(view_names(recipe.augment, recipe.views))
    moved = below is not None and recipe.cut is None and plan.cut != below
    why = f" ({_amount(wanted)} behind {below} would be more than --cache-limit)" if moved else ""
    if plan.cut is None:
        return f"Nothing is kept: each epoch reads the photos{why}."
    if recipe.start_scale != 1:
        why += "; --start-scale has no effect, as photos are seen at one size"
    size = needed_bytes(stages[names.index(plan.cut)], recipe, n_photos) / GB
    return f"Kept behind {plan.cut}: {n_photos} photos in {counted(n_views, 'view')}, {_amount(size)}{why}."


def _amount(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{max(1, 1000 * gigabytes):.0f} MB"
