"""Everything that is wrong with the photos of a catalog, from their features, their facts and logits of models.

Nothing is read or computed anew here that a tuning has already: it hands over what it has. The job that begins with a folder
is `job.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.copies import MAX_PHOTOS, Alike, alike, copy_groups, with_near
from rehead.auditing.facts import Facts
from rehead.auditing.findings import WEAK_JUDGES, Audit, Broken, CopyGroup, Leaks, Shortcut
from rehead.auditing.labels import MIN_PHOTOS as MIN_FOR_LABELS
from rehead.auditing.labels import judged_rows, label_issues
from rehead.auditing.outliers import MIN_PHOTOS as MIN_FOR_OUTLIERS
from rehead.auditing.outliers import outliers
from rehead.auditing.pictures import odd_pictures
from rehead.auditing.shortcuts import MIN_PHOTOS as MIN_FOR_SHORTCUTS
from rehead.auditing.shortcuts import shortcuts
from rehead.data.catalog import Catalog
from rehead.data.rows import Skip, first_few
from rehead.data.split import fold_numbers
from rehead.errors import counted
from rehead.progress import Progress, Silent
from rehead.verdict.intervals import wilson

N_FOLDS = 5
N_NAMED = 3  # of what was left aside, in a note
CLEAR = 0.9  # right so often, most labels called wrong are; on the flowers, at 0.76, with 5 % flipped, a third of them


def audit_photos(
    catalog: Catalog,
    positions: Sequence[int],
    features: NDArray[Any],
    *,
    backbone: str,
    facts: Mapping[int, Facts],
    found: Alike | None = None,
    apart: NDArray[Any] | None = None,
    held_out: NDArray[Any] | None = None,
    bad: Sequence[Skip] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """What is wrong with the photos at these positions of the catalog.

    features: (n, d), a row for each position. facts: by position, see `kept.facts_of_photos`; a photo may have none.
    found: what `alike` gives for these, None: it is computed. apart: (n, n_classes), logits of models that did not learn from
    the photo, nor from a copy of it; held_out: the same of the model that is judged, for its held-out photos. Both NaN for
    other photos, None for none. bad: photos that could not be read, besides those of the catalog.
    """
    progress = progress or Silent()
    if found is None:
        progress.phase("Comparing", len(positions))
        found = alike(positions, features, facts, told=progress.advance)
    progress.phase("Auditing")
    groups = copy_groups(catalog, found.pairs, positions)
    is_classes = catalog.task == "classification" and len(catalog.different_labels(positions)) > 1
    apart = apart if is_classes else None
    judged = np.empty(0, np.int64) if apart is None else judged_rows(catalog, positions, apart)
    told = _shortcuts(catalog, positions, facts, found, seed) if is_classes else ()
    return Audit(
        n=len(positions),
        backbone=backbone,
        copies=groups,
        leaks=_leaks(catalog, positions, groups, held_out if is_classes else None),
        labels=() if apart is None else label_issues(catalog, positions, apart),
        n_judged=len(judged),
        outliers=outliers(catalog, found),
        pictures=odd_pictures(catalog, {i: facts[i] for i in positions if i in facts}),
        broken=_broken([*catalog.bad, *bad]),
        shortcuts=told,
        notes=(
            *_of_classes(catalog, positions, is_classes, apart, judged, told),
            *_notes(catalog, positions, facts, bad),
        ),
    )


def audit_folds(catalog: Catalog, positions: Sequence[int], found: Alike, seed: int) -> NDArray[np.int64]:
    """The fold (0..N_FOLDS-1) of each photo, (n,), near copies in the same one; -1 for those that are never held out."""
    keys = with_near(catalog, found.pairs).keys()
    strata = catalog.strata[list(positions)]
    return fold_numbers((keys[i] for i in positions), strata, n_folds=N_FOLDS, seed=seed)


def leaked(groups: Sequence[CopyGroup], catalog: Catalog, positions: Sequence[int]) -> set[str]:
    """The paths of those of these photos that are held out and copies of photos learned from."""
    used = {catalog.photos[i].path for i in positions}
    pairs = [pair for group in groups if group.is_leak for pair in zip(group.paths, group.sides, strict=True)]
    return {path for path, side in pairs if side != "train" and path in used}


def _leaks(
    catalog: Catalog, positions: Sequence[int], groups: Sequence[CopyGroup], held_out: NDArray[Any] | None
) -> Leaks:
    paths = leaked(groups, catalog, positions)
    if held_out is None or not len(positions):
        return Leaks(len(paths), None, None)
    judged = ~np.isnan(held_out).any(axis=1)
    right = judged & (held_out.argmax(axis=1) == catalog.labels(positions))
    clean = judged & np.array([catalog.photos[i].path not in paths for i in positions])
    if not judged.any():
        return Leaks(len(paths), None, None)
    return Leaks(
        len(paths),
        wilson(int(right.sum()), int(judged.sum())),
        wilson(int((right & clean).sum()), int(clean.sum())) if clean.any() else None,
    )


def _shortcuts(
    catalog: Catalog, positions: Sequence[int], facts: Mapping[int, Facts], found: Alike, seed: int
) -> tuple[Shortcut, ...]:
    labels = dict(zip(positions, catalog.labels(positions).tolist(), strict=True))
    folds = dict(zip(positions, audit_folds(catalog, positions, found, seed).tolist(), strict=True))
    return shortcuts(catalog, {i: facts[i] for i in positions if i in facts}, labels, folds)


def _broken(skips: Sequence[Skip]) -> tuple[Broken, ...]:
    reasons = {skip.path: skip.reason for skip in skips if skip.kind == "broken"}
    return tuple(Broken(path, reason) for path, reason in reasons.items())


def _of_classes(
    catalog: Catalog,
    positions: Sequence[int],
    is_classes: bool,
    apart: NDArray[Any] | None,
    judged: NDArray[np.int64],
    told: Sequence[Shortcut],
) -> Iterator[str]:
    """Why wrong labels and shortcuts were not looked for, or what wrong labels rest on."""
    if catalog.task != "classification":
        yield "Wrong labels and shortcuts are looked for where a photo has one class."
        return
    if not is_classes:
        yield "All photos have one label: wrong labels and shortcuts cannot be looked for."
        return
    if apart is None:
        yield "Wrong labels were not looked for: no model was made that did not learn from the photos."
    elif not len(judged):
        yield (
            f"Wrong labels were not looked for: models that did not learn from them know fewer than {MIN_FOR_LABELS} photos, "
            "or one class alone."
        )
    elif (right := _right(catalog, positions, apart, judged)) < CLEAR:
        yield f"Labels were judged by heads that are right on {right:.0%} of the photos: {WEAK_JUDGES}."
    if not told:
        yield f"Shortcuts were not looked for: fewer than {MIN_FOR_SHORTCUTS} photos, or one class, can be held out in turn."


def _right(catalog: Catalog, positions: Sequence[int], apart: NDArray[Any], judged: NDArray[np.int64]) -> float:
    """How often the heads agree with the labels that they judge."""
    right = np.where(np.isnan(apart), -np.inf, apart).argmax(axis=1) == catalog.labels(positions)
    return float(right[judged].mean())


def _notes(
    catalog: Catalog, positions: Sequence[int], facts: Mapping[int, Facts], bad: Sequence[Skip]
) -> Iterator[str]:
    n, looked = len(positions), {catalog.photos[i].path for i in positions}
    if n + sum(skip.path not in looked for skip in bad) < len(catalog.photos):
        yield f"{n:,} of {len(catalog.photos):,} photos were looked at."
    if aside := [f"{skip.path} {skip.reason}" for skip in catalog.skipped if skip.kind == "aside"]:
        yield f"Not looked at: {first_few(aside, N_NAMED)}."
    if n < MIN_FOR_OUTLIERS:
        few = f"{counted(n, 'photo')} are too few to say which is far from the others."
        yield few if n != 1 else "One photo has no others to be compared with."
    if n > MAX_PHOTOS:
        yield f"Near copies and outliers were looked for among the first {MAX_PHOTOS:,} photos."
    if lacking := sum(i not in facts for i in positions):
        yield f"{counted(lacking, 'photo')} could not be looked at: their features alone were kept."
