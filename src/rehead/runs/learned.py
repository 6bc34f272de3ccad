"""Which photos a bundle, and the layers below its head, learned from, as far as the runs beside bundles tell."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rehead.bundle_facts import Task
from rehead.data.rows import Photo
from rehead.errors import ReheadError, RunError, counted
from rehead.nets.card import is_bundle
from rehead.runs.outputs import read_outputs
from rehead.solution import Solution
from rehead.tuning.layers import HEAD
from rehead.tuning.recipe import load
from rehead.verdict.notes import first_of

BEFORE = "Layers of the backbone were tuned before"


def learned_notes(bundle: Path, photos: Sequence[Photo], task: Task) -> list[str]:
    """A note on those of the photos that the bundle, or its layers before, learned from, as far as runs tell."""
    none = frozenset[str]()  # is known of one that was carried away from its run
    n = n_among((_learned(bundle.resolve().parent) or none) | (tuned_on(bundle) or none), photos)
    if not n:
        return []
    of_them = f"{n} of these {len(photos)} photos" if len(photos) > 1 else "this photo"
    return [f"The bundle learned from {of_them}: on new ones it will be {_worse(task)}."]


def tuned_on(bundle: Path) -> frozenset[str] | None:
    """Digests of the photos that a bundle's tuned layers learned from, whether its own run tuned them or that of a bundle below
    it; None where that run is not known."""
    passed = set[Path]()
    while is_bundle(bundle) and bundle not in passed:
        passed.add(bundle)
        run = bundle.resolve().parent
        try:
            recipe = load(run / "recipe.toml")
        except (OSError, ValueError, ReheadError):
            return None
        if recipe.train != HEAD:
            return _learned(run)
        bundle = recipe.weights_file or bundle
    return None


def notes_on_layers(solution: Solution, backbone: Path | None, *, is_calibrated: bool) -> tuple[str, ...]:
    """What a verdict must not be read without where layers of the backbone were tuned before, as only a bundle's can be: on
    which of its photos, as far as that is known."""
    layers, photos = solution.card.learned, solution.catalog.photos
    if not layers or backbone is None:
        return ()
    learned = tuned_on(backbone)
    if learned is None:
        return (unknown_note(layers),)
    notes, named = [], f"{BEFORE} ({first_of(layers)})"
    if n := n_among(learned, [photos[i] for i in solution.held_out]):
        of_them = f"{n} of these {counted(len(solution.held_out), 'held-out photo')}"
        notes.append(f"{named}, on {of_them} too: on new ones it will be {_worse(solution.catalog.task)}.")
        named = "They were tuned"
    apart = [] if solution.apart is None or not is_calibrated else solution.apart[0]
    if n := n_among(learned, [photos[i] for i in apart]):
        of_them = f"{n} of the {counted(len(apart), 'photo')} that its probabilities are calibrated on"
        notes.append(f"{named} on {of_them}: it will be surer of itself than it may be.")
    return tuple(notes)


def unknown_note(layers: Sequence[str]) -> str:
    """What is said of layers that were tuned before, nobody knows on what."""
    return f"{BEFORE} ({first_of(layers)}); whether on these photos is not known."


def n_among(learned: frozenset[str], photos: Sequence[Photo]) -> int:
    """How many of the photos have one of these digests."""
    return sum(photo.digest.hex() in learned for photo in photos)


def _learned(run: Path) -> frozenset[str] | None:
    """Digests of the photos that a run learned from, None where it does not tell."""
    try:
        rows = set(read_outputs(run).train.tolist())  # of the training side a part may have been learned from
        with (run / "catalog.csv").open(encoding="utf-8", errors="replace", newline="") as file:
            return frozenset(photo["digest"] for row, photo in enumerate(csv.DictReader(file)) if row in rows)
    except (RunError, OSError, KeyError, csv.Error):
        return None


def _worse(task: Task) -> str:
    return "further off" if task == "regression" else "right less often"
