"""Which photos a bundle learned from, as far as the run beside it tells."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rehead.bundle_facts import Task
from rehead.data.rows import Photo
from rehead.errors import RunError
from rehead.runs.outputs import read_outputs


def learned_notes(bundle: Path, photos: Sequence[Photo], task: Task) -> list[str]:
    """A note on those of the photos that the bundle learned from, as far as the run beside it tells."""
    run = bundle.resolve().parent
    try:
        rows = set(read_outputs(run).train.tolist())  # of the training side a part may have been learned from
        with (run / "catalog.csv").open(encoding="utf-8", errors="replace", newline="") as file:
            learned = {photo["digest"] for row, photo in enumerate(csv.DictReader(file)) if row in rows}
    except (RunError, OSError, KeyError, csv.Error):
        return []  # it was carried away from its run
    n = sum(photo.digest.hex() in learned for photo in photos)
    if not n:
        return []
    of_them = f"{n} of these {len(photos)} photos" if len(photos) > 1 else "this photo"
    worse = "further off" if task == "regression" else "right less often"
    return [f"The bundle learned from {of_them}: on new ones it will be {worse}."]
