"""A bundle on other labelled photos: the same verdict, from the bundle alone. No torch, no store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.ambient import own_settings
from rehead.data.catalog import Catalog
from rehead.data.rows import Skip, Source, bounded, quoted
from rehead.data.scan import scan_held_out
from rehead.data.sources import open_source
from rehead.data.split import HELD_OUT_SIDES
from rehead.errors import PhotoError, SourceError, counted
from rehead.features.bad import BAD_LIST, check_bad, listed
from rehead.features.cache import cache_folder
from rehead.parallel import batched, ordered_map
from rehead.pixels import prepare
from rehead.predict import BATCH, Model, load
from rehead.progress import Progress, Silent
from rehead.runs.learned import learned_notes
from rehead.tuning.recipe import Recipe
from rehead.verdict.judging import AnyVerdict, judge_task
from rehead.verdict.metrics import GIVEN, Verdict
from rehead.verdict.notes import first_of, notes_on_loss
from rehead.verdict.trust import trust_of


@dataclass(frozen=True)
class Verified:
    """What other photos say of a bundle. skipped: what was left out: photos, those of an unknown class together, and copies.
    n_skipped: how many photos those are, without copies. seconds: by phase, and "total"."""

    bundle: Path
    verdict: AnyVerdict
    skipped: tuple[Skip, ...]
    n_skipped: int
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run": None,
            "bundle": str(self.bundle),
            "seconds": self.seconds,
            "images": {"used": self.verdict.n, "skipped": self.n_skipped, "from_store": 0},
            "skipped": [skip.to_dict() for skip in self.skipped],
            "report": None,
            "concerns": [],
            "verdict": self.verdict.to_dict(),
        }


@own_settings()
def verify(
    bundle: str | os.PathLike[str],
    source: object,
    *,
    layout: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    max_bad: float = 0.2,
    tta: bool = False,
    variant: str | None = None,
    progress: Progress | None = None,
) -> Verified:
    """The verdict for a bundle on labelled photos: all of them, or the held-out sides where the source gives sides.

    source, layout: as in `rehead.tune`. tta: as in `Model.predict`. variant: as in `rehead.load`.
    Photos of classes that the bundle does not know are left out and named.
    Raises BundleError, SourceError, RecipeError.
    """
    begun, progress = time.monotonic(), progress or Silent()
    Recipe(max_bad=max_bad)  # raises RecipeError for what is no share
    place = cache_folder(cache)
    model = load(bundle, variant=variant)
    opened = open_source(
        source, layout=layout, cache=place, classes=model.classes, task=model.task, max_bad=max_bad, progress=progress
    )
    catalog = scan_held_out(opened, progress, model.task)
    progress.note(about(opened, catalog))
    known, unknown = _known(catalog, model)
    n_unknown = len(catalog.photos) - len(known)
    scanned = time.monotonic()
    positions, logits, far, bad = _judged(model, catalog, known, tta, progress)
    with listed(place / BAD_LIST):
        check_bad(bad, len(known), max_bad, before=catalog.bad, n_all=catalog.n_all)
    check_any(positions, bad)
    facts, trust = model.bundle.facts["verdict"], trust_of(model.bundle)
    outputs, labels = np.stack(logits), replace(catalog, classes=model.classes).labels(positions)
    calibrated = outputs / np.float32(trust.temperature)
    verdict = judge_task(
        model.task,
        calibrated,
        labels,
        classes=model.classes,
        thresholds=model.bundle.thresholds,
        median=facts.get("median", 0.0),
        paths=[catalog.photos[i].path for i in positions],
        side=GIVEN,
        n_train=facts["n_train"],
        notes=(
            *learned_notes(Path(bundle), [catalog.photos[i] for i in positions], model.task),
            *(notes_on_loss(calibrated, labels) if model.task == "classification" else ()),
            *_notes(model, {name for i in positions for name in catalog.names(catalog.photos[i])}, unknown, n_unknown),
        ),
    )
    if isinstance(verdict, Verdict):
        is_far = None if model.bundle.unfamiliar_above is None else np.stack(far) > model.bundle.unfamiliar_above
        verdict = trust.on(verdict, outputs, labels, is_far)
    seconds = {"scan": scanned - begun, "verify": time.monotonic() - scanned, "total": time.monotonic() - begun}
    unknown_skips = [
        Skip(f"class {quoted(label)}", f"is not known to the bundle: {counted(n, 'photo')}", "aside")
        for label, n in unknown.items()
    ]
    return Verified(
        Path(bundle),
        verdict,
        skipped=(*catalog.skipped, *bad, *unknown_skips, *catalog.copies),
        n_skipped=len(catalog.skipped) + len(bad) + n_unknown,
        seconds={name: round(value, 3) for name, value in seconds.items()},
    )


def _judged(
    model: Model, catalog: Catalog, positions: Sequence[int], tta: bool, progress: Progress
) -> tuple[list[int], list[NDArray[np.float32]], list[float], list[Skip]]:
    """The photos that could be read, the model's answer to each and its distance, and those that could not be read."""
    progress.phase("Verifying", len(positions))
    good, logits, far, bad = [], [], [], []
    for i, result in zip(positions, answered(model, catalog, positions, tta), strict=True):
        progress.advance()
        if isinstance(result, Skip):
            bad.append(result)
            continue
        good.append(i)
        logits.append(result[0])
        far.append(result[1])
    return good, logits, far, bad


def _known(catalog: Catalog, model: Model) -> tuple[list[int], Counter[str]]:
    """The photos whose class the bundle has, and how many photos other classes have."""
    if model.task == "regression":
        return list(range(len(catalog.photos))), Counter()
    classes = frozenset(model.classes)
    known = [i for i, photo in enumerate(catalog.photos) if classes.issuperset(catalog.names(photo))]
    unknown = Counter(name for photo in catalog.photos for name in catalog.names(photo) if name not in classes)
    if not known:
        raise SourceError(
            what=f"None of the photos is of a class that the bundle knows ({', '.join(model.classes[:10])}).",
            why=f"They are labelled {', '.join(sorted(unknown)[:10])}.",
            fix="Name the folders after the bundle's classes.",
        )
    return known, unknown


def check_any(good: Sequence[int], bad: Sequence[Skip]) -> None:
    """Raises SourceError where no photo could be read, which --max-bad 1 lets through."""
    if not good:
        raise SourceError(
            what=f"None of {counted(len(bad), 'photo')} can be read.",
            why="; ".join(f"{bounded(skip.path, 200)} {skip.reason}" for skip in bad[:3])
            + ("; ..." if len(bad) > 3 else ""),
            fix="Name photos that can be read: JPEG, PNG and the like.",
        )


Answer = tuple[NDArray[np.float32], float]


def answered(model: Model, catalog: Catalog, positions: Sequence[int], tta: bool) -> Iterator[Answer | Skip]:
    """What the model gives for each photo: its logits (n_classes,) and its distance; or why it cannot be read."""

    def work(batch: list[int]) -> list[Answer | Skip]:
        pixels: list[NDArray[np.uint8] | Skip] = []
        for i in batch:
            photo = catalog.photos[i]
            try:
                pixels.append(prepare(catalog.read(photo), model.bundle.preprocess))
            except (PhotoError, OSError) as error:
                reason = error.what if isinstance(error, PhotoError) else f"cannot be read: {error.strerror or error}"
                pixels.append(Skip(photo.path, reason))
        good = [p for p in pixels if not isinstance(p, Skip)]
        logits, far = model.judged(np.stack(good), tta=tta) if good else ((), ())
        rows = iter(zip(logits, map(float, far), strict=True))
        return [p if isinstance(p, Skip) else next(rows) for p in pixels]

    for results in ordered_map(work, batched(positions, BATCH), workers=model.workers, ahead=2 * model.workers):
        yield from results


def about(opened: Source, catalog: Catalog) -> str:
    """One line on what was found, and what of it is left aside."""
    text = f"{counted(len(catalog.photos), 'photo')} ({opened.layout})"
    n_train = sum(row.side not in HELD_OUT_SIDES for row in opened.rows)
    if n_train < len(opened.rows):
        text += f" of the held-out sides; {n_train} of the training side are left out"
    if n := len(catalog.copies):
        text += f"; {counted(n, 'copy')} counted once"
    return text


def _notes(model: Model, shown: set[str], unknown: Counter[str], n_unknown: int) -> tuple[str, ...]:
    """n_unknown: photos of unknown classes; of several labels one photo may have more than one of them."""
    notes = []
    if lacking := [label for label in model.classes if label not in shown]:
        notes.append(f"No photo shows {first_of(lacking)}.")
    if unknown:
        were = "was" if n_unknown == 1 else "were"
        notes.append(f"{counted(n_unknown, 'photo')} of unknown classes {were} left out: {first_of(sorted(unknown))}.")
    return tuple(notes)
