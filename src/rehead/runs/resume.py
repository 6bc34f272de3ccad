"""A run that was interrupted, taken up again: by the same recipe on the same photos, or it says what changed."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rehead.data.addresses import is_address
from rehead.data.catalog import Catalog, as_csv
from rehead.data.rows import first_few, quoted
from rehead.data.sources import OF_FOLDERS
from rehead.data.targets import classes_of
from rehead.errors import RunError, SourceError, command
from rehead.runs.contents import can_go_on
from rehead.runs.outputs import FILE as OUTPUTS
from rehead.tuning.options import option
from rehead.tuning.recipe import Recipe, load, preset_with


@dataclass(frozen=True)
class Asked:
    """What a run was asked for besides its recipe: the photos; source is None where they were no files.

    root: the folder that their paths are relative to, None where they have no files of their own. from_run: the earlier
    run whose photos are learned with them. report, with_neighbours: as in `run.tune`. objects: which of valid and test were
    handed over in Python as no files. cache: the folder that features are kept in, None for the usual one. features: as in
    `run.tune`. settled: by name, settings that the job itself decided, as they were asked for.
    """

    source: Any
    layout: str
    valid: Any
    test: Any
    root: str | None = None
    from_run: str | None = None
    report: bool = True
    with_neighbours: bool = False
    objects: Sequence[str] = ()
    cache: str | None = None
    features: str | None = None
    settled: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, source: object, layout: str, valid: object | None, test: object | None, from_run: object | None = None
    ) -> Asked:
        """With full paths, so that the run can be taken up from any folder."""
        return cls(None, layout, None, None).with_given(source, layout, valid, test, from_run)

    def with_given(
        self, source: object | None, layout: str, valid: object | None, test: object | None, from_run: object | None
    ) -> Asked:
        """The same, where what is given takes the place of its own. layout: "auto" is none, but of what is no folder."""
        given = {"source": source, "valid": valid, "test": test, "from_run": from_run}
        places: dict[str, Any] = {name: _full(place) for name, place in given.items() if place is not None}
        sides = ("valid", "test")
        objects = [name for name in sides if (places[name] is None if name in places else name in self.objects)]
        is_own = layout == "auto" and (
            source is None or (self.layout in OF_FOLDERS and os.path.isdir(places["source"] or ""))
        )
        return replace(self, **places, layout=self.layout if is_own else layout, objects=objects)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def others(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings without those that were asked for at first, and that the job then decided."""
        return {name: value for name, value in settings.items() if self.settled.get(name, ...) != value}


def taken_up(run: Path, given: Mapping[str, object | None]) -> tuple[Recipe, Asked]:
    """The recipe and the photos of an interrupted run. Raises RunError when there is none, or no photos where its own were, and
    SourceError where these were no files.

    given: by source, valid and test the photos that are given in the place of its own.
    """
    try:
        recipe = load(run / "recipe.toml")
        asked = Asked(**json.loads((run / "photos.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(what=f"{run} is no run that can be taken up.", why=str(error)) from error
    for name, photos in given.items():
        if photos is None:
            _check_own(run, asked, name)
    return recipe, asked


def check_earlier(run: Path, own: str | None, given: object) -> None:
    """Raises RunError where a run that is taken up came from none, or the one that it came from is not there any more."""
    if own is None and given is not None:
        raise RunError(
            what=f"The run {run} came from no other.",
            fix="Leave --from out, or begin a new run with it, without --resume.",
        )
    if own is not None and given is None and not os.path.exists(own):
        raise RunError(
            what=f"There is no folder {own}.",
            why=f"The run {run} learns the photos of the run that was there.",
            fix="Name where that is now: --from DIR",
        )


def recipe_of(run: Path, recipe: Recipe, preset: str | None, settings: dict[str, Any], *, force: bool) -> Recipe:
    """The run's recipe, before whose settings go those that are given. Raises RunError where these differ, unless force."""
    given, own = preset_with(preset, settings), asdict(recipe)
    return Recipe.from_dict({**own, **given}) if differs(run, own, given, force=force) else recipe


def differs(run: Path, own: Mapping[str, Any], given: Mapping[str, Any], *, force: bool) -> bool:
    """Whether settings that are given are others than the run's own. Raises RunError where they are, unless force."""
    changed = [_changed(name, own.get(name), value) for name, value in given.items() if own.get(name) != value]
    if changed and not force:
        raise RunError(
            what=f"The run {run} has another recipe.",
            why="; ".join(changed) + ".",
            fix="Leave those options out, start a new run, or go on all the same with --force.",
        )
    return bool(changed)


def check_photos(run: Path, catalog: Catalog, *, force: bool = False) -> bool:
    """Whether photos came, went, changed their label or side since the run began. Raises RunError where they did, unless force;
    and always where layers have learned other classes, or from photos that would be held out."""
    try:
        with (run / "catalog.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            if all(file.read(len(some)) == some for some in as_csv(catalog.photos)) and not file.read(1):
                return False
            file.seek(0)
            before = {row["digest"]: (row["label"], row["side"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return False
    now = {photo.digest.hex(): (photo.label, photo.side) for photo in catalog.photos}
    both = before.keys() & now.keys()
    if catalog.ours and not force and (run / OUTPUTS).is_file():
        # It was interrupted at its very end, and wrote as learned from what near copies took to the training side: by the same
        # dice on the same photos they will again. Forced, either may be others, and what was learned from would be held out.
        now |= {digest: before[digest] for digest in both if before[digest] == (now[digest][0], "train")}
    classes = classes_of((label for label, _ in before.values()), catalog.task)
    if classes != catalog.classes and can_go_on(run):
        raise RunError(
            what=f"The run {run} has learned other classes than these photos have.",
            why=f"Its own are {first_few([*map(quoted, classes)])}; theirs are {first_few([*map(quoted, catalog.classes)])}.",
            fix="Start a new run.",
        )
    n_learned = sum(before[digest][1] == "train" != now[digest][1] for digest in both) if can_go_on(run) else 0
    if n_learned:
        raise held_out_too(run, n_learned)
    counts = {
        "are new": len(now.keys() - both),
        "are gone": len(before.keys() - both),
        "have another label or side": sum(before[digest] != now[digest] for digest in both),
    }
    if any(counts.values()) and not force:
        raise RunError(
            what=f"The photos are not those that the run {run} began with.",
            why=", ".join(f"{count} {what}" for what, count in counts.items() if count) + ".",
            fix="Start a new run (features that are there are used), or go on all the same with --force.",
        )
    return any(counts.values())


def held_out_too(run: Path, n: int) -> RunError:
    """What is said of a run that would hold out photos that it has learned from."""
    return RunError(
        what=f"Of the photos to hold out, the run {run} has learned from {n}.",
        why="On photos that it learned from a model is right more often than on new ones.",
        fix="Start a new run; features that are there are used.",
    )


def _check_own(run: Path, asked: Asked, name: str) -> None:
    """Raises SourceError, RunError where a run's own photos, its source or of a side, cannot be those that it goes on with."""
    own, side = getattr(asked, name), "" if name == "source" else name
    if name in asked.objects or (own is None and not side):
        raise SourceError(
            what=f"The {side} photos of {run} were no files." if side else f"The photos of {run} were no files.",
            fix=f"Pass them again beside resume={f', as {side}=' * bool(side)}.",
        )
    if own is not None and not is_address(own) and not is_something_at(own):
        named = f"--{side} DIR" if side else command("tune", "DIR", "--resume", run)
        raise RunError(
            what=f"There is nothing at {own} any more.",
            why=f"The run {run} {'holds out' if side else 'learns from'} the photos that were there.",
            fix=f"Name where they are now: {named}",
        )


def is_something_at(place: str) -> bool:
    """Whether something is there, also where it may not be looked at."""
    try:
        os.stat(place)
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _changed(name: str, own: Any, given: Any) -> str:
    """'--budget is 600s, not 1800s'."""
    if own is None:
        return f"{option(name)} was not given at first"
    told = [f"{value:g}s" if name.endswith("_s") and value is not None else repr(value) for value in (own, given)]
    return f"{option(name)} is {told[0]}, not {told[1]}"


def _full(source: object) -> str | None:
    if is_address(source):
        return str(source)
    return os.path.abspath(os.path.expanduser(source)) if isinstance(source, (str, os.PathLike)) else None
