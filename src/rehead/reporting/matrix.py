"""The confusion matrix as cells that hold photos; of many classes, the pairs that are confused most."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rehead.reporting.story import Story
from rehead.verdict.metrics import Verdict

MOST_CLASSES = 20  # of a matrix that can be read; of more classes the pairs are listed
MOST_PAIRS = 20
MOST_PHOTOS = {True: 12, False: 60}  # of a cell, by whether they are right
SHADES = 9  # steps of shading, as classes of the style sheet


@dataclass(frozen=True)
class Cell:
    """Photos of class `row` that were named `column`, by the classes' places. n: all of them. photos: places of those
    that may be shown: wrong ones by how sure it was, right ones the least sure first. shade: 0 to SHADES, of its row."""

    row: int
    column: int
    n: int
    photos: tuple[int, ...]
    shade: int

    @property
    def is_right(self) -> bool:
        return self.row == self.column

    @property
    def name(self) -> str:
        """Its id on the page."""
        return f"cell-{self.row}-{self.column}"


@dataclass(frozen=True)
class Matrix:
    """rows: cells of all classes, none of them where there are too many classes. pairs: the cells off the diagonal that
    hold photos, the fullest first, at most MOST_PAIRS where there are no rows. n_pairs: how many there are."""

    rows: tuple[tuple[Cell, ...], ...]
    pairs: tuple[Cell, ...]
    n_pairs: int

    @property
    def opened(self) -> tuple[Cell, ...]:
        """The cells whose photos can be opened."""
        return tuple(cell for row in self.rows for cell in row if cell.n) if self.rows else self.pairs


def matrix(story: Story, verdict: Verdict) -> Matrix:
    """The cells of the verdict's confusion, with the photos behind them."""
    photos = _photos(story)
    k = len(verdict.classes)
    counts = {(i, j): n for i, j, n in verdict.cells}

    def cell(i: int, j: int) -> Cell:
        n, shown = counts.get((i, j), 0), verdict.classes[i].n
        shade = 0 if not n else math.ceil(SHADES * math.sqrt(n / shown))  # few mistakes are to be seen too
        return Cell(i, j, n, tuple(photos[i, j][: MOST_PHOTOS[i == j]]), shade)

    rows = tuple(tuple(cell(i, j) for j in range(k)) for i in range(k)) if k <= MOST_CLASSES else ()
    wrong = sorted(((i, j) for i, j in counts if i != j), key=lambda at: (-counts[at], at))
    kept = wrong if rows else wrong[:MOST_PAIRS]
    return Matrix(rows, tuple(cell(i, j) for i, j in kept), len(wrong))


def by_rank(cells: Sequence[Cell]) -> list[int]:
    """The places of the cells' photos, the first of each cell before the second of any; wrong ones before right ones."""
    ranked = [
        (cell.is_right, rank, number, place)
        for number, cell in enumerate(cells)
        for rank, place in enumerate(cell.photos)
    ]
    return [place for *_, place in sorted(ranked)]


def _photos(story: Story) -> dict[tuple[int, int], list[int]]:
    """The places of the held-out photos of each cell, in the order in which they are shown."""
    place_of = {name: i for i, name in enumerate(story.classes)}
    found: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
    for place in story.held_out:
        answer, row = story.answer(place), place_of.get(story.photos[place].label)
        if answer is not None and row is not None:
            named, probability = answer
            found[row, named].append((probability if row == named else -probability, place))
    return defaultdict(list, {at: [place for _, place in sorted(own)] for at, own in found.items()})
