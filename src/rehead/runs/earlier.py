"""An earlier run, taken as the beginning of a new one: its photos with their labels and sides, and its recipe.

Features are found in the store by a photo's digest, so the earlier files need not be there any more; where one has to be
read it is looked for at its old place, by `origins.py`, and is used only if it still holds the same bytes.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rehead import bundle as bundles
from rehead.bundle import Bundle
from rehead.bundle_facts import FACTS
from rehead.data.catalog import Catalog
from rehead.data.columns import Photos
from rehead.data.joining import joined, why_gone
from rehead.data.rows import Photo, Source
from rehead.errors import RecipeError, RunError, WeightsUnavailable, command, counted
from rehead.exporting.prefixes import weights_digest
from rehead.progress import Progress
from rehead.runs.contents import check_bundle
from rehead.runs.origins import PHOTOS, RECIPE, access, full_path, place_of
from rehead.runs.outputs import read_outputs
from rehead.tuning.layers import HEAD
from rehead.tuning.options import option
from rehead.tuning.recipe import Recipe, load, preset_with
from rehead.verdict.metrics import DRAWN

CATALOG = "catalog.csv"
KNOWN_BY = (CATALOG, PHOTOS, RECIPE)
DECIDES_FEATURES = ("backbone", "weights", "backbone_args", "train", "cut", "fit", "quantize")
OF_ONE_JOB = ("limit", "budget_s")  # how far an earlier job went is no wish for the next
N_NAMED = 3


@dataclass(frozen=True)
class Earlier:
    """bundle: what the run made. photos: its own, with full paths. ours: whether their sides were drawn here. read,
    is_gone: of one of them, see `data/joining.py`."""

    run: Path
    bundle: Bundle
    recipe: Recipe
    photos: Sequence[Photo]
    ours: bool
    read: Callable[[Photo], bytes]
    is_gone: Callable[[Photo], bool]

    def recipe_with(self, preset: str | None, settings: dict[str, Any]) -> Recipe:
        """The run's recipe, where a preset's settings, and others before those, go before its own.

        Raises RecipeError when they would need photos that are gone, RunError where the run's weights are not at their place,
        WeightsUnavailable where they cannot be read.
        """
        given, own = preset_with(preset, settings), asdict(self.recipe)
        if given.get("train", own["train"]) != own["train"]:
            own["first"] = None  # which goes before the layers that the run trained
        recipe = Recipe.from_dict({**own, **given})
        wanted = asdict(recipe)
        changed = [name for name in given if wanted[name] != own[name]]
        if "task" in changed:
            raise RecipeError(
                what=f"--task is {own['task']} in the run {self.run}.",
                fix="Leave --task out, or begin a new run with all photos.",
            )
        if "weights" not in given:
            self._check_weights()
        elif self._has(wanted["weights"]):
            changed = [name for name in changed if name != "weights"]
        elif "weights" not in changed:  # others stand at their place
            changed.append("weights")
        if own["train"] != HEAD and "train" not in changed and "cut" in changed:
            changed.remove("cut")  # what is left of photos that are gone is looked for behind it, see `cutting.py`
        if new := [name for name in DECIDES_FEATURES if name in changed]:
            self._check_files(new[0], preset if new[0] not in settings else None)
        return recipe

    def check_dice(self, settings: dict[str, Any], new: Source) -> None:
        """Raises RecipeError where new photos, as those of the run were, are to be drawn, and the settings have other dice."""
        if not self.ours or any(row.side for row in new.rows):
            return
        for name in ("valid_fraction", "seed"):
            own = getattr(self.recipe, name)
            if settings.get(name, own) != own:
                raise RecipeError(
                    what=f"{option(name)} is {own} in the run {self.run}.",
                    why="Its photos keep their sides, and new ones are drawn by the same dice, in the same proportion.",
                    fix=f"Leave {option(name)} out, name held-out photos with --valid DIR, or begin a new run.",
                )

    def joined(self, new: Catalog, progress: Progress) -> Catalog:
        """The photos of the run and new ones as one catalog, with a word about what met."""
        both = joined(new, self.photos, self.ours, self.read, self.is_gone)
        n_earlier, n_new = both.n_earlier + both.n_again, both.n_new - both.n_again
        progress.note(f"{counted(n_earlier, 'photo')} of {self.run} and {counted(n_new, 'new one')}")
        if both.n_again:
            verbs = ("was", "counts") if both.n_again == 1 else ("were", "count")
            progress.note(f"{both.n_again} of those named now {verbs[0]} there before and {verbs[1]} once")
        if both.corrected:
            named = "; ".join(f"{c.path} {c.reason}" for c in both.corrected[:N_NAMED])
            more = "; ..." if len(both.corrected) > N_NAMED else ""
            verb = "has" if len(both.corrected) == 1 else "have"
            progress.note(f"{len(both.corrected)} of them {verb} another label now, which counts: {named}{more}")
        return both.catalog

    def _has(self, weights: str | None) -> bool:
        """Whether these are the weights that the run was made with, wherever they are now. In 8 bits its bundle knows the graph
        alone: then those at their place are, whatever they hold. Raises WeightsUnavailable where they cannot be had."""
        own = self.recipe.weights
        if weights is None or own is None:
            return weights == own
        if self.recipe.quantize != "none" and weights != own:
            return False
        digest = weights_digest(Path(os.path.expanduser(weights)))
        return self.recipe.quantize != "none" or bool(digest == self.bundle.facts["backbone"].get("weights"))

    def _check_weights(self) -> None:
        """Raises RunError where the run's own weights are gone, or others stand at their place; WeightsUnavailable where they
        cannot be read."""
        own = self.recipe.weights
        try:
            if self._has(own):
                return
        except WeightsUnavailable as error:
            if isinstance(error.__cause__, OSError):  # they are there
                raise
            raise RunError(
                what=f"The weights of the run {self.run} are not at their place any more.",
                why=error.what,
                fix="Bring them back, or name where they are now: --weights FILE, of a bundle its folder."
                if self.recipe.quantize == "none"
                else "Bring them back: in 8 bits nothing tells whether others are the same.",
            ) from error
        raise RunError(
            what=f"The weights at {own} are not those that {self.run} was made with.",
            why="They were replaced, and the features that are kept of its photos are of another network.",
            fix="Bring its own back, or name with --weights where they are now, or those to learn all photos on anew.",
        )

    def _check_files(self, setting: str, preset: str | None) -> None:
        """Raises RecipeError where photos are gone, and what is said of an archive or a store that is there and cannot be read.
        preset: what the setting is of, where it was not given itself."""
        if gone := {photo.path: why_gone(self.read, photo) for photo in self.photos if self.is_gone(photo)}:
            said, given = option(setting), option(setting)
            if preset is not None:
                said, given = f"{said} of --recipe {preset}", "--recipe"
            first, why = next(iter(gone.items()))
            raise RecipeError(
                what=f"{said} is another than in the run {self.run}, so its photos have to be read again.",
                why=f"{len(gone)} of {len(self.photos)} cannot be had, such as {first}: it {why}.",
                fix=f"Bring them back to their place, or leave {given} out.",
            )


def read_earlier(folder: str | os.PathLike[str], cache: Path) -> Earlier:
    """The finished run in a folder, or the one that a bundle lies in. cache: where its archives are unpacked.

    Raises BundleError when there is no bundle, and RunError when what a run holds beside it is missing or damaged.
    """
    bundle, run = places(Path(os.path.expanduser(folder)).resolve())
    facts = bundles.read(bundle)
    if missing := [name for name in KNOWN_BY if not (run / name).is_file()]:
        raise RunError(
            what=f"The photos that the bundle {bundle} learned from are not known.",
            why=f"There is no {' and no '.join(missing)} in {run}; the bundle was carried away from its run.",
            fix="Name the run itself, in which it was made.",
        )
    try:
        photos = _photos(run)
        recipe = load(run / RECIPE)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(what=f"The run {run} cannot be read.", why=f"{type(error).__name__}: {error}") from error
    if recipe.limit is not None:
        photos = photos.without(set(range(len(photos))).difference(read_outputs(run).used.tolist()))
    usual = asdict(Recipe())
    chosen = {name: usual[name] for name in OF_ONE_JOB} | {"task": facts.task}
    if recipe.fit == "auto":
        chosen["fit"] = facts.preprocess.fit
    ours = facts.facts["verdict"].get("side") == DRAWN
    return Earlier(run, facts, replace(recipe, **chosen), photos, ours, *access(run, cache))


def knows_photos(run: Path) -> bool:
    """Whether a run says which photos it learned from; the folder around a bundle that was carried away does not."""
    return any((run / name).is_file() for name in KNOWN_BY)


def places(folder: Path) -> tuple[Path, Path]:
    """The bundle and the run."""
    if (folder / FACTS).is_file():
        return folder, folder.parent
    bundle = folder / "bundle"
    if (folder / RECIPE).is_file() and not (bundle / FACTS).is_file():
        if (folder / "verdict.json").is_file():
            check_bundle(folder)
        raise RunError(
            what=f"The run {folder} is not finished.",
            fix=f"Go on with it first: {command('tune', '--resume', folder)}",
        )
    return (bundle, folder) if (bundle / FACTS).is_file() else (folder, folder)


def _photos(run: Path) -> Photos:
    place = place_of(run)
    with (run / CATALOG).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return Photos(
            Photo(
                full_path(place, row["path"]),
                row["label"],
                row["side"],
                bytes.fromhex(row["digest"]),
                row["group"] or None,
            )
            for row in csv.DictReader(file)
        )
