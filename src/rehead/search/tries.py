"""What --recipe auto was asked for, and what was tried: kept in tried.json, so that an interrupted search goes on. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rehead.errors import RecipeError, RunError
from rehead.runs.resume import differs
from rehead.tuning.presets import PRESETS
from rehead.tuning.ranges import check_choice
from rehead.tuning.recipe import AUTO, Recipe
from rehead.verdict.intervals import Interval

LADDER = ("quick", "balanced", "thorough")  # presets, from the simplest
BUDGET_S = 600.0  # where none is given
QUICK_SHARE = 0.8  # of the time, at most, goes into the features of the head alone
FILE = "tried.json"


@dataclass(frozen=True, kw_only=True)
class Try:
    """expected_s, seconds: of the forecast, and what it took; None where there was none. right: of the watched photos."""

    name: str
    epochs: int | None = None
    expected_s: float | None = None
    seconds: float | None = None
    right: Interval | None = None
    kept: bool = False
    why: str


@dataclass(frozen=True)
class Search:
    """What was asked for. settings: those of a recipe that go before each preset's. budget_s: for the whole job."""

    settings: dict[str, Any]
    budget_s: float

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Search:
        """Raises RecipeError for settings that leave nothing to find, or that a preset on the ladder refuses."""
        own = {name: value for name, value in settings.items() if name != "budget_s"}
        if "train" in own:
            raise RecipeError(
                what="--recipe auto finds what learns, and --train says it.", fix="Leave one of the two out."
            )
        if own.get("watch") == 0:
            raise RecipeError(what="--recipe auto judges by watched photos, and --watch 0 leaves none.")
        budget_s = Recipe(budget_s=settings.get("budget_s")).budget_s  # raises RecipeError for what is no time
        search = cls(own, BUDGET_S if budget_s is None else budget_s)
        search._check()
        plain = asdict(search.recipe(LADDER[0]))
        return replace(search, settings={name: plain[name] for name in own})

    @classmethod
    def of_run(cls, run: Path) -> Search | None:
        """That of an interrupted run; None where it is a run of one recipe."""
        try:
            facts = json.loads((run / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(facts["settings"], facts["budget_s"])

    def taken_up(self, run: Path, preset: str | None, settings: dict[str, Any], *, force: bool) -> Search:
        """The same, or with force one before whose settings go those that are given.

        Raises RunError where these differ, unless force, and for a preset, which a search finds.
        """
        check_choice("recipe", preset, (None, *PRESETS, AUTO))
        if preset not in (None, AUTO):
            raise RunError(
                what=f"The run {run} tries one recipe after another, and --recipe {preset} names one.",
                fix="Leave --recipe out, or start a new run.",
            )
        first = asdict(self.recipe(LADDER[0]))
        own = {**{name: first[name] for name in self.settings}, "budget_s": self.budget_s}
        return Search.of({**own, **settings}) if differs(run, own, settings, force=force) else self

    def recipe(self, name: str) -> Recipe:
        """A preset's, under the settings."""
        own = {"budget_s": QUICK_SHARE * self.budget_s} if name == LADDER[0] else {}
        return Recipe.from_dict({**PRESETS[name], **own, **self.settings})

    def written(self, tries: Sequence[Try]) -> dict[str, Any]:
        """What tried.json holds: enough for `of_run`, and all that was tried."""
        return {**asdict(self), "tries": [asdict(tried) for tried in tries]}

    def on(self, recipe: Recipe) -> Search:
        """With the backbone of a recipe."""
        return replace(self, settings={**self.settings, "backbone": recipe.backbone, "weights": recipe.weights})

    def _check(self) -> None:
        """Raises RecipeError for settings that a preset on the ladder refuses; where others take them, it names these.

        What one preset would be told to change is no advice, unless all are told so.
        """
        refused = dict[str, RecipeError]()
        for name in LADDER:
            try:
                self.recipe(name)
            except RecipeError as error:
                refused[name] = error
        if not refused:
            return
        name, first = next(iter(refused.items()))
        taken = [name for name in LADDER if name not in refused]
        if not taken and {error.what for error in refused.values()} == {first.what}:
            raise first
        instead = f", or name one recipe that takes it: --recipe {' or '.join(taken)}" if taken else ""
        raise RecipeError(
            what=first.what,
            why=f"--recipe auto tries one recipe after another, {name} among them.",
            fix=f"Leave the setting out{instead}.",
        ) from first
