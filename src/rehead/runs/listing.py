"""The runs in a folder, read back: what each learned, how it did, and whether it is finished."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rehead.errors import RecipeError, RunError
from rehead.runs.contents import is_running
from rehead.tuning.recipe import Recipe, load
from rehead.verdict.judging import AnyVerdict, read_verdict
from rehead.verdict.multilabel import MultilabelVerdict
from rehead.verdict.regression import RegressionVerdict


@dataclass(frozen=True)
class Run:
    """A run on disk. begun: seconds since 1970. verdict, head_note, seconds: None and empty where it is not finished.

    photos: what paths in the verdict are relative to, None where they are full or lead to no file. penalty: that a linear
    head alone was solved with.
    machines: of a cluster that the job ran on, in words.
    is_running: whether a job is writing it now. can_resume: whether it was interrupted, so that `--resume` takes it up.
    """

    path: Path
    recipe: Recipe
    begun: float
    verdict: AnyVerdict | None
    head_note: str
    seconds: dict[str, float]
    photos: str | None
    is_running: bool
    can_resume: bool
    penalty: float | None = None
    machines: str | None = None

    def settings(self) -> dict[str, Any]:
        """The recipe's settings that are not the defaults."""
        usual = asdict(Recipe())
        return {f.name: value for f in fields(Recipe) if (value := getattr(self.recipe, f.name)) != usual[f.name]}

    @property
    def score(self) -> dict[str, Any] | None:
        """The verdict's first number with its interval, and under "metric" what it is; None where there is none."""
        metric, found = "accuracy", getattr(self.verdict, "top1", None)
        if isinstance(self.verdict, MultilabelVerdict):
            metric, found = "mAP", self.verdict.mean_ap
        elif isinstance(self.verdict, RegressionVerdict):
            metric, found = "mean error", self.verdict.mae
        return None if found is None else {"metric": metric, **asdict(found)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {"run": str(self.path), "begun": self.begun, "score": self.score, "seconds": self.seconds}
        about["task"] = self.recipe.task if self.verdict is None else self.verdict.task
        return {
            **about,
            "head": self.head_note or None,
            "penalty": self.penalty,
            "is_running": self.is_running,
            "can_resume": self.can_resume,
            "machines": self.machines,
            "recipe": asdict(self.recipe),
        }


def list_runs(folder: Path) -> list[Run]:
    """The runs in a folder, the latest first; what is no run is passed over."""
    runs = []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            runs.append(read_run(path))
        except RunError:
            continue
    return sorted(runs, key=lambda run: -run.begun)


def read_run(path: Path) -> Run:
    """The run in a folder. Raises RunError when there is none or it cannot be read."""
    recipe_path, verdict_path = path / "recipe.toml", path / "verdict.json"
    try:
        recipe, begun = load(recipe_path), recipe_path.stat().st_mtime
        if not verdict_path.is_file():
            running = is_running(path)
            return Run(
                path, recipe, begun, None, "", {}, None, running, not running and (path / "photos.json").is_file()
            )
        verdict = read_verdict(json.loads(verdict_path.read_text(encoding="utf-8")))
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        head, seconds, photos = facts["head"], facts["seconds"], _photos(path)
        return Run(
            path,
            recipe,
            begun,
            verdict,
            head,
            seconds,
            photos,
            is_running=False,
            can_resume=False,
            penalty=facts.get("penalty"),
            machines=facts.get("machines"),
        )
    except RecipeError as error:
        raise RunError(
            what=f"The recipe of the run {path} cannot be read.",
            why=f"{error.what} {error.why}".rstrip(),
            fix=error.fix,
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            what=f"{path} is no run of rehead." if not recipe_path.is_file() else f"The run {path} cannot be read.",
            why="" if isinstance(error, FileNotFoundError) else str(error),
            fix="`rehead runs` lists those in ./runs.",
        ) from error


def _photos(path: Path) -> str | None:
    try:
        asked = json.loads((path / "photos.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = asked.get("root") or asked.get("source")
    return found if isinstance(found, str) else None
