"""The worst mistakes, each with its photo and the photos learned from that it looks most like to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rehead.reporting.story import Story
from rehead.reporting.wording import percent, plain
from rehead.verdict.bootstrap import short
from rehead.verdict.metrics import Mistake
from rehead.verdict.multilabel import LabelMistake
from rehead.verdict.neighbours import neighbours
from rehead.verdict.regression import ValueMistake

AnyMistake: TypeAlias = Mistake | LabelMistake | ValueMistake
N_NEAREST = 4


@dataclass(frozen=True)
class Neighbour:
    """A photo that was learned from. likeness: cosine similarity of the features, in -1..1."""

    place: int
    likeness: float


@dataclass(frozen=True)
class Shown:
    """A mistake as it is told. place: of its photo, None where it is not among the photos. heat: the class whose
    activation map is wanted."""

    path: str
    place: int | None
    truth: str
    named: str
    detail: str
    heat: int | None
    neighbours: tuple[Neighbour, ...]


def shown_mistakes(story: Story) -> list[Shown]:
    """The verdict's mistakes, the worst first."""
    mistakes: Sequence[AnyMistake] = story.verdict.mistakes
    places = [story.place(mistake.path) for mistake in mistakes]
    near = _neighbours(story, [place for place in places if place is not None])
    return [_shown(story, m, place, near.get(place, ())) for m, place in zip(mistakes, places, strict=True)]


def _shown(story: Story, mistake: AnyMistake, place: int | None, near: tuple[Neighbour, ...]) -> Shown:
    path = plain(mistake.path)
    if isinstance(mistake, Mistake):
        detail = (
            f"It gave {percent(mistake.probability)} to the wrong class and {percent(mistake.given)} to the right one."
        )
        heat = story.classes.index(mistake.predicted) if mistake.predicted in story.classes else None
        return Shown(path, place, mistake.label, mistake.predicted, detail, heat, near)
    if isinstance(mistake, LabelMistake):
        truth, named = (", ".join(names) or "none of the labels" for names in (mistake.labels, mistake.predicted))
        detail = f"Most wrong about “{plain(mistake.wrong)}”, to which it gave {percent(mistake.probability)}."
        heat = story.classes.index(mistake.wrong) if mistake.wrong in story.classes else None
        return Shown(path, place, truth, named, detail, heat, near)
    off = f"Off by {short(abs(mistake.predicted - mistake.value))}."
    return Shown(path, place, short(mistake.value), short(mistake.predicted), off, None, near)


def _neighbours(story: Story, places: list[int]) -> dict[int | None, tuple[Neighbour, ...]]:
    if story.features is None or not places or not story.train:
        return {}
    train = np.asarray(story.train)
    found = neighbours(story.features[train], story.features[places], N_NEAREST)
    return {
        place: tuple(Neighbour(int(train[row]), float(near)) for row, near in zip(*both, strict=True))
        for place, *both in zip(places, found.places, found.similarity, strict=True)
    }
