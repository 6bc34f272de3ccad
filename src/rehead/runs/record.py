"""What a training leaves in its run as it goes: checkpoints, metrics.jsonl, pictures; and what it tells who looks on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rehead.progress import Clock, Progress
from rehead.runs.folder import RunFolder
from rehead.tuning.course import Course
from rehead.tuning.curves import NATS, curves_svg
from rehead.tuning.lr_range import RangeTest, range_svg
from rehead.tuning.trackers import Trackers
from rehead.verdict.intervals import wilson

if TYPE_CHECKING:
    from rehead.tuning.state import State

CHECKPOINT_EVERY_S = 60.0  # at most this much training is lost by SIGKILL
DRAWN_EVERY_S = 60.0  # a picture takes as long as a short epoch; the first also 25 MB
METRICS, CURVES, RANGE = "metrics.jsonl", "curves.svg", "lr_range"


class Record:
    """n_learn: photos learned from in an epoch. track: names of trackers that are told too. clock: of the whole job."""

    def __init__(
        self,
        run: RunFolder,
        progress: Progress,
        n_learn: int,
        track: Sequence[str] = (),
        unit: str = NATS,
        clock: Clock | None = None,
    ) -> None:
        self._trackers = Trackers(track, run.path, progress.note)
        self._run, self._progress, self._n_learn, self._unit = run, progress, n_learn, unit
        self._clock = clock or Clock()
        self._history: list[dict[str, Any]] = []
        self._course: Course | None = None
        self._saved = self._drawn = time.monotonic()

    def range_test(self) -> RangeTest | None:
        """The range test that was made when the run began."""
        path = self._run.path / f"{RANGE}.json"
        return RangeTest.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def keep_range(self, test: RangeTest) -> None:
        """Writes a range test down, so that a job that goes on from here uses the same rate; and its picture."""
        self._run.write(f"{RANGE}.svg", range_svg(test, self._unit))
        self._run.write_json(f"{RANGE}.json", test.to_dict())

    def checkpoint(self) -> State | None:
        """The run's checkpoint, None where there is none."""
        from rehead.tuning.checkpoint import read_checkpoint

        return read_checkpoint(self._run.path)

    def begin(self, course: Course, history: list[dict[str, Any]]) -> None:
        """The training begins, or goes on. history: the epochs that were done before."""
        self._course, self._history = course, list(history)
        self._saved = self._drawn = time.monotonic()
        self._trackers.begin(vars(course), len(self._history) + 1)

    def report(self, facts: dict[str, Any]) -> None:
        """An epoch is done."""
        assert self._course is not None
        self._history.append(facts)
        self._run.write(METRICS, "".join(json.dumps(entry) + "\n" for entry in self._history))
        if time.monotonic() - self._drawn > DRAWN_EVERY_S:
            self._draw(self._course)
        values = {
            name: float(value) for name, value in facts.items() if name not in ("epoch", "watch_right", "watch_n")
        }
        if "watch_right" in facts:
            values["watch_accuracy"] = facts["watch_right"] / facts["watch_n"]
        self._trackers.metrics(facts["epoch"], values)
        self._progress.row(_cells(facts, self._course.epochs))

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
        self._run.keep_seconds(self._clock.laps())
        self._saved = time.monotonic()

    def end(self) -> None:
        """The training is over, and what was trained is written."""
        if self._course is not None and self._history:
            self._draw(self._course)
        names = ("recipe.toml", METRICS, CURVES, f"{RANGE}.svg")
        self._trackers.end([self._run.path / name for name in names if (self._run.path / name).is_file()])

    def _draw(self, course: Course) -> None:
        n_steps = math.ceil(math.ceil(self._n_learn / course.batch_size) / course.accumulate)
        self._run.write(CURVES, curves_svg(self._history, course, n_steps, self._unit))
        self._drawn = time.monotonic()


def _cells(facts: dict[str, Any], n_epochs: int) -> dict[str, str]:
    """An epoch as a row. right %: of the watched photos, with the 95 % interval."""
    part = f", {facts['part']:.0%} of it" if "part" in facts else ""
    cells = {"epoch": f"{facts['epoch']} of {n_epochs}{part}", "loss": f"{facts['loss']:.3f}"}
    if "watch_loss" in facts:
        cells["watch loss"] = f"{facts['watch_loss']:.3f}"
    if "watch_right" in facts:
        right = wilson(facts["watch_right"], facts["watch_n"])
        cells["right %"] = f"{100 * right.value:.1f} ({100 * right.low:.1f}–{100 * right.high:.1f})"
    return cells | {
        "lr": f"{facts['lr']:.1e}",
        "photos/s": f"{facts['images_per_s']:.0f}",
        "seconds": f"{facts['seconds']:.0f}",
    }
