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
    seen = _Changed(tuple(photos[:MOST]), read)
    progress.phase("Making small pictures", len(seen.photos))
    pictures = album(seen, [Wanted(place) for place in range(len(seen.photos))], progress.advance)
    title = "Right by {} alone" if isinstance(beside, Paired) else "{} is nearer"
    groups = [
        (title.format(names[1]), [i for i, c in enumerate(changes) if c.is_gain]),
        (title.format(names[0]), [i for i, c in enumerate(changes) if not c.is_gain]),
    ]
    return render_comparison(
        pictures,
        names=names,
        scores=scores,
        beside=beside,
        is_shares=isinstance(beside, Paired),
        sentence=beside.sentence(*names),
        changes=changes,
        groups=[(title, places) for title, places in groups if places],
        most=MOST,
        notes=notes,
    )
