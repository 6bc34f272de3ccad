"""How long a recipe will take, from what one photo was measured to take. Arithmetic alone: no torch.

As if nothing were stored yet; what is already there makes a job shorter than was said, never longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rehead.features.views import view_names
from rehead.tuning.layers import Stage
from rehead.tuning.plan import Plan
from rehead.tuning.recipe import Recipe

FORTH = 1 / 3  # of a step's time: back through a layer costs about twice as much as forth
AROUND_S = 5.0  # loading and exporting a network, on two cores; more for the largest, which then take long anyway


@dataclass(frozen=True)
class Pace:
    """Seconds that one photo takes. network_s: the whole network on the engine. decode_s: decoding, all cores at work.
    step_s: forth and back through the layers behind the cut."""

    network_s: float
    decode_s: float
    step_s: float


@dataclass(frozen=True)
class Forecast:
    """once_s: all but the epochs."""

    once_s: float
    epoch_s: float

    def seconds(self, epochs: int) -> float:
        return self.once_s + epochs * self.epoch_s

    def epochs_within(self, seconds: float) -> int:
        """How many epochs fit; 0 when none does."""
        return max(0, int((seconds - self.once_s) / max(self.epoch_s, 1e-9)))


def forecast(
    recipe: Recipe, stages: Sequence[Stage], plan: Plan, pace: Pace, n_train: int, n_held_out: int
) -> Forecast:
    """What training layers by a recipe takes. stages: of the backbone, in order. plan: what learns, and the cut."""
    n_watch = round(recipe.watch * n_train)
    n_learn = n_train - n_watch
    if plan.cut is None:
        read_s, once_s = pace.decode_s, (n_train + n_held_out) * pace.decode_s
    else:
        n_kept = n_train * len(view_names(recipe.augment, recipe.views)) + n_held_out
        read_s, once_s = 0.0, n_kept * (pace.decode_s + _below(plan.cut, stages) * pace.network_s)
    look_s = FORTH * pace.step_s + read_s
    n_looks = n_held_out + n_watch
    if recipe.warm_head and recipe.first is None:
        n_looks += n_train + n_held_out + (n_learn if recipe.norm == "adapt" else 0)
    return Forecast(AROUND_S + once_s + n_looks * look_s, n_learn * (pace.step_s + read_s) + n_watch * look_s)


def _below(cut: str, stages: Sequence[Stage]) -> float:
    """The share of the network's multiply-adds up to and with the layer `cut`."""
    names = [stage.name for stage in stages]
    below = sum(stage.macs for stage in stages[: names.index(cut) + 1])
    return below / max(1, sum(stage.macs for stage in stages))
