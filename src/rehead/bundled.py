"""A bundle as a backbone: its graph up to the features, below a new head. No PyTorch is needed, nor the run it came from.

In a recipe it stands as weights: a folder instead of a file, so that a job can be taken up again and says where its
network came from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehead.bundle import read
from rehead.errors import RecipeError
from rehead.nets.card import is_bundle
from rehead.runs.earlier import knows_photos, places
from rehead.tuning.layers import HEAD
from rehead.tuning.recipe import AUTO, Recipe

ENGINES = (AUTO, "onnxruntime", "openvino", "openvino-bf16")  # what runs a graph


def with_bundle(
    settings: Mapping[str, Any], from_run: str | os.PathLike[str] | None
) -> tuple[dict[str, Any], str | os.PathLike[str] | None]:
    """The settings of a recipe and the run to begin from, after a bundle that is asked for as backbone became its weights.

    It is asked for as backbone=, as weights=, or as from_run= where the photos that it learned from are not beside it. Paths
    are full ones, so that the job can be taken up from any folder. Raises BundleError, RecipeError for what a bundle cannot be.
    """
    asked = {**settings}
    if asked.get("weights") is not None:
        asked["weights"] = os.path.abspath(os.path.expanduser(asked["weights"]))
    folder, rest = _asked_for(asked, from_run)
    if folder is None:
        return asked, from_run
    name = str(read(folder).facts["backbone"].get("name", "unknown"))
    weights = asked.get("weights")
    if weights is not None and _path(weights) != folder:
        raise RecipeError(
            what=f"The bundle {folder} has weights of its own, and --weights says {weights}.",
            fix="Leave --weights out, or the bundle.",
        )
    other = asked.get("backbone")
    if other not in (None, name) and _path(other) != folder:
        raise RecipeError(
            what=f"The bundle {folder} is a backbone itself: it holds {name}, and --backbone says {other}.",
            fix="Leave --backbone out, or the bundle.",
        )
    if asked.get("engine", AUTO) not in ENGINES:
        raise RecipeError(
            what=f"--engine {asked['engine']} runs networks, and a bundle holds a graph alone.",
            fix="Leave --engine out.",
        )
    if asked.get("device") in ("cuda", "mps"):
        raise RecipeError(
            what=f"--device {asked['device']} runs networks, and a bundle holds a graph alone, which runs on the CPU here.",
            fix="Leave --device out.",
        )
    engine = "onnxruntime" if asked.get("engine", AUTO) == AUTO else asked["engine"]
    return {**asked, "backbone": name, "weights": str(folder), "engine": engine}, rest


def check_bundled(recipe: Recipe, *, searches: bool = False) -> None:
    """Raises RecipeError for what needs the network itself, of which a bundle has the graph alone."""
    if recipe.weights is None or not is_bundle(_path(recipe.weights)):
        return
    if recipe.engine == "openvino-bf16" and read(_path(recipe.weights)).facts["backbone"].get("quantized") is not None:
        raise RecipeError(
            what=f"The bundle's {recipe.backbone} is in 8 bits already, which --engine openvino-bf16 would round once more.",
            fix="Leave --engine out.",
        )
    asked = {
        "--recipe auto": searches,
        f"--train {recipe.train}": recipe.train != HEAD,
        f"--cut {recipe.cut}": recipe.cut not in (None, "pool"),
        "--backbone-arg": bool(recipe.backbone_args),
    }
    if wrong := [name for name, is_asked in asked.items() if is_asked]:
        option = wrong[0].split()[0]
        instead = {"--train": "Train a head (--train head)", "--cut": "Take --cut pool"}.get(
            option, f"Leave {option} out"
        )
        raise RecipeError(
            what=f"{wrong[0]} needs the network {recipe.backbone} itself, and a bundle has its graph alone.",
            why=f"A graph can be run and cannot be {'changed' if option in ('--cut', '--backbone-arg') else 'trained'}.",
            fix=f"{instead}, or name the backbone instead of the bundle.",
        )


def about_bundle(recipe: Recipe) -> str | None:
    """One line where a bundle is the backbone."""
    if recipe.weights is None or not is_bundle(_path(recipe.weights)):
        return None
    return f"The backbone is the bundle {recipe.weights} ({recipe.backbone}); only its head is left behind"


def _asked_for(
    asked: Mapping[str, Any], from_run: str | os.PathLike[str] | None
) -> tuple[Path | None, str | os.PathLike[str] | None]:
    """The bundle that is asked for as backbone, and the run to begin from besides."""
    if from_run is not None:
        bundle, run = places(_path(from_run))
        if is_bundle(bundle) and not knows_photos(run):
            return bundle, None
    for setting in ("backbone", "weights"):
        if asked.get(setting) is not None and is_bundle(_path(asked[setting])):
            return _path(asked[setting]), from_run
    return None, from_run


def _path(name: Any) -> Path:
    return Path(os.path.abspath(os.path.expanduser(name)))
