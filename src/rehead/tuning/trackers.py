"""A training followed by other programs: TensorBoard and MLflow, behind one small protocol. No torch on import.

By default their logs are in the run's folder. One that fails is let go with a word; the training goes on.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rehead.errors import MissingExtra, RecipeError, nearest


class Tracker(Protocol):
    """Laws: values that were told can be read back by the tracker's own library, at their steps; begun again in the same
    run, what was told before stays, and a step that is told again counts as it was told last; nothing is left open after
    `end`."""

    def begin(self, recipe: Mapping[str, Any], first: int) -> None:
        """A training begins, or goes on: its settings, and the number of its first epoch from here on."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """What an epoch gave, by names."""

    def end(self, files: Sequence[Path]) -> None:
        """The training is over, and has left these files."""


class TensorBoard:
    """Event files in the run's folder `tensorboard`. See them with: tensorboard --logdir runs/"""

    def __init__(self, run: Path) -> None:
        self._folder = run / "tensorboard"
        self._writer: Any = None

    def begin(self, recipe: Mapping[str, Any], first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=first)
        lines = [f"| {name} | {value} |" for name, value in recipe.items()]
        self._writer.add_text("recipe", "\n".join(["| setting | value |", "| --- | --- |", *lines]), first)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, files: Sequence[Path]) -> None:
        del files  # they lie beside its own
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """A run of the experiment "rehead": in the run's folder `mlflow`, or where MLFLOW_TRACKING_URI says, with the files."""

    def __init__(self, run: Path) -> None:
        self._run, self._server = run.resolve(), os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = None
        self._id = ""

    def begin(self, recipe: Mapping[str, Any], first: int) -> None:
        del first  # a value that is told again at a step stands behind the one before, and the last one counts
        with _environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_ALLOW_FILE_STORE="true"):
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self._server or (self._run / "mlflow").as_uri())
        found = self._client.get_experiment_by_name("rehead")
        experiment = found.experiment_id if found else self._client.create_experiment("rehead")
        before = self._client.search_runs([experiment], f"tags.rehead_run = '{self._tag()}'")
        if before:
            self._id = before[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        created = self._client.create_run(experiment, run_name=self._run.name, tags={"rehead_run": self._tag()})
        self._id = created.info.run_id
        for name, value in recipe.items():
            self._client.log_param(self._id, name, value)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def end(self, files: Sequence[Path]) -> None:
        if self._client is None:
            return
        for file in files if self._server else ():  # else they lie beside its own
            self._client.log_artifact(self._id, str(file))
        self._client.set_terminated(self._id)

    def _tag(self) -> str:
        return str(self._run).replace("'", " ")


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def chosen_trackers(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names, each once, of libraries that are installed. Raises RecipeError for another name, MissingExtra."""
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in TRACKERS:
            why = f"One of: {', '.join(TRACKERS)}."
            raise RecipeError(what=f"--track cannot be {name!r}.", why=why, fix=nearest(name, TRACKERS))
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, name, f"--track {name}")
    return tuple(dict.fromkeys(names))


class Trackers:
    """Several as one. The first failure of each is told, once, and ends it. note: told in words."""

    def __init__(self, names: Sequence[str], run: Path, note: Callable[[str], None]) -> None:
        self._note = note
        self._by_name = {name: TRACKERS[name](run) for name in names}

    def begin(self, recipe: Mapping[str, Any], first: int) -> None:
        self._each(lambda tracker: tracker.begin(recipe, first))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.metrics(step, values))

    def end(self, files: Sequence[Path]) -> None:
        self._each(lambda tracker: tracker.end(files))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._by_name.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever another program does, the training goes on
                del self._by_name[name]
                self._note(f"{name} is told nothing more: {type(error).__name__}: {error}")


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Within it, variables that are not set are: a local folder is wanted, and nothing is to be told to its makers."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
