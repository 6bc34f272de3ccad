"""What the settings of a recipe may be, and what is said of others."""

from __future__ import annotations

import operator
import re
from typing import Any

from rehead.errors import RecipeError, nearest

HEADS = ("linear", "mlp", "prototype", "auto")
CHOICES = {
    "task": ("auto", "classification", "multilabel", "regression"),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("one-cycle", "cosine", "constant"),
    "norm": ("frozen", "adapt"),
    "sampling": ("plain", "balanced"),
    "augment": ("none", "flip", "crop", "trivial", "rand"),
}
RANGES = {
    "epochs": (1, 100_000), "batch_size": (1, 1 << 20), "lr": (1e-12, 1e3), "weight_decay": (0, 10),
    "layer_decay": (1e-3, 1), "label_smoothing": (0, 0.99), "clip": (1e-6, 1e9), "accumulate": (1, 1 << 20),
    "ema": (0, 0.999999), "patience": (1, 100_000),
    "mixup": (0, 100), "cutmix": (0, 100), "erase": (0, 1), "views": (1, 100), "start_scale": (0.1, 1), "watch": (0, 0.5),
    "cache_limit_gb": (0, 1e6), "seed": (0, 2**63 - 1), "limit": (1, 1 << 40), "budget_s": (0.001, 1e9),
}  # fmt: skip
WHOLE = ("epochs", "batch_size", "accumulate", "patience", "views", "folds", "seed", "limit")


def hidden_widths(head: str) -> tuple[int, ...]:
    """The widths in "mlp:1000,256" as (1000, 256); () for other heads. Raises RecipeError when it is no head."""
    kind, _, widths = head.partition(":")
    if kind != "mlp":
        check_choice("head", head, HEADS)
        return ()
    if not re.fullmatch(r"\d{1,5}(,\d{1,5})*", widths) or "0" in widths.split(","):
        raise RecipeError(
            what=f"{head!r} is no head.",
            why="An MLP names the widths of its hidden layers, 1 to 99999.",
            fix="For example: --head mlp:1000,256",
        )
    return tuple(int(width) for width in widths.split(","))


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises RecipeError for a value that is none of these, with the nearest."""
    if value not in choices:
        names = [str(choice) for choice in choices if choice is not None]
        why = f"One of: {', '.join(names)}."
        raise RecipeError(what=f"--{name} cannot be {value!r}.", why=why, fix=nearest(str(value), names))


def as_whole(value: Any) -> Any:
    """A whole number as an int, whether it came as 1e3 or from NumPy; anything else as it is."""
    if isinstance(value, (bool, float)):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    try:
        return operator.index(value)
    except TypeError:
        return value


def check_within(name: str, value: float, low: float, high: float, unit: str = "", *, is_whole: bool = False) -> None:
    """Raises RecipeError for what is no number from low to high, or no whole one."""
    kinds = int if is_whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        allowed = f"{low:g}{unit} or more" if high >= 1e6 else f"between {low:g} and {high:g}{unit}"
        allowed = f"a whole number, {allowed}" if is_whole and isinstance(value, float) else allowed
        raise RecipeError(
            what=f"--{name} must be {allowed}, not {value!r}.", fix="Give it such a value, or leave it out."
        )
