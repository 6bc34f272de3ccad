"""What a training leaves in its run as it goes: checkpoints, metrics.jsonl, curves.svg; and what it tells who looks on."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from rehead.progress import Progress
from rehead.run_folder import RunFolder
from rehead.tuning.course import Course
from rehead.tuning.curves import curves_svg
from rehead.verdict.metrics import wilson

if TYPE_CHECKING:
    from rehead.tuning.state import State

CHECKPOINT_EVERY_S = 60.0  # at most this much training is lost by SIGKILL
METRICS, CURVES = "metrics.jsonl", "curves.svg"


class Record:
    """history: the epochs that were done before, one entry each. n_learn: photos learned from in an epoch."""

    def __init__(
        self, run: RunFolder, progress: Progress, course: Course, n_learn: int, history: list[dict[str, Any]]
    ) -> None:
        self._run, self._progress, self._course = run, progress, course
        self._n_steps = math.ceil(math.ceil(n_learn / course.batch_size) / course.accumulate)
        self._history = list(history)
        self._saved = time.monotonic()

    def report(self, facts: dict[str, Any]) -> None:
        """An epoch is done."""
        self._history.append(facts)
        self._run.write(METRICS, "".join(json.dumps(entry) + "\n" for entry in self._history))
        self._run.write(CURVES, curves_svg(self._history, self._course, self._n_steps))
        self._progress.note(_epoch_line(facts, self._course.epochs))

    def advance(self, n: int, text: str) -> None:
        """So many more photos are done, and it stands like this."""
        self._progress.advance(n)
        self._progress.status(text)

    def due(self) -> bool:
        """Whether a checkpoint is to be written."""
        return time.monotonic() - self._saved > CHECKPOINT_EVERY_S

    def save(self, state: State) -> None:
        """Writes a checkpoint."""
        from rehead.tuning.checkpoint import write_checkpoint

        write_checkpoint(self._run.path, state)
        self._saved = time.monotonic()


def _epoch_line(facts: dict[str, Any], n_epochs: int) -> str:
    watched = ""
    if "watch_right" in facts:
        watched = f", watched {wilson(facts['watch_right'], facts['watch_n'])}"
    return f"Epoch {facts['epoch']} of {n_epochs}: loss {facts['loss']:.3f}{watched}, {facts['images_per_s']:.0f}/s"
