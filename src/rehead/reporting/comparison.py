"""Two models on the same photos as one page: which is better, and the photos on which they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rehead.data.rows import Photo
from rehead.progress import Progress, Silent
from rehead.reporting.rendering import render_comparison
from rehead.reporting.thumbnails import Wanted, album
from rehead.verdict.bootstrap import Estimate
from rehead.verdict.compare import Paired, Scored
from rehead.verdict.intervals import Interval

MOST = 400  # photos that are shown: of more nobody looks at each


@dataclass(frozen=True)
class _Changed:
    photos: tuple[Photo, ...]
    read: Callable[[Photo], bytes]
    heat: None = None


def comparison(
    names: tuple[str, str],
    scores: tuple[Interval, Interval] | tuple[Estimate, Estimate],
    beside: Paired | Scored,
    changes: Sequence[Any],
    photos: Sequence[Photo],
    read: Callable[[Photo], bytes],
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> str:
    """The HTML, as `page.page` gives it. changes: what each model says of a photo, see `compare_bundles.Change`; photos: the
    same ones, in that order. Those that cannot be read any more are told by name alone."""
    progress = progress or Silent()
    gains, losses = ([i for i, c in enumerate(changes) if c.is_gain == is_gain] for is_gain in (True, False))
    shown = _shown(gains, losses)
    progress.phase("Making small pictures", len(shown))
    pictures = album(_Changed(tuple(photos), read), [Wanted(place) for place in shown], progress.advance)
    title = "Right by {} alone" if isinstance(beside, Paired) else "{} is nearer"
    groups = [(title.format(names[1]), gains), (title.format(names[0]), losses)]
    return render_comparison(
        pictures,
        names=names,
        scores=scores,
        beside=beside,
        is_shares=isinstance(beside, Paired),
        sentence=beside.sentence(*names),
        changes=changes,
        groups=[(title, places) for title, places in groups if places],
        shown=frozenset(shown),
        notes=notes,
    )


def _shown(gains: list[int], losses: list[int]) -> list[int]:
    """The first of each, MOST at most: half of them of each, more where the others are fewer."""
    half = MOST // 2
    return gains[: max(half, MOST - len(losses))] + losses[: max(half, MOST - len(gains))]
