"""The report: one HTML file about a run, whole by itself, which reads without scripts and does more with them.

What it tells is a `Story`. Here it is decided which photos are shown and in which order; sentences are in `wording.py`,
tables in `matrix.py` and `mistakes.py`, curves in `plots.py`, and what is HTML in `templates/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from rehead.errors import counted
from rehead.progress import Progress, Silent
from rehead.reporting.concerns import concerns, nothing_found
from rehead.reporting.mapped import Map, feature_map
from rehead.reporting.matrix import Matrix, by_rank, matrix
from rehead.reporting.mistakes import Shown, shown_mistakes
from rehead.reporting.plots import counts_svg, coverage_svg, growth_svg, reliability_svg
from rehead.reporting.rendering import render
from rehead.reporting.story import Story
from rehead.reporting.thumbnails import MOST_PICTURES, Wanted, album
from rehead.reporting.wording import beside, calibration_sentence, headline, listing, selective_sentence
from rehead.tuning.familiar import KEPT
from rehead.verdict.metrics import Verdict

MOST = {
    "labels": 24, "copies": 12, "of_group": 6, "outliers": 12, "pictures": 24, "broken": 50, "unfamiliar": 24,
}  # fmt: skip
KINDS = {"classification": "class", "multilabel": "label", "regression": ""}


def page(story: Story, progress: Progress | None = None) -> str:
    """The HTML, below 8 MB, which `encode("utf-8")` takes. It asks the network for nothing and runs no code but its own.

    progress: is told of the map and of each picture. Photos that cannot be read are counted, and stand there as empty tiles.
    """
    progress = progress or Silent()
    verdict = story.verdict
    mistakes = shown_mistakes(story)
    cells = matrix(story, verdict) if isinstance(verdict, Verdict) else Matrix((), (), 0)
    progress.phase("Laying out the features")
    laid_out = feature_map(story)
    wanted = _wanted(story, mistakes, cells, laid_out)
    progress.phase("Making small pictures", min(len(wanted), MOST_PICTURES))
    pictures = album(story, wanted, progress.advance)
    progress.phase("Writing the report")
    return render(
        story,
        pictures,
        headline=headline(verdict),
        beside=beside(verdict),
        classes_listed=f"{counted(len(story.classes), KINDS[verdict.task])}: {listing(story.classes)}",
        concerns=concerns(story),
        nothing_found=nothing_found(story.audit),
        matrix=cells,
        mistakes=mistakes,
        has_neighbours=any(mistake.neighbours for mistake in mistakes),
        unfamiliar=(unfamiliar := _unfamiliar(story)),
        n_right_unfamiliar=_n_right(story, unfamiliar),
        kept=KEPT,
        map=laid_out,
        most=MOST,
        **_curves(verdict),
    )


def _wanted(story: Story, mistakes: Sequence[Shown], cells: Matrix, laid_out: Map | None) -> list[Wanted]:
    """The photos to show, what matters most first: where the budget ends, the last ones are left out."""
    first = [Wanted(m.place, is_large=True, heat=m.heat) for m in mistakes if m.place is not None]
    near = [near.place for mistake in mistakes for near in mistake.neighbours]
    behind = [*_of_audit(story), *_unfamiliar(story)[: MOST["unfamiliar"]], *by_rank(cells.opened)]
    on_map = laid_out.places if laid_out is not None else ()
    rest = dict.fromkeys([*near, *behind, *on_map])
    taken = {want.place for want in first}
    return [*first, *(Wanted(place) for place in rest if place not in taken)]


def _of_audit(story: Story) -> list[int]:
    """The places of photos that the audit's part shows."""
    audit = story.audit
    if audit is None:
        return []
    groups = story.copies[: MOST["copies"]]
    paths = [
        *(issue.path for issue in audit.labels[: MOST["labels"]]),
        *(path for group in groups for path in group.paths[: MOST["of_group"]]),
        *(outlier.path for outlier in audit.outliers[: MOST["outliers"]]),
        *(picture.path for picture in audit.pictures[: MOST["pictures"]]),
    ]
    return [place for path in paths if (place := story.place(path)) is not None]


def _unfamiliar(story: Story) -> list[int]:
    if story.unfamiliar is None:
        return []
    return [place for place, odd in zip(story.held_out, story.unfamiliar.tolist(), strict=True) if odd]


def _n_right(story: Story, places: Sequence[int]) -> int | None:
    """How many of these held-out photos are named right; None where no photo is simply right or wrong."""
    if story.verdict.task != "classification":
        return None
    named = [answer for place in places if (answer := story.answer(place)) is not None]
    labels = [story.photos[place].label for place in places]
    return sum(story.classes[place] == label for (place, _), label in zip(named, labels, strict=True))


def _curves(verdict: Any) -> dict[str, Any]:
    """The parts of a verdict that are told with a curve, and the curves."""
    parts = {name: getattr(verdict, name, None) for name in ("calibration", "selective", "growth")}
    plots: dict[str, str] = {}
    words: dict[str, str] = {}
    if (calibration := parts["calibration"]) is not None:
        plots |= {"reliability": reliability_svg(calibration), "counts": counts_svg(calibration)}
        words["calibration_sentence"] = calibration_sentence(calibration)
    if (selective := parts["selective"]) is not None:
        plots["coverage"] = coverage_svg(selective)
        words["selective_sentence"] = selective_sentence(selective)
    if parts["growth"] is not None:
        plots["growth"] = growth_svg(parts["growth"])
    return {**parts, **words, "plots": {name: Markup(svg) for name, svg in plots.items()}}
