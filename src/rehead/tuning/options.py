"""What the command line calls the settings of a recipe, and which of them nothing hears."""

from __future__ import annotations

from typing import Any

from rehead.bundle_facts import Task
from rehead.tuning.ranges import hidden_widths
from rehead.tuning.recipe import AUTO, OF_STEPS, Recipe

OF_CLASSES = ("label_smoothing", "precision")  # settings that say nothing of several labels or of numbers
OPTIONS = {"cache_limit_gb": "cache-limit", "budget_s": "budget", "backbone_args": "backbone-arg"}


def unheard(recipe: Recipe, settings: dict[str, Any], task: Task) -> list[str]:
    """A line for each of these settings that a recipe does not hear, for what is learned or since its head alone learns."""
    strange = [] if task == "classification" else [name for name in settings if name in OF_CLASSES]
    lines = [f"{option(name)} has no effect: it is for classes, not for several labels or numbers." for name in strange]
    if recipe.train != "head":
        blind = "patience" in settings and not recipe.watch
        return lines + ["--patience has no effect: with --watch 0 no photo says whether an epoch was a gain."] * blind
    hears = {"activation", "epochs", "batch_size", "lr"} if hidden_widths(recipe.head) or recipe.head == AUTO else set()
    deaf = [name for name in settings if name in OF_STEPS and name not in hears and name not in strange]
    if recipe.head == "prototype":
        deaf += [name for name in settings if name == "class_weight"]
    how = {"prototype": "is the class means", "linear": "is solved"}.get(recipe.head, "learns by its own steps")
    return lines + [f"{option(name)} has no effect: --train head with --head {recipe.head} {how}." for name in deaf]


def option(name: str) -> str:
    """What the command line calls a setting: '--batch-size'."""
    return "--" + OPTIONS.get(name, name.replace("_", "-"))
