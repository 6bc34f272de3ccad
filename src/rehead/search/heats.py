"""The race itself: each backbone's features of the same photos, its rate, and a linear head on them. No folder, no scan.

What was extracted stays in the store, so that tuning with the winner begins with it. A backbone that cannot be had is an
entry with its reason, not the end of the race. The recommendation rests on k-fold over the training side; the held-out
side, where it is among the photos, is shown beside it and decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.rows import first_few, quoted
from rehead.divided import folds_of, in_store
from rehead.errors import BackboneError, EngineError, RunError, counted
from rehead.extraction import extract_missing, open_store
from rehead.features.compared import open_engine
from rehead.features.engines import Prefix, resolve
from rehead.features.rate import photos_per_second
from rehead.features.room import on_disk
from rehead.features.samples import sample_pixels
from rehead.fitting import chosen_prefix
from rehead.job import Job
from rehead.nets.card import Card
from rehead.pixels import prepare
from rehead.progress import Progress
from rehead.tuning.head import fit_head, logits_by_folds
from rehead.tuning.recipe import Recipe
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.ranking import Rival, recommended
from rehead.verdict.scatter import Point, scatter_svg

N_TIMED = 64  # photos that are decoded again and again for a backbone's rate
MIN_SHARE = 0.5  # of the photos that another has: with fewer when time is up a backbone is left out, or all lose photos


@dataclass(frozen=True)
class Entrant:
    """A backbone that was asked for. weights: a local file, or None for its own. label: what tells it from the others."""

    name: str
    weights: str | None
    label: str


def entrants_of(texts: Sequence[str]) -> list[Entrant]:
    """From "resnet18" or "resnet18=weights.pth"; the file is part of the label where a name comes more than once, by its
    path where its name does too."""
    pairs = list(dict.fromkeys(text.strip().partition("=")[::2] for text in texts))
    ways = [
        (name, f"{name}={Path(weights).name}", f"{name}={weights}") if weights else (name,) * 3
        for name, weights in pairs
    ]
    alike = [Counter(way) for way in zip(*ways, strict=True)]
    labels = [next(label for label, n in zip(own, alike, strict=True) if n[label] == 1) for own in ways]
    return [Entrant(name, weights or None, label) for (name, weights), label in zip(pairs, labels, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a backbone did, or in `reason` why it did not run.

    by_folds: right by k-fold on the training side. images_per_s: decoding included, all cores at work. network_bytes: of
    the graph without a head. feature_bytes: of what is kept on the disk for 1,000 photos. n_photos: that have features.
    """

    label: str
    backbone: str
    weights: str | None
    by_folds: Interval | None = None
    held_out: Interval | None = None
    images_per_s: float | None = None
    network_bytes: int | None = None
    feature_bytes: int | None = None
    n_photos: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Race:
    """entries: in the order they were asked for. winner: the place of the recommended one. recommendation: a sentence.

    n_train, n_held_out: photos that all were compared on. run: the folder with race.json and race.svg, if there is one.
    """

    entries: tuple[Entry, ...]
    winner: int
    recommendation: str
    n_train: int
    n_held_out: int
    folds: int
    seconds: float
    run: Path | None = None

    @property
    def best(self) -> Entry:
        return self.entries[self.winner]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {**asdict(self), "run": None if self.run is None else str(self.run), "winner": self.best.label}

    def to_svg(self) -> str:
        """Accuracy by k-fold against images a second."""
        points = [
            Point(entry.label, entry.images_per_s, entry.by_folds, entry is self.best)
            for entry in self.entries
            if entry.by_folds is not None and entry.images_per_s is not None
        ]
        return scatter_svg(points, f"{self.folds}-fold on {self.n_train} training photos; bars are 95 % intervals")


def those_here(cache: Path) -> list[Entrant]:
    """The backbones whose weights are on this machine. Raises BackboneError when there are none."""
    from rehead.nets.listing import list_backbones

    found = entrants_of([row.name for row in list_backbones(None, cache)[0]])
    if not found:
        raise BackboneError(
            what="No backbone's weights are here.", fix="Name some: --backbones resnet18=weights.pth,resnet50"
        )
    return found


@dataclass(frozen=True)
class _Runner:
    """An entrant that can run: by this recipe, with this card. there: the photos whose features are in the store."""

    entrant: Entrant
    recipe: Recipe
    card: Card
    entry: Entry
    there: frozenset[int] = frozenset()


def race_on(
    job: Job,
    order: Sequence[int],
    entrants: Sequence[Entrant],
    recipe: Recipe,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
) -> Race:
    """The race on the photos of `order`, positions in the catalog. recipe.budget_s: for all of it.

    The cheapest runs first, so that what it leaves of its share of the time goes to those that need more. All are
    compared on the photos that each of them has. Raises RunError before anything is extracted where they cannot be compared.
    """
    _check_enough(job.catalog, order, recipe, "Raise --limit, or use more photos of each class.")
    begun = time.monotonic()
    ends = begun + recipe.budget_s if recipe.budget_s is not None else None
    entries: dict[Entrant, Entry] = {}
    runners = []
    for entrant in entrants:
        try:
            runners.append(_prepared(job, entrant, recipe, (arguments or {}).get(entrant.name, {})))
        except (BackboneError, EngineError, RuntimeError) as error:  # RuntimeError: PyTorch's, also of memory
            if (arguments or {}).get(entrant.name) and isinstance(error, BackboneError):
                raise  # what was typed for it is wrong
            entries[entrant] = _refused(entrant, error, job.progress)
    runners.sort(key=lambda runner: runner.card.macs)
    extracted = []
    for n_before, runner in enumerate(runners):
        share = None if ends is None else max(0.001, (ends - time.monotonic()) / (len(runners) - n_before))
        try:
            extracted.append(_extracted(job, list(order), runner, share))
        except (BackboneError, EngineError, RuntimeError) as error:
            entries[runner.entrant] = _refused(runner.entrant, error, job.progress)
    finalists = _finalists(extracted, entries, job.progress)
    train, held_out = _shared(job, finalists, entries, recipe)
    rivals = []
    for runner in finalists:
        entries[runner.entrant], right = _judged(job, runner, train, held_out)
        rivals.append(Rival(runner.entrant.label, right, entries[runner.entrant].images_per_s or 0.0))
    chosen, why = recommended(rivals)
    return Race(
        entries=tuple(entries[entrant] for entrant in entrants),
        winner=list(entrants).index(finalists[chosen].entrant),
        recommendation=why,
        n_train=len(train),
        n_held_out=len(held_out),
        folds=recipe.folds,
        seconds=round(time.monotonic() - begun, 3),
    )


def _prepared(job: Job, entrant: Entrant, recipe: Recipe, arguments: Mapping[str, Any]) -> _Runner:
    """The network exported, its size known."""
    fit = "default" if recipe.fit == "auto" else recipe.fit
    own = replace(
        recipe, backbone=entrant.name, weights=entrant.weights, backbone_args=dict(arguments), fit=fit, head="linear"
    )
    prefix = chosen_prefix(job, own)
    entry = Entry(
        label=entrant.label,
        backbone=entrant.name,
        weights=entrant.weights,
        network_bytes=prefix.onnx.stat().st_size,
        feature_bytes=1000 * on_disk(2 * prefix.card.shape[0]),
    )
    return _Runner(entrant, own, prefix.card, entry)


def _extracted(job: Job, order: Sequence[int], runner: _Runner, share_s: float | None) -> _Runner:
    """The runner with features of as many photos as its share of the time is enough for, and its rate."""
    job = job.titled(runner.entrant.label)
    recipe = replace(runner.recipe, budget_s=share_s)
    prefix = chosen_prefix(job, recipe)
    with open_store(job.cache, prefix, recipe) as store:
        extract_missing(job, order, prefix, recipe, store)
        there = in_store(job.catalog, order, store)
    job.progress.phase("Timing")
    rate = rate_of(job.catalog, there, prefix, recipe)
    entry = replace(runner.entry, images_per_s=round(rate, 1), n_photos=len(there))
    return replace(runner, there=frozenset(there), entry=entry)


def rate_of(catalog: Catalog, there: Sequence[int], prefix: Prefix, recipe: Recipe) -> float:
    """Photos a second, decoding included. there: photos that can be read, one at least."""
    name, device = resolve(*recipe.extracts_by)
    timed = [catalog.photos[i] for i in there[:N_TIMED]]
    engine = open_engine(prefix, name, device, lambda: sample_pixels(catalog, list(there), prefix.card))
    return photos_per_second(engine, lambda i: prepare(catalog.read(timed[i]), prefix.card.preprocess), len(timed))


def _finalists(runners: Sequence[_Runner], entries: dict[Entrant, Entry], progress: Progress) -> list[_Runner]:
    """Those with enough photos to be compared; the others become entries with the reason."""
    most = max((len(runner.there) for runner in runners), default=0)
    for runner in runners:
        if len(runner.there) < MIN_SHARE * most:
            reason = f"It had time for {counted(len(runner.there), 'photo')} where another had {most}."
            entries[runner.entrant] = replace(runner.entry, reason=reason)
            progress.note(f"{runner.entrant.label} is left out. {reason}")
    return [runner for runner in runners if len(runner.there) >= MIN_SHARE * most]


def _shared(
    job: Job, finalists: Sequence[_Runner], entries: Mapping[Entrant, Entry], recipe: Recipe
) -> tuple[Sequence[int], Sequence[int]]:
    """The training and the held-out photos that all have. Raises BackboneError, RunError when nothing can be compared."""
    if not finalists:
        why = "; ".join(f"{entrant.label}: {entry.reason}" for entrant, entry in entries.items())
        raise BackboneError(what="None of the backbones can run.", why=why, fix="`rehead backbones` lists those here.")
    there = sorted(frozenset.intersection(*(runner.there for runner in finalists)))
    fix = "Let it run longer." if job.ends() else "Raise --limit or --budget, or name fewer backbones."
    train = _check_enough(job.catalog, there, recipe, fix)
    return train, job.catalog.among(there, job.catalog.held_out_side)


def _check_enough(catalog: Catalog, positions: Sequence[int], recipe: Recipe, fix: str) -> Sequence[int]:
    """Those to learn from. Raises RunError where a class has none of them, or no fold can hold one out."""
    train = catalog.among(positions, "train")
    if lacking := set(catalog.classes) - catalog.different_labels(train):
        why = f"There is none to learn from of {first_few([quoted(label) for label in sorted(lacking)])}."
    elif (folds_of(catalog, train, recipe) < 0).all():
        why = "No class has two to learn from, of which one could be held out."
    else:
        return train
    raise RunError(
        what=f"Photos are too few to compare backbones on {len(catalog.classes)} classes: {len(positions)}.",
        why=why,
        fix=fix,
    )


def _judged(
    job: Job, runner: _Runner, train: Sequence[int], held_out: Sequence[int]
) -> tuple[Entry, NDArray[np.bool_]]:
    """The entry with its accuracies, and whether it is right by k-fold on each training photo that a fold holds out."""
    job, catalog, recipe = job.titled(runner.entrant.label), job.catalog, runner.recipe
    n_classes = len(catalog.classes)
    job.progress.phase("Solving the head")
    prefix = chosen_prefix(job, recipe)
    with open_store(job.cache, prefix, recipe) as store:
        x, held_x = (store.read(catalog.digests(side)) for side in (train, held_out))
    y, folds = catalog.labels(train), folds_of(catalog, train, recipe)
    logits = logits_by_folds(x, y, n_classes, folds, recipe)
    right = (logits.argmax(axis=1) == y)[folds >= 0]
    by_folds = wilson(int(right.sum()), len(right))
    shown = None
    if held_out:
        head = fit_head(x, y, n_classes, folds, recipe).head
        shown = wilson(int((head.logits(held_x).argmax(axis=1) == catalog.labels(held_out)).sum()), len(held_out))
    job.progress.note(
        f"{runner.entrant.label}: right on {by_folds} by {recipe.folds}-fold on {counted(len(train), 'training photo')}, "
        f"{runner.entry.images_per_s:.0f} images/s"
    )
    return replace(runner.entry, by_folds=by_folds, held_out=shown), right


def _refused(entrant: Entrant, error: Exception, progress: Progress) -> Entry:
    reason = str(error).split("\n")[0]
    progress.note(f"{entrant.label} cannot run. {reason}")
    return Entry(label=entrant.label, backbone=entrant.name, weights=entrant.weights, reason=reason)
