"""The map of the features as the page shows it: points by group, their signs, and what is told of each."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rehead.reporting.inline import N_GROUPS
from rehead.reporting.map import layout
from rehead.reporting.plots import map_svg
from rehead.reporting.story import Story
from rehead.reporting.wording import percent, shortened
from rehead.verdict.bootstrap import short

N_RANGES = 5  # of numbers


@dataclass(frozen=True)
class Map:
    """places: (n,) of the photos shown. points: of each its group, for scripts [name, label, answer, place of the label in
    `choices`, 1 where the answer is wrong]. legend: (name, its sign as SVG). choices: all groups, in their order."""

    svg: Markup
    places: tuple[int, ...]
    points: tuple[tuple[Any, ...], ...]
    legend: tuple[tuple[str, Markup], ...]
    choices: tuple[str, ...]
    n_wrong: int

    @property
    def n(self) -> int:
        return len(self.places)


def feature_map(story: Story) -> Map | None:
    """The map of the photos' features; None where there are no features, or too few photos to lay out."""
    if story.features is None:
        return None
    found = layout(story.features, [place for place in story.held_out if _is_wrong(story, place)])
    if found is None:
        return None
    places = tuple(int(row) for row in found.rows)
    labels, choices = _groups(story, places)
    signs = _most_frequent(labels, len(choices))
    groups = np.array([signs.index(label) if label in signs else -1 for label in labels], np.int64)
    wrong = np.array([_is_wrong(story, place) for place in places], bool)
    names = [choices[i] for i in signs]
    svg = map_svg(found.xy, groups, names, wrong)
    return Map(
        svg=Markup(svg),
        places=places,
        points=tuple(_point(story, *facts) for facts in zip(places, labels, wrong.tolist(), strict=True)),
        legend=_legend(svg, names, len(choices) - len(names)),
        choices=tuple(choices),
        n_wrong=int(wrong.sum()),
    )


def _is_wrong(story: Story, place: int) -> bool:
    answer = story.answer(place)
    return answer is not None and story.classes[answer[0]] != story.photos[place].label


def _groups(story: Story, places: Sequence[int]) -> tuple[list[int], list[str]]:
    """The group of each photo, and the groups' names: classes, sets of labels, or ranges of numbers."""
    labels = [story.photos[place].label for place in places]
    if story.verdict.task == "regression":
        return _ranges(np.array([float(label) for label in labels]))
    names = sorted(set(labels))
    place_of = {name: i for i, name in enumerate(names)}
    return [place_of[label] for label in labels], [name or "none of the labels" for name in names]


def _ranges(values: NDArray[np.float64]) -> tuple[list[int], list[str]]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, N_RANGES + 1)))
    if len(edges) < 2:
        return [0] * len(values), [short(float(values[0]))]
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return bins.tolist(), [f"{short(a)} to {short(b)}" for a, b in itertools.pairwise(edges)]


def _most_frequent(labels: Sequence[int], n_groups: int) -> list[int]:
    """The groups that have a sign of their own, in order."""
    if n_groups <= N_GROUPS:
        return list(range(n_groups))
    return sorted(group for group, _ in Counter(labels).most_common(N_GROUPS))


def _point(story: Story, place: int, group: int, is_wrong: bool) -> tuple[Any, ...]:
    photo, answer = story.photos[place], story.answer(place)
    says = f"named {shortened(story.classes[answer[0]], 48)}, {percent(answer[1])}" if answer else ""
    if not says:
        says = "held out" if place in story.row_by_place else "learned from"
    return shortened(photo.path), shortened(photo.label, 48), says, group, int(is_wrong)


def _legend(svg: str, names: Sequence[str], n_rest: int) -> tuple[tuple[str, Markup], ...]:
    """The signs, each a copy of the figure's own marker."""
    entries = [(f"g{i}", name) for i, name in enumerate(names)]
    entries += [("rest", f"{n_rest:,} others")] if n_rest else []
    entries += [("wrong", "wrong answer")]
    found = []
    for gid, name in entries:
        marker = re.search(rf'id="map-{gid}".*?(<path [^>]*>)', svg, re.DOTALL)
        if marker:
            path = re.sub(r' id="[^"]*"', "", marker[1])
            sign = f'<svg class="sign" viewBox="-7 -7 14 14" aria-hidden="true">{path}</path></svg>'
            found.append((name, Markup(sign)))
    return tuple(found)
