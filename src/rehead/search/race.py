"""Which backbone suits these photos: scan, race, recommend, and write the result down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rehead.ambient import own_settings
from rehead.auditing.ties import tied
from rehead.data.room import check_writable
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.divided import job_order
from rehead.errors import RecipeError, counted, nearest
from rehead.features.bad import BAD_LIST, check_bad, listed
from rehead.features.cache import cache_folder
from rehead.features.engines import check_engine
from rehead.job import Job
from rehead.nets.card import PACKAGES
from rehead.progress import Progress, Silent
from rehead.runs.folder import RunFolder
from rehead.runs.log import Log
from rehead.search.heats import Race, entrants_of, race_on, those_here
from rehead.tuning.recipe import Recipe
from rehead.tuning.tasks import WORDS

LIMIT = 500  # photos by default: one standard error of a difference is then about a point
NOT_RACED = ("backbone", "weights", "backbone_args", "train", "cut", "head")  # settings with no say in a race


@own_settings()
def race(
    source: object,
    *,
    backbones: Sequence[str] | None = None,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    layout: str = "auto",
    valid: object | None = None,
    test: object | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Race:
    """Backbones compared on the same photos, and which to take.

    source, layout, valid, test, cache, stop: as in `rehead.tune`. backbones: names, or "name=file" for weights of your own;
    by default all whose weights are here. arguments: by name, what `backbone_args` is in a recipe.
    out: the folder of the result, by default runs/<photos>-race-<n>; force replaces a race that is there.
    settings: fields of `Recipe`: limit (500 by default), budget_s (of the whole race), task, folds, seed, engine, ...
    Raises BackboneError when none of them can run, RecipeError for labels that are no classes, EngineError for an engine that
    is not here.
    """
    if unused := [name for name in NOT_RACED if name in settings]:
        raise RecipeError(what=f"A race has no setting {unused[0]!r}.", fix="Name backbones as backbones=[...].")
    recipe = Recipe.from_dict({"limit": LIMIT, **settings})
    check_engine(*recipe.extracts_by)
    place = cache_folder(cache)
    check_writable(place)
    entrants = entrants_of(backbones) if backbones else those_here(place)
    if any(entrant.name not in PACKAGES for entrant in entrants):
        from rehead.nets.making import check_name

        for entrant in entrants:
            check_name(entrant.name)
    _check_arguments(arguments or {}, [entrant.name for entrant in entrants])
    log = Log(progress or Silent())
    with RunFolder(out, force=force, races=True) as run, listed(place / BAD_LIST):
        opened = open_source(
            source,
            layout=layout,
            valid=valid,
            test=test,
            cache=place,
            task=recipe.task,
            max_bad=recipe.max_bad,
            progress=log,
        )
        run.create(opened.name, "race")
        log.begin(run.path)
        catalog = scan(
            opened,
            seed=recipe.seed,
            valid_fraction=recipe.valid_fraction,
            task=recipe.task,
            progress=log,
            check=lambda found: check_bad(found.bad, found.n_rows, recipe.max_bad),
        )
        if catalog.task != "classification":
            raise RecipeError(
                what=f"A race is for classes, and what is learned here is {WORDS[catalog.task]}.",
                fix="Name a backbone instead: rehead tune --backbone resnet18. If the labels are classes, say so with "
                "--task classification",
            )
        order = job_order(catalog, recipe)
        job = Job(catalog, place, log, stop=stop)
        if recipe.tie_copies:
            job = tied(job, order)
        log.note(f"{counted(len(entrants), 'backbone')} on {len(order)} of {len(catalog.photos)} photos")
        raced = race_on(job, order, entrants, recipe, arguments)
        log.phase("Writing the result")
        run.write_json("race.json", raced.to_dict())
        run.write("race.svg", raced.to_svg())
        log.note(raced.recommendation)
        return replace(raced, run=run.finish())


def _check_arguments(arguments: Mapping[str, Any], racing: Sequence[str]) -> None:
    """Raises RecipeError for arguments of a backbone that does not race."""
    for name in arguments:
        if name not in racing:
            raise RecipeError(
                what=f"--backbone-arg {name}:... is of a backbone that does not race.",
                why=f"These do: {', '.join(dict.fromkeys(racing))}.",
                fix=nearest(name, racing) or "Name it in --backbones too, or leave its arguments out.",
            )
