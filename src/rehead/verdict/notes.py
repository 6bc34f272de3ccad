"""What a verdict's numbers must not be read without: photos on both sides, classes that none shows, guesses that are better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.catalog import Catalog
from rehead.data.rows import quoted
from rehead.data.targets import names_of
from rehead.errors import counted
from rehead.verdict.bootstrap import FEW
from rehead.verdict.calibrate import log_softmax
from rehead.verdict.compare import SIGNIFICANT, Paired, Scored, p_value

N_NAMED = 3  # groups or classes in a note


def notes_on(
    catalog: Catalog, held_out: Sequence[int], logits: NDArray[np.floating[Any]], leaks: Sequence[str]
) -> tuple[str, ...]:
    """A sentence for each of these. logits: of the held-out photos, (n, k), as they are judged. leaks: those of the photos that
    were learned from.
    """
    notes: list[str] = []
    if catalog.task == "classification" and held_out:
        labels = catalog.labels(held_out)
        if (logits.argmax(axis=1) == labels).sum() < np.bincount(labels).max():
            notes.append("To name the commonest class of the held-out photos always would be right on more of them.")
        notes += notes_on_loss(logits, labels)
    if n := len(leaks):
        notes.append(f"{n} of the held-out photos {'is' if n == 1 else 'are'} byte for byte in the training side too.")
    groups, both = [catalog.photos[i].group for i in held_out], set(catalog.torn_groups)
    if torn := both & set(groups):
        n = sum(group in torn for group in groups)
        named = ", ".join(sorted(torn)[:N_NAMED]) + ", ..." * (len(torn) > N_NAMED)
        notes.append(
            f"{counted(n, 'held-out photo')} of {counted(len(torn), 'group')} that the training side has too: {named}."
        )
    shown = {name for label in catalog.different_labels(held_out) for name in names_of(label, catalog.task)}
    if lacking := [label for label in catalog.classes if label not in shown]:
        notes.append(f"No held-out photo shows {first_of(lacking)}.{_alike(lacking, catalog.classes)}")
    if catalog.task != "classification" and (n := len(held_out)) < FEW:
        few = f"{counted(n, 'held-out photo')} {'is' if n == 1 else 'are'} too few to draw an interval from"
        notes.append(f"{few}: take it for no more.")
    return tuple(notes)


def notes_on_loss(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> list[str]:
    """A sentence where the log-loss of logits (n, k) is above ln k, that of saying nothing. labels: (n,), n >= 1."""
    loss, chance = float(-log_softmax(logits)[np.arange(len(labels)), labels].mean()), math.log(logits.shape[1])
    if loss <= chance:
        return []
    return [
        f"Its probabilities are worse than none: to give all {counted(logits.shape[1], 'class')} the same on every photo would "
        f"have a log-loss of {chance:.3f}, these have {loss:.3f}."
    ]


def notes_on_gain(alone: Paired | Scored | None) -> list[str]:
    """A sentence where layers learned and held-out photos do not show it. alone: a linear head alone, and the model."""
    if alone is None:
        return []
    if isinstance(alone, Scored):
        return _notes_on_scores(alone)
    n_alone, now, n = alone.n_first, alone.n_second, alone.n
    if alone.p < SIGNIFICANT and now > n_alone:
        return []
    counts = f"is right on {n_alone} of {counted(n, 'held-out photo')}, this model on {now} (p {p_value(alone.p)})"
    if alone.p < SIGNIFICANT:
        return [f"A linear head alone is better here: it {counts}."]
    is_hopeless = n_alone <= now and n_alone < n and 2 * 0.5 ** (n - n_alone) >= SIGNIFICANT
    too_few = "; those that it misses are too few for a gain to show" if is_hopeless else ""
    return [f"What its layers learned does not show on these photos: a linear head alone {counts}{too_few}."]


def _notes_on_scores(alone: Scored) -> list[str]:
    if alone.is_clear and alone.is_better:
        return []
    counts = alone.scores("", "this model ")
    if alone.is_clear:
        return [f"A linear head alone is better here: it {counts}."]
    return [f"What its layers learned does not show on these photos: a linear head alone {counts}."]


def first_of(names: Sequence[str]) -> str:
    """'cat, dog, hen and 4 more'."""
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more


def _alike(lacking: Sequence[str], classes: Sequence[str]) -> str:
    """' 'Cat' and 'cat' are two classes: ...' of the first of these names that another is spelled like."""
    for name in lacking:
        if twin := [other for other in classes if other != name and other.casefold() == name.casefold()]:
            return f" {quoted(name)} and {quoted(twin[0])} are two classes: names count letter by letter."
    return ""
