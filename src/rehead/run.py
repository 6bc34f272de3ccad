"""The whole job in one function, read like the paper: scan, split, extract, tune, verify, export."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rehead import bundle as bundles
from rehead.ambient import own_settings
from rehead.begin import Wish, begun
from rehead.bundled import with_bundle
from rehead.data.catalog import Catalog, as_csv
from rehead.data.columns import Chosen
from rehead.data.room import check_writable
from rehead.errors import ClusterError, MissingExtra, ReheadError, SourceError, command, counted, missing_extras
from rehead.exporting.agreement import compare
from rehead.exporting.graph import with_head
from rehead.features.bad import BAD_LIST, bad_table, listed
from rehead.features.samples import sample_pixels
from rehead.features.shared import Shared
from rehead.frozen import tune_head
from rehead.heap import hand_back
from rehead.job import Job, Machines
from rehead.progress import Clock, Progress, Silent
from rehead.reporting.sheet import sheet
from rehead.runs.about import facts_of, versions
from rehead.runs.contents import COPIES, can_go_on
from rehead.runs.folder import RunFolder
from rehead.runs.learned import notes_on_layers
from rehead.runs.log import Log
from rehead.runs.outputs import write_outputs
from rehead.runs.place import cache_of, told_of
from rehead.sharing import share_catalog
from rehead.solution import Solution
from rehead.tuning.recipe import AUTO, Recipe
from rehead.tuning.trackers import chosen_trackers
from rehead.verdict.judging import AnyVerdict, judge_task, set_beside
from rehead.verdict.metrics import DRAWN, Verdict
from rehead.verdict.model_card import model_card
from rehead.verdict.notes import notes_on, notes_on_gain
from rehead.verdict.trust import Trust, chosen_trust, notes_on_trust

N_COMPARED = 8  # held-out photos on which the bundle is compared with the model: each runs twice, 0.01 s a time


@dataclass(frozen=True, repr=False)
class Tuned:
    """What a job gave. seconds: by phase, and "total". images: used, skipped and from_store, counts of photos.

    report: the page about it, None where there is none. concerns: what it says is to be looked at, as sentences. defect: what
    a report failed with that should not, a mistake of ours; the run is whole. int8_cosine: see `Solution`.
    """

    run: Path
    bundle: Path
    verdict: AnyVerdict
    recipe: Recipe
    classes: tuple[str, ...]
    head_note: str
    seconds: dict[str, float]
    images: dict[str, int]
    report: Path | None = None
    concerns: tuple[str, ...] = ()
    defect: Exception | None = None
    int8_cosine: float | None = None

    def __repr__(self) -> str:
        return f"<rehead.Tuned: {self.verdict.headline}; {self.bundle}>"

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "recipe": asdict(self.recipe),
            "head": self.head_note,
            "int8_cosine": self.int8_cosine,
            "seconds": self.seconds,
            "images": self.images,
            "report": None if self.report is None else str(self.report),
            "concerns": list(self.concerns),
            "verdict": self.verdict.to_dict(),
        }


@own_settings()
def tune(
    source: object = None,
    labels: object = None,
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
    report: bool | None = None,
    with_neighbours: bool | None = None,
    ray: str | None = None,
    features: str | None = None,
    **settings: Any,
) -> Tuned:
    """A verified model from labelled photos.

    source: a folder, manifest or archive; a table; a sequence of (image, label); a Hugging Face data set; a list of paths,
        with labels one for each. layout, valid, test: see `rehead.data.sources.open_source`.
    out: the run's folder, by default runs/<photos>-<backbone>-<n>; force replaces a run that is there.
    cache: where features are kept, by default REHEAD_CACHE or the user's cache folder.
    progress: told what the job does, such as `rehead.Lines()`, which says it on standard error; by default nobody is.
    stop: asked during extraction; once true the job is finished with the photos that are there.
    recipe: a preset, "quick", "balanced" or "thorough", whose settings others go before; or "auto": the one of them that
        pays, within budget_s for the whole job.
    resume: the folder of a run that was interrupted: it goes on from its last checkpoint, with its own recipe and, where
        source is None, its own photos. Raises RunError when photos or settings differ, unless force.
    track: "tensorboard", "mlflow": told of each epoch while layers train.
    from_run: the folder of an earlier run, or its bundle: its photos and classes are learned again together with those of
        source, from the features that are kept, by its recipe where no setting is given. A bundle that was carried away from
        its run is the backbone instead, as it is with backbone="path/to/bundle": then no PyTorch is needed.
    report: whether the photos are audited and a page about the run is written, report.html, when it is finished; by default
        it is. with_neighbours: whether the bundle shows small pictures of photos learned from, as those most like a new one; by
        default it does not. A run that is taken up does what it was asked for at first.
    ray: a Ray cluster whose machines run the frozen network and train layers: "local", "auto",
        "ray://host:10001", "host:6379", see `rehead.cluster.connection`. What they give is kept here, where heads are solved.
    features: a folder, or the address of one in a bucket, of features that machines share: what is there is not computed again,
        and what is new is added.
    settings: the fields of `Recipe`, such as backbone="efficientnet_lite0", head="linear", seed=0.
    Raises the errors of `rehead.errors`; nothing that was computed is lost.
    """
    settings, from_run = with_bundle(settings, from_run)
    if features is None and resume is not None:
        features = told_of(resume, "features")
    if ray is not None and resume is None and from_run is None and settings.get("device", "auto") in ("auto", "cpu"):
        settings = {"engine": "onnxruntime", **settings}  # the store is then that of CPUs, wherever layers learn
    wish = Wish(source if labels is None else (source, labels), layout, valid, test, preset=recipe, resume=resume,
                from_run=from_run, track=track, settings=settings, force=force, ray=ray, report=report,
                with_neighbours=with_neighbours, features=features)  # fmt: skip
    place = cache_of(resume if resume is not None else from_run, cache)
    check_writable(place)
    progress, clock = Log(progress or Silent()), Clock()
    folder = RunFolder(out, force=force, resume=resume)
    shared = Shared(features) if features is not None else None
    going_on = _how_to_go_on(folder, progress, is_resumed=resume is not None)
    with _machines(ray, progress) as machines, folder as run, going_on, listed(place / BAD_LIST):
        if machines is not None:
            clock.lap("connect")
        catalog, chosen, search, asked = begun(wish, run, place, progress, clock, machines)
        job = Job(catalog, place, progress, clock, stop, machines=machines, shared=shared, looks=asked.report)

        if chosen.backbone == AUTO:
            from rehead.search.backbone import with_best_backbone
            from rehead.search.heats import those_here

            settled = {"backbone": AUTO, "budget_s": chosen.budget_s}
            chosen = with_best_backbone(job, those_here(place), chosen, run)
            run.write("recipe.toml", chosen.to_toml())
            run.write_json("photos.json", replace(asked, settled=settled).to_dict())
            clock.lap("race")
        if search is not None:
            from rehead.search.ladder import climb

            solution, chosen = climb(job, search.on(chosen), run)
            run.write("recipe.toml", chosen.to_toml())
        elif chosen.train == "head":
            solution = tune_head(job, chosen)
        else:
            from rehead.deeper import tune_layers

            solution = tune_layers(job, chosen, run, chosen_trackers(track))
        catalog, train, held_out = solution.catalog, solution.train, solution.held_out
        targets, shown = catalog.labels(train), catalog.labels(held_out)
        trust, leaks = _trust(catalog, solution, chosen), catalog.leaks(train, held_out)
        logits = solution.logits / np.float32(trust.temperature)
        alone = None if solution.alone is None else set_beside(catalog.task, solution.alone, logits, shown)
        verdict = judge_task(
            catalog.task,
            logits,
            shown,
            classes=catalog.classes,
            thresholds=solution.thresholds,
            median=float(np.median(targets)),
            paths=Chosen(catalog.columns.paths, held_out),
            side=DRAWN if catalog.ours else catalog.held_out_side,
            n_train=len(train) - solution.n_watched,
            partial=len(train) + len(held_out) + len(solution.bad) < len(catalog.on("train", catalog.held_out_side)),
            leaks=leaks,
            alone=alone,
            notes=(
                *notes_on(catalog, held_out, logits, leaks),
                *notes_on_trust(catalog.task, solution.apart),
                *notes_on_gain(alone),
                *notes_on_layers(solution, chosen.weights_file, is_calibrated=trust.n > 0),
            ),
        )
        if isinstance(verdict, Verdict):
            verdict = trust.on(verdict, solution.logits, shown, solution.is_far)
        progress.status(verdict.headline)
        clock.lap("verify")

        progress.phase("Writing the bundle")
        skipped = [*catalog.skipped, *solution.bad.values()]
        facts = facts_of(catalog, solution, chosen, verdict) | trust.facts(solution.familiar)
        counts = {
            "train": len(train), "held_out": len(held_out), "skipped": len(skipped), "unreadable": len(solution.bad)
        }  # fmt: skip
        pictures = _pictures(solution, progress) if asked.with_neighbours else None
        shown_here = 0 if pictures is None else len(pictures[0]["labels"])
        card = model_card(facts, solution.note, run.name, counts, n_shown=shown_here)
        model = with_head(
            solution.body, solution.head, catalog.task, temperature=trust.temperature, familiar=solution.familiar
        )
        run.check_room(len(model) + (0 if pictures is None else len(pictures[1])), "the bundle")
        written = bundles.write(
            run.path / "bundle", model=model, head=solution.head, card=card, facts=facts, pictures=pictures
        )
        del model  # as large as the network
        hand_back()
        pixels = sample_pixels(catalog, itertools.chain(held_out, train), solution.card, N_COMPARED)
        compare(written, pixels, solution.features(pixels), solution.head, spread=float(targets.std()))
        clock.lap("export")

        images = {"used": len(train) + len(held_out), "skipped": len(skipped), "from_store": solution.n_stored}
        seconds = clock.laps()
        run.write("skipped.csv", bad_table([*skipped, *catalog.copies]))
        run.write_json(
            "run.json",
            {
                "seconds": seconds,
                "images": images,
                "head": solution.note,
                "penalty": solution.penalty,
                "int8_cosine": solution.int8_cosine,
                "machines": None if machines is None else machines.about,
                "versions": versions(),
            },
        )
        write_outputs(run.path, solution)
        run.write("catalog.csv", as_csv(catalog.photos))
        run.write(COPIES, as_csv(photo for group in catalog.same for photo in group))
        run.write_json("verdict.json", verdict.to_dict())  # last: it says that the run is whole
        share_catalog(job, catalog)
        path = run.finish()
        progress.begin(path)  # where its log went with it
        tuned = Tuned(path, path / "bundle", verdict, chosen, catalog.classes, solution.note, seconds, images,
                      int8_cosine=solution.int8_cosine)  # fmt: skip
        unread = replace(catalog, bad=(*catalog.bad, *solution.bad.values()))
        return _reported(tuned, unread, place, progress, clock) if asked.report else tuned


@contextlib.contextmanager
def _machines(ray: str | None, progress: Progress) -> Iterator[Machines | None]:
    """The machines of a Ray cluster, None where none was asked for."""
    if ray is None:
        yield None
        return
    from rehead.cluster.computing import Ray
    from rehead.cluster.connection import connected

    progress.phase("Connecting to Ray")
    with connected(ray) as cluster:
        progress.note(f"Ray: {cluster.about}")
        yield Ray(cluster, progress.note)


@contextlib.contextmanager
def _how_to_go_on(run: RunFolder, progress: Progress, *, is_resumed: bool) -> Iterator[None]:
    """Says so where a training that has a checkpoint is aborted, a photo is gone, or a cluster has no room for it; for want of
    photos one that was resumed would end so again."""
    try:
        yield
    except (KeyboardInterrupt, SourceError, ClusterError) as error:
        if can_go_on(run.path) and not (is_resumed and isinstance(error, SourceError)):
            progress.note(f"The last checkpoint is kept. Go on from it: {command('tune', '--resume', run.path)}")
        raise


def _pictures(solution: Solution, progress: Progress) -> tuple[dict[str, Any], bytes] | None:
    """The sheet of the photos that the model knows, None where they are too few for that to be known."""
    if not solution.bank:
        progress.note("The bundle shows no neighbours: there are too few photos to say what is familiar.")
        return None
    progress.phase("Making small pictures", len(solution.bank))
    about, data, n_gone = sheet(solution.catalog, solution.bank, progress.advance)
    gone = f"; {counted(n_gone, 'photo')} of them cannot be read any more, grey tiles stand for them" if n_gone else ""
    progress.note(
        f"The bundle shows {counted(len(solution.bank), 'photo')} learned from ({len(data) / 1e6:.1f} MB){gone}. "
        "Whoever gets it sees them."
    )
    return about, data


def _reported(tuned: Tuned, catalog: Catalog, cache: Path, progress: Progress, clock: Clock) -> Tuned:
    """The same with its report. The run is finished already: what goes wrong here costs the report alone."""
    again = command("report", tuned.run)
    try:
        with missing_extras():
            from rehead.reporting.job import report as write_report

            reported = write_report(tuned.run, catalog=catalog, cache=cache, progress=progress)
    except (ReheadError, OSError) as error:
        why = error.what if isinstance(error, ReheadError) else f"{error.strerror or error}."
        fix = f" {error.fix}." if isinstance(error, MissingExtra) else ""
        progress.note(f"No report was written: {why}{fix} `{again}` writes it later.")
        return tuned
    except KeyboardInterrupt:  # of the report alone: the model is finished
        progress.note(f"The report was left out. `{again}` writes it later.")
        return tuned
    except Exception as error:  # what nobody thought of
        why = f"{type(error).__name__}: {error}"
        progress.note(f"No report was written: {why}. The run is whole; `{again}` tries again.")
        return replace(tuned, defect=error)
    clock.lap("report")
    return replace(
        tuned, verdict=reported.verdict, report=reported.path, concerns=reported.concerns, seconds=clock.laps()
    )


def _trust(catalog: Catalog, solution: Solution, recipe: Recipe) -> Trust:
    """What the photos that were not learned from say of the model; of labels and numbers it is not asked."""
    if catalog.task != "classification" or solution.apart is None:
        return Trust()
    positions, logits = solution.apart
    return chosen_trust(logits, catalog.labels(positions), recipe.precision)
