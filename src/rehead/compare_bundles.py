"""Two bundles on the same labelled photos: which is better, and on which photos they differ. No torch, no store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.ambient import own_settings
from rehead.bundle import sigmoid, softmax
from rehead.data.catalog import Catalog
from rehead.data.rows import Photo, Skip
from rehead.data.scan import scan_held_out
from rehead.data.sources import open_source
from rehead.errors import BundleError, SourceError, counted, escaped
from rehead.features.bad import BAD_LIST, check_bad, listed
from rehead.features.cache import cache_folder
from rehead.predict import Model, load
from rehead.progress import Progress, Silent
from rehead.runs.learned import learned_notes
from rehead.tuning.recipe import Recipe
from rehead.verdict.bootstrap import Estimate
from rehead.verdict.compare import Paired, Scored, paired, scored_numbers
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.regression import mean_error
from rehead.verify_bundle import about, answered, check_any


@dataclass(frozen=True)
class Said:
    """What a model says of a photo: what it names, of one class with its probability, and whether that is right; or the number
    it gives, and how far that is off."""

    named: tuple[str, ...]
    probability: float | None
    is_right: bool | None
    off: float | None = None


@dataclass(frozen=True)
class Change:
    """A photo on which one of the models is right, or nearer, and the other is not."""

    path: str
    labels: tuple[str, ...]
    first: Said
    second: Said

    @property
    def is_gain(self) -> bool:
        """Whether it is the second."""
        return bool(self.second.is_right) if self.nearer is None else self.nearer > 0

    @property
    def nearer(self) -> float | None:
        """How much nearer the second is, of numbers."""
        return None if self.first.off is None or self.second.off is None else self.first.off - self.second.off


@dataclass(frozen=True)
class Compared:
    """names: of the two bundles. scores: the share that each is right on, or how far off it is on average. beside: the one
    beside the other, photo by photo. changes: those where the second became right first, then those where it became wrong,
    each from the surest; of numbers those where the second is nearer, then the others, each from the largest difference.
    photos: the same ones. notes: what was left out. read: the bytes of a photo."""

    bundles: tuple[Path, Path]
    names: tuple[str, str]
    scores: tuple[Interval, Interval] | tuple[Estimate, Estimate]
    beside: Paired | Scored
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    skipped: tuple[Skip, ...]
    seconds: float
    photos: tuple[Photo, ...]
    read: Callable[[Photo], bytes]

    def page(self, progress: Progress | None = None) -> str:
        """All of it as one HTML file with the photos that changed."""
        from rehead.reporting.comparison import comparison

        return comparison(
            self.names, self.scores, self.beside, self.changes, self.photos, self.read, self.notes, progress
        )

    @property
    def sentence(self) -> str:
        return self.beside.sentence(*self.names)

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        scores, beside = ("right", "paired") if isinstance(self.beside, Paired) else ("errors", "scored")
        return {
            "bundles": [str(folder) for folder in self.bundles],
            "names": list(self.names),
            scores: [vars(score) for score in self.scores],
            beside: self.beside.to_dict(),
            "sentence": self.sentence,
            "changes": [{**vars(c), "first": vars(c.first), "second": vars(c.second)} for c in self.changes],
            "notes": list(self.notes),
            "skipped": [skip.to_dict() for skip in self.skipped],
            "seconds": {"total": self.seconds},
        }


@own_settings()
def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    source: object,
    *,
    layout: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    max_bad: float = 0.2,
    tta: bool = False,
    progress: Progress | None = None,
) -> Compared:
    """Both bundles on the photos whose classes both know: all of them, or the held-out sides where the source gives sides.

    Raises BundleError where they do not learn the same kind of thing, SourceError, RecipeError.
    """
    begun, progress = time.monotonic(), progress or Silent()
    Recipe(max_bad=max_bad)  # raises RecipeError for what is no share
    folders, place = (Path(first), Path(second)), cache_folder(cache)
    models = load(first), load(second)
    shared = _shared(models, folders)
    task = models[0].task
    opened = open_source(
        source, layout=layout, cache=place, classes=shared, task=task, max_bad=max_bad, progress=progress
    )
    catalog = replace(scan_held_out(opened, progress, task), classes=shared)
    progress.note(about(opened, catalog))
    is_number = task == "regression"
    rows = [i for i, photo in enumerate(catalog.photos) if is_number or set(catalog.names(photo)) <= set(shared)]
    if not rows:
        raise SourceError(
            what=f"None of the photos is of a class that both bundles know ({', '.join(shared[:10])}).",
            fix="Name the folders after the bundles' classes.",
        )
    names = _names(folders)
    found = [_said(model, catalog, rows, tta, progress, name) for model, name in zip(models, names, strict=True)]
    bad = found[0][1] | found[1][1]
    with listed(place / BAD_LIST):
        check_bad(list(bad.values()), len(rows), max_bad, before=catalog.bad, n_all=catalog.n_all)
    good = [i for i in rows if i not in bad]
    check_any(good, list(bad.values()))
    said = [[answers[i] for i in good] for answers, _ in found]
    scores, beside = _by_error(said) if is_number else _by_right(said, _strata(catalog, good))
    photos = {escaped(photo.path): photo for photo in catalog.photos}
    changes = _changes(catalog, good, said)
    return Compared(
        bundles=folders,
        names=names,
        scores=scores,
        beside=beside,
        changes=changes,
        photos=tuple(photos[change.path] for change in changes),
        notes=_notes(folders, models, catalog, good, rows),
        skipped=(*catalog.skipped, *bad.values(), *catalog.copies),
        seconds=round(time.monotonic() - begun, 3),
        read=catalog.read,
    )


def _by_right(said: list[list[Said]], strata: NDArray[np.int64]) -> tuple[tuple[Interval, Interval], Paired]:
    """The share that each is right on, and on how many photos only one is."""
    first, second = (np.array([one.is_right for one in answers], bool) for answers in said)
    shares = wilson(int(first.sum()), len(first)), wilson(int(second.sum()), len(second))
    return shares, paired(first, second, strata)


def _by_error(said: list[list[Said]]) -> tuple[tuple[Estimate, Estimate], Scored]:
    """How far off each is on average, and what is between them."""
    first, second = (np.array([one.off for one in answers], np.float64) for answers in said)
    none = np.zeros(len(first))
    return (mean_error(first, none), mean_error(second, none)), scored_numbers(first, second, none)


def _strata(catalog: Catalog, rows: Sequence[int]) -> NDArray[np.int64]:
    """Which photos have the same labels, (n,)."""
    return np.unique(catalog.columns.labels.numbers()[rows], return_inverse=True)[1].astype(np.int64)


def _shared(models: tuple[Model, Model], folders: tuple[Path, Path]) -> tuple[str, ...]:
    """The classes that both know, none of numbers. Raises BundleError where there is nothing to compare."""
    tasks = [model.task for model in models]
    if tasks[0] != tasks[1]:
        raise BundleError(
            what=f"{folders[0]} and {folders[1]} cannot be compared: one is for {tasks[0]}, the other for {tasks[1]}.",
            fix="Judge each by itself: rehead verify BUNDLE PHOTOS",
        )
    if "regression" in tasks:
        return ()
    shared = tuple(name for name in models[0].classes if name in models[1].classes)
    if not shared:
        raise BundleError(
            what="The bundles have no class in common.",
            why=f"They know {', '.join(models[0].classes[:5])}, and {', '.join(models[1].classes[:5])}.",
        )
    return shared


def _names(folders: tuple[Path, Path]) -> tuple[str, str]:
    """What tells two folders apart: the run's name where the folder is called bundle, else the last parts that differ."""
    parts = [[part for part in folder.resolve().parts if part != "bundle"] for folder in folders]
    for n in range(1, 1 + max(map(len, parts))):
        one, other = ("/".join(part[-n:]) for part in parts)
        if one != other:
            return one, other
    return "the first", "the second"


def _said(
    model: Model, catalog: Catalog, rows: Sequence[int], tta: bool, progress: Progress, name: str
) -> tuple[dict[int, Said], dict[int, Skip]]:
    """What the model says of each photo by its place, and those that could not be read."""
    progress.phase(f"Asking {name}", len(rows))
    answers, bad = {}, {}
    for i, result in zip(rows, answered(model, catalog, rows, tta), strict=True):
        progress.advance()
        if isinstance(result, Skip):
            bad[i] = result
        else:
            answers[i] = _one(model, result[0], catalog.photos[i], catalog)
    return answers, bad


def _one(model: Model, logits: NDArray[np.float32], photo: Photo, catalog: Catalog) -> Said:
    labels = catalog.names(photo)
    if model.task == "regression":
        return Said((f"{logits[0]:.4g}",), None, None, abs(float(logits[0]) - float(photo.label)))
    if model.task == "multilabel":
        named = sigmoid(logits) >= np.asarray(model.bundle.thresholds, np.float32)
        names = tuple(name for name, is_named in zip(model.classes, named, strict=True) if is_named)
        return Said(names, None, set(names) == set(labels))
    p = softmax(logits[None] / np.float32(model.bundle.temperature))[0]
    name = model.classes[int(p.argmax())]
    return Said((name,), float(p.max()), [name] == list(labels))


def _changes(catalog: Catalog, good: Sequence[int], said: list[list[Said]]) -> tuple[Change, ...]:
    changed = [
        Change(escaped(catalog.photos[i].path), tuple(catalog.names(catalog.photos[i])), one, other)
        for i, one, other in zip(good, *said, strict=True)
        if one.is_right != other.is_right or one.off != other.off
    ]

    def clarity(change: Change) -> float:
        return (change.second.probability or 0.0) if change.nearer is None else abs(change.nearer)

    return tuple(sorted(changed, key=lambda c: (not c.is_gain, -clarity(c), c.path)))


def _notes(
    folders: tuple[Path, Path], models: tuple[Model, Model], catalog: Catalog, good: Sequence[int], rows: Sequence[int]
) -> tuple[str, ...]:
    photos: list[Photo] = [catalog.photos[i] for i in good]
    notes = [f"{note} ({folder})" for folder, model in zip(folders, models, strict=True)
             for note in learned_notes(folder, photos, model.task)]  # fmt: skip
    for folder, model in zip(folders, models, strict=True):
        if others := [name for name in model.classes if name not in catalog.classes]:
            notes.append(f"{folder} knows {', '.join(others[:5])} too, which the other does not, and may name it.")
    if n := len(catalog.photos) - len(rows):
        notes.append(f"{counted(n, 'photo')} of classes that not both know {'is' if n == 1 else 'are'} left out.")
    return tuple(notes)
