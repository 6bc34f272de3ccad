"""The whole job in one function, read like the paper: scan, split, extract, tune, verify, export."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rehead import bundle as bundles
from rehead.data.catalog import Catalog, scan, write_csv
from rehead.data.sources import open_source
from rehead.deeper import tune_layers
from rehead.earlier import read_earlier
from rehead.errors import RecipeError, RunError, SourceError
from rehead.export import compare, with_head
from rehead.extraction import job_order, sample_pixels
from rehead.features.cache import check_writable, default_cache_folder
from rehead.features.extract import too_many_bad
from rehead.frozen import tune_head
from rehead.heats import those_here
from rehead.ladder import climb
from rehead.progress import Clock, Progress, Silent
from rehead.resume import Asked, check_photos, taken_up
from rehead.run_folder import Log, RunFolder
from rehead.search import with_best_backbone
from rehead.solution import Solution
from rehead.tries import FILE as TRIED
from rehead.tries import LADDER, Search
from rehead.tuning.recipe import AUTO, Recipe
from rehead.tuning.tasks import check_task
from rehead.tuning.trackers import chosen_trackers
from rehead.verdict.judging import AnyVerdict, judge_task
from rehead.verdict.model_card import model_card

N_COMPARED = 32  # held-out photos on which the bundle is compared with the model


@dataclass(frozen=True)
class Tuned:
    """What a job gave. seconds: by phase, and "total". images: used, skipped and from_store, counts of photos."""

    run: Path
    bundle: Path
    verdict: AnyVerdict
    recipe: Recipe
    classes: tuple[str, ...]
    head_note: str
    seconds: dict[str, float]
    images: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "seconds": self.seconds,
            "images": self.images,
            "verdict": self.verdict.to_dict(),
        }


def tune(
    source: object = None,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    layout: str = "auto",
    valid: object | None = None,
    test: object | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    recipe: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    track: Sequence[str] = (),
    from_run: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Tuned:
    """A verified model from labelled photos.

    source: a folder, manifest or archive; (paths, labels); a table; a sequence of (image, label); a Hugging Face data
        set. layout, valid, test: see `rehead.data.sources.open_source`.
    out: the run's folder, by default runs/<photos>-<backbone>-<n>; force replaces a run that is there.
    cache: where features are kept, by default REHEAD_CACHE or the user's cache folder.
    stop: asked during extraction; once true the job is finished with the photos that are there.
    recipe: a preset, "quick", "balanced" or "thorough", whose settings others go before; or "auto": the one of them that
        pays, within budget_s for the whole job.
    resume: the folder of a run that was interrupted: it goes on from its last checkpoint, with its own recipe and, where
        source is None, its own photos. Raises RunError when photos or settings differ, unless force.
    track: "tensorboard", "mlflow": told of each epoch while layers train.
    from_run: the folder of an earlier run, or its bundle: its photos and classes are learned again together with those of
        source, from the features that are kept, by its recipe where no setting is given.
    settings: the fields of `Recipe`, such as backbone="efficientnet_lite0", head="linear", seed=0.
    Raises the errors of `rehead.errors`; nothing that was computed is lost.
    """
    if source is None and resume is None:
        raise SourceError(what="No photos are named.", fix="Name a folder of labelled photos: rehead tune photos/")
    track = chosen_trackers(track)
    if resume is not None and from_run is not None:
        raise RunError(
            what="--from begins a new run, and --resume goes on with one.",
            fix="Leave one of them out; a run that is taken up knows the run it came from.",
        )
    if recipe == AUTO and from_run is not None:
        raise RecipeError(
            what="--recipe auto tries one recipe after another, and --from takes the earlier run's.",
            fix="Leave one of them out, or name --recipe quick, balanced or thorough.",
        )
    place = Path(cache).expanduser() if cache is not None else default_cache_folder(os.environ)
    check_writable(place)
    progress, clock = Log(progress or Silent()), Clock()
    with RunFolder(out, force=force, resume=resume) as run:
        earlier = read_earlier(from_run, place) if from_run is not None else None
        if resume is None:
            search = Search.of(settings) if recipe == AUTO else None
            if search is not None:
                chosen = search.recipe(LADDER[0])
            else:
                chosen = earlier.recipe_with(recipe, settings) if earlier else Recipe.from_preset(recipe, settings)
            asked = Asked.of(source, layout, valid, test, earlier.run if earlier else None)
        else:
            chosen, asked = taken_up(run.path, source, recipe, settings, force=force)
            search = Search.of_run(run.path)
            earlier = read_earlier(asked.from_run, place) if asked.from_run is not None else None
        if track and chosen.train == "head":
            raise RecipeError(
                what=f"--track {' '.join(track)} has nothing to follow: a head alone is solved, not trained in epochs.",
                fix="Leave it out, or train layers too: --train last:2.",
            )
        given = asked if source is None else Asked(source, layout, valid, test)
        opened = open_source(
            given.source, layout=given.layout, valid=given.valid, test=given.test, cache=place, task=chosen.task,
            progress=progress,
        )  # fmt: skip
        run.create(opened.name, chosen.backbone)
        progress.begin(run.path)
        run.write("recipe.toml", chosen.to_toml())
        run.write_json("photos.json", replace(asked, root=str(opened.root) if opened.root else None).to_dict())
        if search is not None:
            run.write_json(TRIED, search.written(()))
        catalog = scan(
            opened,
            seed=earlier.recipe.seed if earlier else chosen.seed,
            valid_fraction=chosen.valid_fraction,
            task=chosen.task,
            progress=progress,
            cache=place,
            join=partial(earlier.joined, progress=progress) if earlier else None,
        )
        if len(opened.skipped) > chosen.max_bad * len(opened.rows):
            raise too_many_bad(opened.skipped, len(opened.rows), chosen.max_bad)
        if resume is not None and not force:
            check_photos(run.path, catalog)
        write_csv(catalog, run.path / "catalog.csv")
        progress.note(_about(catalog))
        check_task(chosen, catalog.task, searches=search is not None)
        clock.lap("scan")

        if chosen.backbone == AUTO:
            chosen = with_best_backbone(catalog, those_here(place), chosen, place, progress, stop, run)
            run.write("recipe.toml", chosen.to_toml())
            clock.lap("race")
        if search is not None:
            solution, chosen = climb(catalog, search.on(chosen), place, progress, clock, stop, run)
            run.write("recipe.toml", chosen.to_toml())
        elif chosen.train == "head":
            solution = tune_head(catalog, chosen, place, progress, clock, stop)
        else:
            solution = tune_layers(catalog, chosen, place, progress, clock, stop, run, track)
        train, held_out = solution.train, solution.held_out
        targets = catalog.labels(train)
        verdict = judge_task(
            catalog.task,
            solution.logits,
            catalog.labels(held_out),
            classes=catalog.classes,
            thresholds=solution.thresholds,
            median=float(np.median(targets)),
            paths=[catalog.photos[i].path for i in held_out],
            side=catalog.held_out_side,
            n_train=len(train),
            partial=len(train) + len(held_out) + len(solution.bad)
            < len(job_order(catalog, replace(chosen, limit=None))),
            leaks=catalog.leaks,
            notes=_notes(catalog, held_out),
        )
        progress.status(verdict.headline)
        clock.lap("verify")

        progress.phase("Writing the bundle")
        skipped = [*catalog.skipped, *solution.bad.values()]
        facts = _facts(catalog, solution, chosen, verdict)
        counts = {"train": len(train), "held_out": len(held_out), "skipped": len(skipped)}
        card = model_card(facts, solution.note, run.path.name.strip("."), counts)
        model = with_head(solution.body, solution.head, catalog.task)
        written = bundles.write(run.path / "bundle", model=model, head=solution.head, card=card, facts=facts)
        pixels = sample_pixels(catalog, [*held_out, *train], solution.card, N_COMPARED)
        compare(written, pixels, solution.features(pixels), solution.head, spread=float(targets.std()))
        clock.lap("export")

        images = {"used": len(train) + len(held_out), "skipped": len(skipped), "from_store": solution.n_stored}
        seconds = clock.laps()
        run.write("skipped.csv", _table(["path", "reason"], [(s.path, s.reason) for s in (*skipped, *catalog.copies)]))
        run.write_json("run.json", {"seconds": seconds, "images": images, "head": solution.note})
        run.write_json("verdict.json", verdict.to_dict())
        path = run.finish()
    return Tuned(path, path / "bundle", verdict, chosen, catalog.classes, solution.note, seconds, images)


def _about(catalog: Catalog) -> str:
    """One line on what was found."""
    n_train, n_held_out = len(catalog.on("train")), len(catalog.on(catalog.held_out_side))
    parts = [f"{len(catalog.photos)} photos {_what(catalog)}"]
    parts.append(f"{n_train} to learn from, {n_held_out} held out ({'ours' if catalog.ours else 'as given'})")
    for number, what in ((len(catalog.skipped), "skipped"), (len(catalog.copies), "copies counted once")):
        if number:
            parts.append(f"{number} {what}")
    if catalog.leaks:
        parts.append(f"{len(catalog.leaks)} held-out photos are also training photos")
    return ", ".join(parts)


def _what(catalog: Catalog) -> str:
    if catalog.task == "classification":
        return f"of {len(catalog.classes)} classes ({catalog.layout})"
    if catalog.task == "multilabel":
        return f"with {len(catalog.classes)} labels, several a photo ({catalog.layout}, multilabel)"
    numbers = catalog.labels()
    return f"with a number from {numbers.min():g} to {numbers.max():g} ({catalog.layout}, regression)"


def _notes(catalog: Catalog, held_out: list[int]) -> tuple[str, ...]:
    notes = []
    if catalog.leaks:
        notes.append(f"{len(catalog.leaks)} of the held-out photos are byte for byte in the training side too.")
    shown = {name for i in held_out for name in catalog.names(catalog.photos[i])}
    if lacking := [label for label in catalog.classes if label not in shown]:
        notes.append(f"No held-out photo shows {', '.join(lacking)}.")
    return tuple(notes)


def _facts(catalog: Catalog, solution: Solution, recipe: Recipe, verdict: AnyVerdict) -> dict[str, Any]:
    """What the bundle says of itself in `rehead.json`."""
    about = {
        name: value for name, value in asdict(solution.card).items() if name not in ("preprocess", "pooled", "shape")
    }
    about |= {"width": solution.head.width, "learned": list(solution.learned)}
    return {
        "task": catalog.task,
        "classes": list(catalog.classes),
        "thresholds": list(solution.thresholds),
        "preprocess": solution.card.preprocess.to_dict(),
        "backbone": about,
        "recipe": {name: value for name, value in asdict(recipe).items() if value is not None},
        "verdict": verdict.to_dict(),
        "versions": versions(),
    }


def versions() -> Mapping[str, str]:
    """The versions of this program and of the libraries that decide its results."""
    return {name: metadata.version(name) for name in ("rehead", "numpy", "onnxruntime", "pillow", "timm", "torch")}


def _table(header: list[str], rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
