"""What is left to the photos to decide before a job can begin: with --backbone auto, the backbone.

Only the training side has a say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rehead.auditing.ties import tied
from rehead.divided import job_order
from rehead.errors import counted
from rehead.job import Job
from rehead.runs.folder import RunFolder
from rehead.search.heats import Entrant, race_on
from rehead.tuning.recipe import Recipe

N_RACED = 500  # photos of the training side, where that is PER_CLASS of each class
PER_CLASS = 4
RACE_SHARE = 1 / 3  # of the time for extraction that a race may take, where that is limited


def with_best_backbone(job: Job, entrants: Sequence[Entrant], recipe: Recipe, run: RunFolder) -> Recipe:
    """The recipe with the one of the entrants that a race on the training side recommends.

    The race is written into the run; what it took of the time for extraction is no longer in the recipe.
    """
    catalog, progress = job.catalog, job.progress
    if len(entrants) == 1:
        progress.note(f"{entrants[0].name} is the only backbone whose weights are here.")
        return replace(recipe, backbone=entrants[0].name, weights=entrants[0].weights)
    n_raced = max(N_RACED, PER_CLASS * len(catalog.classes))
    order = job_order(catalog, recipe)
    if recipe.tie_copies:
        job = tied(job, order)
    train = job.catalog.among(order, "train")[:n_raced]
    progress.note(f"Racing {len(entrants)} backbones on {counted(len(train), 'photo')} of the training side")
    share = None if recipe.budget_s is None else RACE_SHARE * recipe.budget_s
    raced = race_on(job, train, entrants, replace(recipe, budget_s=share))
    run.write_json("race.json", raced.to_dict())
    run.write("race.svg", raced.to_svg())
    progress.note(raced.recommendation)
    left = None if recipe.budget_s is None else max(0.001, recipe.budget_s - raced.seconds)
    return replace(recipe, backbone=raced.best.backbone, weights=raced.best.weights, budget_s=left)
