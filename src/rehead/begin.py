"""The beginning of a job: from what was asked for to a catalog and a recipe.

What can be known to fail without a photo is said first: reading a million of them takes long. The job is `run.py`'s.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rehead.auditing.kept import Kept
from rehead.bundled import about_bundle, check_bundled
from rehead.cutting import check_layers
from rehead.data.catalog import Catalog, as_csv
from rehead.data.rows import SIDE_BY_NAME, first_few, quoted
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.errors import MissingExtra, RecipeError, RunError, SourceError, counted
from rehead.exporting.prefixes import check_backbone
from rehead.features.bad import check_bad
from rehead.features.cache import cache_folder
from rehead.features.engines import check_engine, resolve
from rehead.job import Machines
from rehead.progress import Clock
from rehead.runs.contents import can_go_on
from rehead.runs.earlier import Earlier, read_earlier
from rehead.runs.folder import RunFolder
from rehead.runs.log import Log
from rehead.runs.origins import line_of
from rehead.runs.resume import Asked, check_earlier, check_photos, recipe_of, taken_up
from rehead.search.tries import FILE as TRIED
from rehead.search.tries import LADDER, Search
from rehead.tuning.layers import HEAD, POOL, adapters_in
from rehead.tuning.options import unheard
from rehead.tuning.ranges import hidden_widths
from rehead.tuning.recipe import AUTO, Recipe
from rehead.tuning.tasks import check_task
from rehead.tuning.trackers import chosen_trackers


@dataclass(frozen=True)
class Wish:
    """What `run.tune` was asked for; the names are those of its arguments, but preset is its `recipe`."""

    source: object
    layout: str
    valid: object | None
    test: object | None
    preset: str | None
    resume: str | os.PathLike[str] | None
    from_run: str | os.PathLike[str] | None
    track: Sequence[str]
    settings: dict[str, Any]
    force: bool
    ray: str | None = None
    report: bool | None = None
    with_neighbours: bool | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        if self.source is None and self.resume is None:
            raise SourceError(what="No photos are named.", fix="Name a folder of labelled photos: rehead tune photos/")
        chosen_trackers(self.track)
        if self.preset == AUTO and self.from_run is not None:
            raise RecipeError(
                what="--recipe auto tries one recipe after another, and --from takes the earlier run's.",
                fix="Leave one of them out, or name --recipe quick, balanced or thorough.",
            )


class Begun(NamedTuple):
    """The photos; what learns, and how; where that is yet to be found, the search; and what else was asked for."""

    catalog: Catalog
    recipe: Recipe
    search: Search | None
    asked: Asked


def begun(
    wish: Wish, run: RunFolder, cache: Path, progress: Log, clock: Clock, machines: Machines | None = None
) -> Begun:
    """What a job begins with. The run's folder is there then. machines: who reads photos and computes, None for this one."""
    recipe, asked, search, earlier = _chosen(wish, run, cache)
    asked = replace(
        asked,
        report=asked.report if wish.report is None else wish.report,
        with_neighbours=asked.with_neighbours if wish.with_neighbours is None else wish.with_neighbours,
        cache=None if cache == cache_folder(None) else str(cache.absolute()),
        features=wish.features,
    )
    _check(recipe, search, wish, cache, progress)
    if machines is not None:
        learns = recipe.train != HEAD or search is not None
        machines.check(recipe.device, with_torch=learns or resolve(*recipe.extracts_by)[0] == "torch")
    clock.lap("prepare")
    if wish.resume is not None:
        clock.add(run.kept_seconds())
    opened = open_source(
        asked.source if wish.source is None else wish.source,
        layout=asked.layout,
        valid=asked.valid if wish.valid is None else wish.valid,
        test=asked.test if wish.test is None else wish.test,
        cache=cache,
        task=recipe.task,
        max_bad=recipe.max_bad,
        readers=machines,
        progress=progress,
    )
    if earlier is not None:
        earlier.check_dice(wish.settings, opened)
    run.create(opened.name, recipe.backbone)
    progress.begin(run.path)
    run.write("recipe.toml", recipe.to_toml())
    asked = replace(asked, root=str(opened.root) if opened.root else None)
    run.write_json("photos.json", asked.to_dict())
    if search is not None:
        run.write_json(TRIED, search.written(()))
    catalog = scan(
        opened,
        seed=recipe.seed,
        valid_fraction=recipe.valid_fraction,
        task=recipe.task,
        progress=progress,
        cache=cache,
        join=partial(earlier.joined, progress=progress) if earlier else None,
        check=lambda found: check_bad(found.bad, found.n_rows, recipe.max_bad),
        readers=machines,
        besides=Kept(cache) if recipe.tie_copies else None,
    )
    if wish.resume is not None and check_photos(run.path, catalog, force=wish.force) and can_go_on(run.path):
        progress.note("Its layers have learned from other photos before: what is told is of those that are named now")
    run.write("catalog.csv", as_csv(catalog.photos))
    progress.note(about(catalog))
    if (line := about_bundle(recipe)) is not None:
        progress.note(line)
    if catalog.strangers:
        progress.note(_left_out(catalog))
    if alike := _alike(catalog.classes, catalog.classes):
        progress.note(f"Learned apart are {first_few(alike)}: names count letter by letter")
    if catalog.layout == "folders" and (sides := [name for name in catalog.classes if name.lower() in SIDE_BY_NAME]):
        progress.note(
            f"Learned as a class, since class folders stand beside it: {first_few([quoted(name) for name in sides])}. "
            "Where it holds class folders of photos to hold out, name it: --test DIR"
        )
    if search is None:  # what a search tries later hears them
        for line in unheard(recipe, wish.settings, catalog.task):
            progress.note(line)
    check_task(recipe, catalog.task, searches=search is not None)
    clock.lap("scan")
    return Begun(catalog, recipe, search, asked)


def _chosen(wish: Wish, run: RunFolder, cache: Path) -> tuple[Recipe, Asked, Search | None, Earlier | None]:
    if wish.resume is not None:
        recipe, asked, search = _taken_up(wish, run.path)
        earlier = read_earlier(asked.from_run, cache) if asked.from_run is not None else None
        asked = replace(asked, from_run=str(earlier.run)) if earlier else asked
        return recipe, asked, search, earlier
    earlier = read_earlier(wish.from_run, cache) if wish.from_run is not None else None
    if earlier is not None:
        run.check_spares(path for path, _ in line_of(earlier.run))
    search = Search.of(wish.settings) if wish.preset == AUTO else None
    if search is not None:
        recipe = search.recipe(LADDER[0])
    elif earlier is not None:
        recipe = earlier.recipe_with(wish.preset, wish.settings)
        if wish.ray is not None and recipe.engine == AUTO and recipe.device in (AUTO, "cpu"):
            recipe = replace(recipe, engine="onnxruntime")
    else:
        recipe = Recipe.from_preset(wish.preset, wish.settings)
    asked = Asked.of(wish.source, wish.layout, wish.valid, wish.test, earlier.run if earlier else None)
    return recipe, asked, search, earlier


def _taken_up(wish: Wish, run: Path) -> tuple[Recipe, Asked, Search | None]:
    """What an interrupted run goes on with: its own, but for what is given in its place."""
    recipe, asked = taken_up(run, {"source": wish.source, "valid": wish.valid, "test": wish.test})
    check_earlier(run, asked.from_run, wish.from_run)
    asked = asked.with_given(wish.source, wish.layout, wish.valid, wish.test, wish.from_run)
    own, settings = Search.of_run(run), asked.others(wish.settings)
    if own is not None:
        search = own.taken_up(run, wish.preset, settings, force=wish.force)
        return (recipe if search is own else search.recipe(LADDER[0])), asked, search
    if wish.preset == AUTO:
        raise RunError(
            what=f"The run {run} has one recipe, and --recipe auto tries one after another.",
            fix="Leave --recipe out, or start a new run.",
        )
    return recipe_of(run, recipe, wish.preset, settings, force=wish.force), asked, None


def _check(recipe: Recipe, search: Search | None, wish: Wish, cache: Path, progress: Log) -> None:
    """What needs no photo to be known."""
    if wish.track and search is not None:
        named = ", or name --recipe balanced or thorough" if wish.resume is None else ""
        raise RecipeError(
            what="--recipe auto tries one recipe after another, and --track follows one training.",
            fix=f"Leave --track out{named}.",
        )
    if wish.track and recipe.train == HEAD:
        raise RecipeError(
            what=f"--track {' '.join(chosen_trackers(wish.track))} has nothing to follow: "
            "a head alone is solved, not trained in epochs.",
            fix="Leave it out, or train layers too: --train last:2.",
        )
    if wish.ray is not None:
        _check_ray(recipe, search, wish)
    check_bundled(recipe, searches=search is not None)
    engine, device = resolve(*recipe.extracts_by)
    check_engine(engine, "cpu" if wish.ray is not None and engine == "torch" else device)
    if (hidden_widths(recipe.head) or recipe.head == AUTO) and importlib.util.find_spec("torch") is None:
        raise MissingExtra("torch", "tune", f"--head {recipe.head}")
    if adapters_in(recipe.train) is not None:
        from rehead.tuning.lora import check_peft

        check_peft()
    if recipe.backbone != AUTO:
        progress.phase(f"Looking for {recipe.backbone}")
        weights = recipe.weights_file
        complete = recipe.cut if recipe.train == HEAD and recipe.cut not in (None, "none") else POOL
        check_backbone(recipe.backbone, weights, dict(recipe.backbone_args), complete, cache)
        if recipe.train != HEAD or recipe.cut not in (None, "none", POOL):
            check_layers(recipe, cache)


def _check_ray(recipe: Recipe, search: Search | None, wish: Wish) -> None:
    """Raises RecipeError where the recipe does not say by which of their devices the nodes of a cluster are to compute."""
    engine, device = recipe.extracts_by
    if device == "mps":
        raise RecipeError(
            what=f"--ray {wish.ray} and --device mps do not go together.",
            why="Nodes of a cluster have CPUs, and may have NVIDIA's GPUs.",
            fix="Pass --device cpu or --device cuda.",
        )
    if device == "cuda" and (recipe.backbone == AUTO or search is not None):
        searched = "--backbone auto" if recipe.backbone == AUTO else "--recipe auto"
        raise RecipeError(
            what=f"--ray {wish.ray}, --device cuda and {searched} do not go together.",
            why="What is tried is timed on this machine, which says nothing of the nodes' GPUs.",
            fix="Leave --ray out, or start a new run."
            if wish.resume is not None
            else f"Leave {searched} out, or --device.",
        )
    if device == "auto" and engine in ("auto", "torch"):
        raise RecipeError(
            what=f"--ray {wish.ray} with the engine {engine} needs the device of the nodes.",
            why="Features of GPUs are others than those of CPUs, and this machine need not have what nodes have.",
            fix="Pass --device cuda, --device cpu, or --engine onnxruntime"
            + (" --force: the run that is taken up began with another." if wish.resume is not None else "."),
        )


def about(catalog: Catalog) -> str:
    """One line on what was found."""
    train, held_out = catalog.on("train"), catalog.on(catalog.held_out_side)
    n_train, n_held_out = len(train), len(held_out)
    parts = [f"{counted(len(catalog.photos), 'photo')} {_what(catalog)}"]
    parts.append(f"{n_train} to learn from, {n_held_out} held out {'by rehead' if catalog.ours else 'as given'}")
    if n := len(catalog.photos) - n_train - n_held_out:
        parts.append(f"{n} of the side valid not used, as there is a test side")
    if catalog.n_unsided:
        parts.append(f"{catalog.n_unsided} without a split count as train")
    if n := len(catalog.skipped):
        parts.append(f"{n} skipped")
    if n := len(catalog.copies):
        parts.append(f"{counted(n, 'copy')} counted once")
    if catalog.skipped and catalog.copies:
        parts[-1] += f" (skipped.csv will list all {len(catalog.skipped) + n})"
    if n := len(catalog.leaks(train, held_out)):
        parts.append(
            "1 held-out photo is also a training photo" if n == 1 else f"{n} held-out photos are also training photos"
        )
    if n := len(catalog.torn_groups):
        parts.append(f"{counted(n, 'group')} on both sides")
    return ", ".join(parts)


def _left_out(catalog: Catalog) -> str:
    """One line on the classes that only held-out photos have."""
    kind = "classes" if catalog.task == "classification" else "labels"
    names = [f"{quoted(name)} ({counted(n, 'photo')})" for name, n in sorted(catalog.strangers.items())]
    alike = _alike(sorted(catalog.strangers), catalog.classes)
    hint = f". Other names are {first_few(alike)}: they count letter by letter" if alike else ""
    return f"Left out, as no training photo has their {kind}: {first_few(names)}{hint}"


def _alike(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Those of the names that differ from one of the classes in case alone, beside it."""
    first: dict[str, str] = {}
    for name in classes:
        first.setdefault(name.casefold(), name)
    pairs = ((name, first.get(name.casefold(), name)) for name in names)
    return [f"{quoted(other)} and {quoted(name)}" for name, other in pairs if name != other]


def _what(catalog: Catalog) -> str:
    if catalog.task == "classification":
        return f"of {counted(len(catalog.classes), 'class')} ({catalog.layout})"
    if catalog.task == "multilabel":
        return f"with {counted(len(catalog.classes), 'label')}, several a photo ({catalog.layout}, multilabel)"
    numbers = catalog.labels()
    return f"with a number from {numbers.min():g} to {numbers.max():g} ({catalog.layout}, regression)"
