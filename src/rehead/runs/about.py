"""What a bundle says of the run that it is of."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rehead.data.catalog import Catalog
from rehead.solution import Solution
from rehead.tuning.recipe import Recipe
from rehead.verdict.judging import AnyVerdict

MODULES = {"pillow": "PIL"}  # where a module is called otherwise than its package


def facts_of(catalog: Catalog, solution: Solution, recipe: Recipe, verdict: AnyVerdict) -> dict[str, Any]:
    """What the bundle says of itself in `rehead.json`."""
    about = {
        name: value
        for name, value in asdict(solution.card).items()
        if name not in ("preprocess", "pooled", "shape", "graph_bytes")
    }
    about |= {"width": solution.head.width, "learned": [*solution.card.learned, *solution.learned]}
    about["int8_cosine"] = solution.int8_cosine
    return {
        "task": catalog.task,
        "classes": list(catalog.classes),
        "thresholds": list(solution.thresholds),
        "preprocess": solution.card.preprocess.to_dict(),
        "backbone": about,
        "recipe": {name: value for name, value in asdict(published(recipe)).items() if value is not None},
        "verdict": verdict.to_dict(),
        "versions": versions(),
    }


def published(recipe: Recipe) -> Recipe:
    """The recipe without the folders of the computer it was made on."""
    return recipe if recipe.weights is None else replace(recipe, weights=Path(recipe.weights).name)


def versions() -> Mapping[str, str]:
    """The versions of this program and of the libraries that decide its results."""
    names = ("rehead", "numpy", "onnxruntime", "pillow", "timm", "torch")
    return {name: metadata.version(name) for name in names if importlib.util.find_spec(MODULES.get(name, name))}
