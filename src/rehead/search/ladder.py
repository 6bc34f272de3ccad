"""--recipe auto: a ladder of presets, climbed as long as the photos say that it pays and the time given is enough.

The head alone comes first, so that there is always a result: a try that fails costs its time alone. Each further try is
judged on training photos that it did not learn from; it is kept when it is right on more of them than the simpler one before
it by over one standard error, and a try that does not pay is the last. Before a try its time is forecast, and nothing is begun
that would not be finished. What was tried, and why the next was not, stands in the log and in tried.json. Held-out photos have
no say in which model is kept. The photos that judge a try also chose its epoch, which flatters it a little where they are few.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rehead.bundle import Head
from rehead.cutting import kept_bytes, stages_of
from rehead.deeper import FIRST, tune_layers
from rehead.divided import folds_of
from rehead.errors import Defect, Diverged, ReheadError, counted
from rehead.extraction import open_store
from rehead.features.rate import seconds_to_decode
from rehead.fitting import chosen_prefix
from rehead.frozen import tune_head
from rehead.job import Job
from rehead.pixels import prepare
from rehead.runs.contents import TRIES, can_go_on
from rehead.runs.folder import RunFolder
from rehead.runs.record import CURVES, METRICS, RANGE
from rehead.search.heats import rate_of
from rehead.search.tries import FILE, LADDER, QUICK_SHARE, Search, Try
from rehead.solution import Solution
from rehead.tuning.forecast import Forecast, Pace, forecast
from rehead.tuning.head import fit_head
from rehead.tuning.options import option
from rehead.tuning.plan import planned
from rehead.tuning.recipe import AUTO, Recipe, load
from rehead.tuning.sample import SAMPLE, in_each_fold
from rehead.tuning.solve import cross_validated
from rehead.verdict.compare import gain
from rehead.verdict.intervals import Interval, wilson

AROUND_S = 10.0  # kept back for the verdict and the bundle
ENOUGH = 0.98  # right: what is left to gain is less than photos that nobody could name, and labels that are wrong
N_WATCHED = 200  # photos that a try is judged on, if they are at most MOST_WATCHED of the training side
MOST_WATCHED = 0.2
MARGIN = 1.2  # a forecast is believed to be right within so much
FEWEST_EPOCHS = 0.5  # of a preset's: fewer are another recipe
STAYS = (  # of the try that is kept, in its run
    METRICS, CURVES, f"{FIRST}-{METRICS}", f"{FIRST}-{CURVES}", f"{RANGE}.json", f"{RANGE}.svg",
)  # fmt: skip


@dataclass(frozen=True)
class _Held:
    """The try that is kept so far."""

    name: str
    recipe: Recipe
    solution: Solution
    right: dict[int, bool]  # on photos that it did not learn from


def climb(job: Job, search: Search, run: RunFolder) -> tuple[Solution, Recipe]:
    """The solution that is kept, and its recipe."""
    return _Climb(job, search, run).up()


class _Climb:
    """One search under way: what is kept, what was tried, and until when there is time."""

    def __init__(self, job: Job, search: Search, run: RunFolder) -> None:
        self.job, self.search, self.run = job, search, run
        self.ends = time.monotonic() + search.budget_s - job.clock.laps()["total"] - AROUND_S
        self.tries: list[Try] = []
        self.misjudged = 1.0  # how much longer the last try took than was forecast
        self.solve_s = 0.0  # what solving the head alone took

    @property
    def left_s(self) -> float:
        return self.ends - time.monotonic()

    def up(self) -> tuple[Solution, Recipe]:
        """Try after try, until one does not pay or there is no time for the next."""
        self.write()
        kept = self.begin()
        for name in LADDER[1:]:
            if reason := self.enough(kept):
                self.tell(Try(name=name, why=f"Not tried: {reason}."))
                break
            better = self.attempt(name, kept)
            if better is None:
                break
            kept = better
        folder = self.run.path / TRIES / kept.name
        for file in STAYS:
            if (folder / file).is_file():
                self.run.write(file, (folder / file).read_text(encoding="utf-8"))
        self.job.progress.note(
            f"{kept.name} is kept, {self.search.budget_s - AROUND_S - self.left_s:.0f} s of "
            f"{self.search.budget_s:.0f} s are gone"
        )
        return kept.solution, replace(kept.recipe, budget_s=None)

    def begin(self) -> _Held:
        """The head alone."""
        name, begun = LADDER[0], time.monotonic()
        share_s = max(0.001, QUICK_SHARE * (self.left_s + AROUND_S))  # of what a scan, a race, an earlier part left
        recipe = replace(self.search.recipe(name), budget_s=share_s)
        job = self.job.titled(name)
        before = job.clock.laps().get("solve", 0.0)
        solution = tune_head(job, recipe)
        self.solve_s = job.clock.laps().get("solve", 0.0) - before
        is_mlp, in_time = solution.head.kind == "mlp", replace(job, is_late=lambda: self.left_s < 0)
        by_folds = _right_by_folds(in_time, recipe, solution) if is_mlp else None
        seconds = round(time.monotonic() - begun, 1)
        held = _Held(name, recipe, solution, solution.right_apart() if by_folds is None else by_folds)
        how = "set aside" if is_mlp and by_folds is None else f"by {recipe.folds}-fold"
        right = f"{_share(held)} of the training side {how}"
        why = f"Right on {right}, in {seconds:.0f} s. Kept: it is the first."
        self.tell(Try(name=name, seconds=seconds, right=_share(held), kept=True, why=why))
        return held

    def enough(self, kept: _Held) -> str:
        """Why nothing more is to be tried, or an empty string."""
        if self.job.stop():
            return "the job was asked to stop"
        share = _share(kept)
        if share.n and share.value >= ENOUGH:
            return (
                f"{kept.name} is right on {share.value:.1%} of the photos that judge it, and more would not be worth it"
            )
        return ""

    def attempt(self, name: str, kept: _Held) -> _Held | None:
        """The next try, if there is time for it and it pays."""
        begun, job = time.monotonic(), replace(self.job.titled(name), is_late=lambda: self.left_s < 0)
        part = self.run.within(name)
        try:
            recipe, expected_s = self.planned(name, part, kept, job)
            if recipe is None:
                why = f"Not tried: it would take about {expected_s:.0f} s, and {max(0.0, self.left_s):.0f} s are left."
                self.tell(Try(name=name, expected_s=round(expected_s, 1), why=why))
                return None
            about = f"about {expected_s:.0f} s of the {self.left_s:.0f} s that are left" if expected_s else "it goes on"
            self.job.progress.note(f"{name}: {counted(recipe.course.epochs, 'epoch')}, {about}")
            begun = time.monotonic()
            solution = tune_layers(job, recipe, part)
        except (RecursionError, NotImplementedError):  # mistakes of ours
            raise
        except (ReheadError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: PyTorch's, also of memory
            if (reason := _reason(error)) is None:
                raise
            seconds = round(time.monotonic() - begun, 1)
            self.tell(Try(name=name, seconds=seconds, why=f"Failed, so {kept.name} is kept: {reason}"))
            return None
        seconds = time.monotonic() - begun
        if expected_s:
            self.misjudged = max(1.0, seconds / expected_s * MARGIN * self.misjudged)
        tried = _Held(name, recipe, solution, solution.right_apart())
        better, why = _compared(kept, tried)
        cut_short = "" if self.left_s > 0 else ", when the time given was up"
        self.tell(
            Try(
                name=name,
                epochs=recipe.course.epochs,
                expected_s=round(expected_s, 1) or None,
                seconds=round(seconds, 1),
                right=_share(tried),
                kept=better,
                why=f"{why} In {seconds:.0f} s{cut_short}.",
            )
        )
        return tried if better else None

    def planned(self, name: str, part: RunFolder, kept: _Held, job: Job) -> tuple[Recipe | None, float]:
        """The recipe of a try, with as many epochs as there is time for, and the seconds it will take; None when that is
        too few. One that was interrupted goes on as it was planned: 0 s."""
        if can_go_on(part.path):
            return self.going_on(name, load(part.path / "recipe.toml")), 0.0
        recipe = self.search.recipe(name)
        n_train = len(kept.solution.train)
        if "watch" not in self.search.settings:
            recipe = replace(recipe, watch=min(MOST_WATCHED, max(recipe.watch, N_WATCHED / n_train)))
        ahead = _ahead(job, recipe, kept.solution)
        if recipe.warm_head:
            ahead = replace(ahead, once_s=ahead.once_s + self.solve_s)
        factor, epochs = MARGIN * self.misjudged, recipe.course.epochs
        fitting = min(epochs, ahead.epochs_within(self.left_s / factor))
        if fitting < epochs and ("epochs" in self.search.settings or fitting < FEWEST_EPOCHS * epochs):
            return None, factor * ahead.seconds(epochs)
        recipe = replace(recipe, epochs=fitting)
        part.write("recipe.toml", recipe.to_toml())
        return recipe, factor * ahead.seconds(fitting)

    def going_on(self, name: str, recipe: Recipe) -> Recipe:
        """The recipe of a try that goes on; where others of its settings were asked for since, that is told."""
        asked, own = asdict(self.search.recipe(name)), asdict(recipe)
        if kept := [option(setting) for setting in self.search.settings if own[setting] != asked[setting]]:
            self.job.progress.note(f"{name} goes on as it began, without the new {', '.join(kept)}")
        return recipe

    def tell(self, tried: Try) -> None:
        self.tries.append(tried)
        self.job.progress.note(f"{tried.name}: {tried.why}")
        self.write()

    def write(self) -> None:
        self.run.write_json(FILE, self.search.written(self.tries))
        self.run.keep_seconds(self.job.clock.laps())


class _TimeIsUp(Exception):
    pass


def _right_by_folds(job: Job, recipe: Recipe, solution: Solution) -> dict[int, bool] | None:
    """Whether heads like this MLP that did not learn from a fold name its photos right, by their positions; None where time is
    up before, or one of them fails.

    The head itself was kept from a tenth of the photos alone, and the next try sets up to twice as many aside.
    """
    widths = ",".join(str(len(weight)) for weight, _ in solution.head.layers[:-1])
    recipe = replace(recipe, head=f"mlp:{widths}", fit=solution.card.preprocess.fit)  # what --head and --fit auto took
    catalog = solution.catalog
    labels, folds = catalog.labels(solution.train), folds_of(catalog, solution.train, recipe)
    rows = in_each_fold(labels, folds, SAMPLE)
    positions = [solution.train[int(row)] for row in rows]
    job.progress.phase(f"Judging the head by {recipe.folds}-fold")
    with open_store(job.cache, chosen_prefix(job, recipe), recipe) as store:
        features = store.read(catalog.digests(positions))

    def fit(x: Any, y: Any, _: Any) -> Head:
        if job.ends():
            raise _TimeIsUp
        none, device = np.full(len(y), -1, np.int64), job.device(recipe.device)
        return fit_head(x, y, catalog.n_outputs, none, recipe, device, job.progress).head

    try:
        logits = cross_validated(features, labels[rows], catalog.n_outputs, folds[rows], fit)
    except (_TimeIsUp, Diverged):
        return None
    finally:
        job.clock.lap("solve")
    right = logits.argmax(axis=1) == labels[rows]
    return {i: bool(right[place]) for place, i in enumerate(positions) if folds[rows[place]] >= 0}


def _reason(error: Exception) -> str | None:
    """Why a try failed, in a line, also for want of room on a disk; None for our own mistakes."""
    if isinstance(error, ReheadError):
        return None if isinstance(error, Defect) else error.what
    said = str(error).strip().split("\n")[0] or type(error).__name__
    return said if said.endswith(".") else f"{said}."


def _ahead(job: Job, recipe: Recipe, seen: Solution) -> Forecast:
    """What a recipe will take, by what a few photos take now. seen: a try on the same photos."""
    from rehead.nets.backbone import load_backbone
    from rehead.nets.cut import Pooled
    from rehead.tuning.pace import step_seconds

    first, catalog = recipe.first_phase, job.catalog
    once_s = _ahead(job, first, seen).seconds(first.course.epochs) if first else 0.0
    recipe = replace(recipe, fit=seen.card.preprocess.fit) if recipe.fit == AUTO else recipe
    job.progress.phase("Measuring what a photo takes")
    net = load_backbone(recipe.backbone, weights=recipe.weights, arguments=recipe.backbone_args)
    stages = stages_of(net.chain, recipe)
    photos_of = [*seen.train, *seen.held_out]
    plan = planned(recipe, stages, len(photos_of), job.cache, partial(kept_bytes, job, recipe, photos_of))
    size = (3, net.preprocess.height, net.preprocess.width)
    shape = size if plan.cut is None else next(stage.shape for stage in stages if stage.name == plan.cut)
    body = Pooled(net.network) if plan.cut is None else net.suffix(plan.cut)
    prefix = chosen_prefix(job, replace(recipe, cut=None))
    photos = [catalog.photos[i] for i in seen.train]
    pace = Pace(
        network_s=1 / rate_of(catalog, seen.train, prefix, recipe),
        decode_s=seconds_to_decode(lambda i: prepare(catalog.read(photos[i]), net.preprocess), len(photos)),
        step_s=step_seconds(body, shape, recipe.course.batch_size, job.device(recipe.device)),
    )
    job.progress.note(
        f"A photo takes {1000 * pace.network_s:.0f} ms on the engine, {1000 * pace.step_s:.0f} ms in a step of training"
    )
    job.clock.lap("measure")
    later = forecast(recipe, stages, plan, pace, len(seen.train), len(seen.held_out))
    return replace(later, once_s=once_s + later.once_s)


def _share(held: _Held) -> Interval:
    return wilson(sum(held.right.values()), len(held.right))


def _compared(kept: _Held, tried: _Held) -> tuple[bool, str]:
    """Whether a try takes the place of the one that is kept, and why, on the photos that judge both."""
    shared = sorted(kept.right.keys() & tried.right.keys())
    one, other = (np.array([held.right[i] for i in shared], bool) for held in (tried, kept))
    found = gain(one, other)
    shares = f"{one.mean():.1%} against {other.mean():.1%} of {kept.name}" if shared else "nothing to compare"
    is_told = math.isfinite(found.error)
    points = f"{100 * found.value:+.1f} points, give or take {100 * found.error:.1f}" if is_told else "too few to tell"
    verdict = "Kept." if found.is_clear else f"Not clearly better, so {kept.name}, the simpler, is kept."
    return found.is_clear, f"Right on {shares}, on {counted(len(shared), 'watched photo')} ({points}). {verdict}"
