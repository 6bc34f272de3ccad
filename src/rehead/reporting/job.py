"""The report of a finished run: what is known of it and its photos, gathered from the run and the store, as one page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehead.ambient import own_settings
from rehead.auditing.examine import examine, features_of_run, read_audit
from rehead.auditing.findings import Audit
from rehead.bundle import softmax
from rehead.bundle_head import read_head
from rehead.data.catalog import Catalog
from rehead.durable import write_asked
from rehead.errors import ReheadError, RunError, counted
from rehead.heat import activation, shares
from rehead.job import Job
from rehead.pixels import opened, upright_size
from rehead.predict import Model
from rehead.progress import Progress, Silent
from rehead.reporting.command import command
from rehead.reporting.concerns import concerns
from rehead.reporting.heatmaps import over_picture
from rehead.reporting.page import page
from rehead.reporting.story import Story
from rehead.runs.finished import Finished, read_finished
from rehead.runs.place import cache_of
from rehead.verdict.judging import AnyVerdict

PAGE = "report.html"
Heat = Callable[[bytes, int], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Reported:
    """path: the page. concerns: what to look at, as sentences."""

    path: Path
    verdict: AnyVerdict
    audit: Audit | None
    concerns: tuple[str, ...]


@own_settings()
def report(
    run: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    catalog: Catalog | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Reported:
    """One HTML file about a finished run, written to `out`, by default report.html in the run.

    run: its folder, or its bundle where it was made. catalog: its photos, where they are at hand as it was made. What an
    earlier look found is used again; else the photos are audited, and what more of them would bring is tried.
    Photos that are gone are placeholders. Raises RunError, BundleError.
    """
    place, progress = cache_of(run, cache), progress or Silent()
    if out is not None:
        check_page(Path(out))
    finished = read_finished(run, place)
    if catalog is not None:
        finished = replace(finished, catalog=catalog)
    job = Job(finished.catalog, place, progress)
    audit, verdict = read_audit(finished), finished.run.verdict
    assert verdict is not None
    try:
        positions, features = features_of_run(job, finished)
        if audit is None:
            audit, verdict = examine(job, finished, positions, features)
    except ReheadError as error:
        progress.note(f"The report does without features: {error.what}")
        positions, features = [], np.empty((0, 0), np.float32)
    if gone := sum(job.catalog.is_gone(photo) for photo in job.catalog.photos):
        progress.note(
            f"{counted(gone, 'photo')} of {len(job.catalog.photos)} cannot be read any more: empty tiles stand for them."
        )
    story = _story(finished, verdict, audit, positions, features)
    path = Path(out) if out is not None else finished.run.path / PAGE
    write_page(path, page(story, progress))
    return Reported(path, verdict, audit, tuple(concern.text.replace("\xa0", " ") for concern in concerns(story)))


def check_page(path: Path) -> None:
    """Raises RunError for a name that is no page's, so that no photo is ever written over."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(
            what=f"{path} does not end in .html.",
            why="So that no photo is ever written over.",
            fix=f"For example: --out {path.stem or 'report'}.html",
        )


def write_page(path: Path, html: str) -> None:
    """Writes a page, whole or not at all. Raises RunError where it cannot be written."""
    check_page(path)
    write_asked(path, html)


def _story(
    finished: Finished,
    verdict: AnyVerdict,
    audit: Audit | None,
    positions: Sequence[int],
    features: NDArray[np.float32],
) -> Story:
    catalog, outputs = finished.catalog, finished.outputs
    used = outputs.used.tolist()
    place = {row: i for i, row in enumerate(used)}
    far = finished.bundle.unfamiliar_above
    return Story(
        name=finished.run.path.name,
        verdict=verdict,
        classes=finished.bundle.classes,
        photos=tuple(catalog.photos[i] for i in used),
        held_out=tuple(place[row] for row in outputs.held_out.tolist()),
        probabilities=_probabilities(finished),
        read=catalog.read,
        features=features if len(positions) == len(used) else None,
        is_tuned=finished.run.recipe.train != "head",
        unfamiliar=None if far is None else np.asarray(outputs.distances > far),
        heat=_heat(finished),
        audit=audit,
        made=_made(finished),
    )


def _probabilities(finished: Finished) -> NDArray[np.float32]:
    if finished.bundle.task == "classification":
        return softmax(finished.outputs.logits / np.float32(finished.bundle.temperature))
    return finished.outputs.logits


def _heat(finished: Finished) -> Heat | None:
    """The class activation map of a picture, where the bundle has one."""
    model = Model(finished.bundle)
    if not model.has_map:
        return None
    head = read_head(finished.bundle.folder)

    def heat(data: bytes, target: int) -> NDArray[np.float32]:
        with opened(data) as image:
            size = upright_size(image)
        seen = model.map(model.pixels(data)[None])[0]
        return over_picture(shares(activation(head, seen, target)), size, model.bundle.preprocess)

    return heat


def _made(finished: Finished) -> dict[str, Sequence[tuple[str, str]]]:
    run, facts, photos = finished.run, finished.bundle.facts, finished.catalog.photos
    sides = {side: sum(photo.side == side for photo in photos) for side in ("train", "valid", "test")}
    counts = [(f"{side} side", str(n)) for side, n in sides.items() if n]
    settings = [
        (name, str(value)) for name, value in run.settings().items() if name not in ("weights", "backbone_args")
    ]
    backbone = facts["backbone"]
    return {
        "Recipe": [("head", run.head_note), *(settings or [("settings", "all as they come")])],
        "Photos": [
            *counts,
            ("learned from", str(len(finished.outputs.train))),
            ("held out", str(len(finished.outputs.held_out))),
            ("left out", str(len(finished.catalog.skipped))),
        ],
        "Backbone": [
            ("name", str(backbone["name"])),
            ("weights", str(backbone["origin"])),
            ("SHA-256 of the weights", str(backbone["weights"])),
            ("licence", str(backbone["licence"])),
            ("layers tuned", ", ".join(backbone["learned"]) or "none"),
            *_in_8_bits(backbone.get("int8_cosine")),
        ],
        "Files of the bundle, SHA-256": [(name, str(digest)) for name, digest in facts["files"].items()],
        "Versions": [(name, str(version)) for name, version in facts["versions"].items()],
        "Seconds": [(name, f"{took:.1f}") for name, took in run.seconds.items()],
        "To repeat it": command(finished.asked, run),
    }


def _in_8_bits(kept: float | None) -> list[tuple[str, str]]:
    return [] if kept is None else [("in 8 bits", f"features have a mean cosine of {kept:.3f} with those in float32")]
