"""Labels that something else than the picture gives away: the file's facts, or the frame around the picture.

A head that reads such a sign is right here and wrong elsewhere (Geirhos et al. 2020, "Shortcut Learning"). Two things look like
it and are none: a picture with more detail has more bytes, and a picture's edge shows its background. So each probe must
beat two others, that of always naming the most frequent class, and a control that sees the picture itself: of the file how
much detail it has, of the border a ring of the same width further in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.columns import Codes, binned, edge_fields, file_fields
from rehead.auditing.facts import Facts
from rehead.auditing.findings import Field, Shortcut
from rehead.auditing.probe import p_better, told_by
from rehead.data.catalog import Catalog
from rehead.verdict.intervals import Interval, wilson

ALPHA = 0.01  # the chance to call a shortcut what is none, corrected by the number of fields (Bonferroni)
SIZES = ("file size", "bytes per pixel")
MIN_PHOTOS = 30  # of fewer nothing could be significant


@dataclass(frozen=True)
class Probe:
    """What one source tells. fields: by name, their columns. controls: by name, those of the picture itself. shown: fields
    that the picture decides too; they must tell more than the control, of others it is enough that they add to it."""

    source: str
    fields: Mapping[str, Sequence[Codes]]
    controls: Mapping[str, Sequence[Codes]]
    shown: frozenset[str]


def shortcuts(
    catalog: Catalog, facts: Mapping[int, Facts], labels: Mapping[int, int], folds: Mapping[int, int]
) -> tuple[Shortcut, ...]:
    """What gives the label away, of the file and of the border, found or not. All three by position in the catalog.

    folds: of each photo, copies in the same one, -1 for none. A class whose photos are all of one fold is passed over: no
    other could learn it. Nothing where photos are fewer than MIN_PHOTOS.
    """
    folds_of: dict[int, set[int]] = defaultdict(set)
    for i in (there := [i for i in sorted(facts) if folds.get(i, -1) >= 0]):
        folds_of[labels[i]].add(folds[i])
    chosen = [i for i in there if len(folds_of[labels[i]]) > 1]
    y = np.unique([labels[i] for i in chosen], return_inverse=True)[1].astype(np.int64)
    if len(chosen) < MIN_PHOTOS or y.max() < 1:
        return ()
    fold = np.array([folds[i] for i in chosen], np.int64)
    return tuple(_shortcut(probe, y, fold) for probe in _probes(catalog, chosen, facts) if probe.fields)


def _probes(catalog: Catalog, chosen: Sequence[int], facts: Mapping[int, Facts]) -> Iterator[Probe]:
    fields = file_fields(catalog, chosen, facts)
    detail = [binned([facts[i].detail for i in chosen]), binned([facts[i].sharpness for i in chosen])]
    yield Probe("file", fields, dict.fromkeys(fields, detail), frozenset(SIZES))
    inside = edge_fields([facts[i].inside for i in chosen])
    yield Probe("border", edge_fields([facts[i].border for i in chosen]), inside, frozenset(inside))


def _shortcut(probe: Probe, labels: NDArray[np.int64], folds: NDArray[np.int64]) -> Shortcut:
    majority = labels == np.bincount(labels).argmax()
    n_looks = len(probe.fields) + 1

    def told(names: Sequence[str]) -> tuple[Interval, Interval, float]:
        """How often these fields and their control are right, and the corrected chance that the fields tell no more."""
        columns, control = _columns(probe.fields, names), _columns(probe.controls, names)
        right, controlled = told_by(columns, labels, folds), told_by(control, labels, folds)
        more = right if probe.shown.issuperset(names) else told_by([*columns, *control], labels, folds)
        p = max(p_better(right, majority), p_better(more, controlled))
        return _share(right), _share(controlled), min(1.0, n_looks * p)

    together = told([name for name in probe.fields if name not in probe.shown] or list(probe.fields))
    alone = {name: told([name]) for name in probe.fields}
    fields = [Field(name, accuracy, p) for name, (accuracy, _, p) in alone.items() if p < ALPHA]
    found = [one for one in (together, *alone.values()) if one[2] < ALPHA]
    accuracy, control, _ = max(found or [together], key=lambda one: one[0].value)
    least = min(p for *_, p in (together, *alone.values()))
    telling = tuple(sorted(fields, key=lambda field: -field.accuracy.value))
    return Shortcut(probe.source, accuracy, _share(majority), least, bool(found), telling, control)


def _columns(columns: Mapping[str, Sequence[Codes]], names: Sequence[str]) -> list[Codes]:
    """The columns of these fields, each once: fields may share one."""
    return list({id(column): column for name in names for column in columns[name]}.values())


def _share(right: NDArray[np.bool_]) -> Interval:
    return wilson(int(right.sum()), len(right))
