"""An earlier run, taken as the beginning of a new one: its photos with their labels and sides, and its recipe.

Features are found in the store by a photo's digest, so the earlier files need not be there any more; where one has to be
read it is looked for at its old place, and is used only if it still holds the same bytes.
"""

from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rehead import bundle as bundles
from rehead.bundle import Bundle
from rehead.bundle_facts import FACTS
from rehead.data.addresses import is_address
from rehead.data.catalog import Catalog
from rehead.data.columns import Photos
from rehead.data.joining import joined
from rehead.data.reading import checked
from rehead.data.rows import Photo, Source
from rehead.data.sources import open_source
from rehead.errors import PhotoError, RecipeError, ReheadError, RunError, SourceError, WeightsUnavailable, command, counted
from rehead.exporting.prefixes import weights_digest
from rehead.progress import Progress
from rehead.runs.contents import check_bundle
from rehead.runs.outputs import read_outputs
from rehead.runs.resume import Asked
from rehead.tuning.layers import HEAD
from rehead.tuning.options import option
from rehead.tuning.recipe import Recipe, load, preset_with
from rehead.verdict.metrics import DRAWN

CATALOG, PHOTOS, RECIPE = "catalog.csv", "photos.json", "recipe.toml"
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

        Raises RecipeError when they would need photos that are gone, RunError where the run's weights are not at their place.
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
        alone: then those at their place are, whatever they hold. Raises WeightsUnavailable where they are gone."""
        own = self.recipe.weights
        if weights is None or own is None:
            return weights == own
        if self.recipe.quantize != "none" and weights != own:
            return False
        digest = weights_digest(Path(os.path.expanduser(weights)))
        return self.recipe.quantize != "none" or bool(digest == self.bundle.facts["backbone"]["weights"])

    def _check_weights(self) -> None:
        """Raises RunError where the run's own weights are gone, or others stand at their place."""
        own = self.recipe.weights
        try:
            if self._has(own):
                return
        except WeightsUnavailable as error:
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
        """Raises RecipeError where photos are gone. preset: what the setting is of, where it was not given itself."""
        if gone := [photo.path for photo in self.photos if self.is_gone(photo)]:
            said, given = option(setting), option(setting)
            if preset is not None:
                said, given = f"{said} of --recipe {preset}", "--recipe"
            verb = "is" if len(gone) == 1 else "are"
            raise RecipeError(
                what=f"{said} is another than in the run {self.run}, so its photos have to be read again.",
                why=f"{len(gone)} of {len(self.photos)} {verb} not there any more: {', '.join(gone[:N_NAMED])}"
                + (", ..." if len(gone) > N_NAMED else "."),
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
        asked = asked_of(run)
        photos = _photos(run, asked)
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


def asked_of(run: Path) -> Asked:
    """What a run was asked for. Raises OSError, ValueError, TypeError where it does not say."""
    return Asked(**json.loads((run / PHOTOS).read_text(encoding="utf-8")))


def _photos(run: Path, asked: Asked) -> Photos:
    place = _place(run, asked)
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


def place_of(run: Path) -> str:
    """What makes a path of the run's catalog a full one. Raises OSError, ValueError, TypeError where it does not say."""
    return _place(run, asked_of(run))


def full_path(place: str, path: str) -> str:
    """A path of a run's catalog as a full one, by what `place_of` gives; an address is one already."""
    return path if is_address(path) else os.path.join(place, path)


def _place(run: Path, asked: Asked) -> str:
    """What makes a path of the run's catalog a full one: the folder it is relative to, where there is one."""
    return asked.root or asked.source or str(run)


def access(run: Path, cache: Path) -> tuple[Callable[[Photo], bytes], Callable[[Photo], bool]]:
    """The bytes of a photo with its full path, if they are still those it had, and whether it is gone. One in an archive or a
    bucket is not, but cannot be read, where an earlier run is gone that says which. Both raise what a source says that is there
    and cannot be read."""

    archives = _Archives(run, cache)

    def read(photo: Photo) -> bytes:
        if os.path.isfile(photo.path):
            data = Path(photo.path).read_bytes()
        elif photo.path in archives.listed:
            data = archives.listed[photo.path]()
        elif is_gone(photo):
            raise PhotoError(what="is not there any more")
        else:
            raise PhotoError(
                what=f"cannot be found: the run {archives.lost}, which says where it is, is not there any more"
            )
        return checked(data, photo, "in the earlier run")

    def is_gone(photo: Photo) -> bool:
        if os.path.isfile(photo.path) or photo.path in archives.listed:
            return False
        return archives.lost is None or not _is_in_another(photo.path)

    return read, is_gone


@dataclass(frozen=True)
class _Archives:
    """What `_listed` finds, once it is asked for; another process that this is sent to looks by itself. lost: the run that is
    not there any more, from which the first came of those that are."""

    run: Path
    cache: Path

    @functools.cached_property
    def listed(self) -> dict[str, Callable[[], bytes]]:
        return _listed(self.run, self.cache)

    @functools.cached_property
    def lost(self) -> str | None:
        line = [asked.from_run for _, asked in line_of(self.run)]
        return line[-1] if line and line[-1] is not None and not (Path(line[-1]) / PHOTOS).is_file() else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Archives, (self.run, self.cache)


def line_of(run: Path) -> Iterator[tuple[Path, Asked]]:
    """A run and those that it came from, one after the other and each once, with what each was asked for."""
    seen, pending = set[Path](), Path(os.path.realpath(run))
    while pending not in seen:
        seen.add(pending)
        try:
            asked = asked_of(pending)
        except (OSError, ValueError, TypeError):
            return
        yield pending, asked
        if asked.from_run is None:
            return
        pending = Path(os.path.realpath(asked.from_run))


def _listed(run: Path, cache: Path) -> dict[str, Callable[[], bytes]]:
    """What the sources of a run, and of those it came from, hold now: for photos in archives, which have no file."""
    found: dict[str, Callable[[], bytes]] = {}
    for one, asked in line_of(run):
        if asked.source is None or (opened := _opened(one, asked, cache)) is None:
            continue
        place = _place(one, asked)
        found |= {full_path(place, row.path): partial(opened.read, row) for row in opened.rows}
    return found


def _opened(run: Path, asked: Asked, cache: Path) -> Source | None:
    """The source of a run, with those of its held-out sides that are there; None where it is gone, and all that was in it."""
    named = {"valid": asked.valid, "test": asked.test}
    sides = {side: place for side, place in named.items() if place and (is_address(place) or os.path.exists(place))}
    for held_out in (sides, {}) if sides else ({},):
        try:
            return open_source(
                asked.source, layout=asked.layout, cache=cache, max_bad=1.0, task=_task_of(run), **held_out
            )
        except SourceError as error:
            if not _says_it_is_gone(error, is_far=any(map(is_address, (asked.source, *held_out.values())))):
                raise
    return None


def _says_it_is_gone(error: SourceError, *, is_far: bool) -> bool:
    """Whether nothing is there, or nothing that was; an archive or store that cannot be read is. Without a cause a folder says
    that it has other things than photos, and a store (is_far) what it said before."""
    cause = error.__cause__
    return isinstance(cause, (FileNotFoundError, NotADirectoryError)) or (cause is None and not is_far)


def _is_in_another(path: str) -> bool:
    """Whether a photo without a file of its own is in a store, or in a file that is there: an archive, a shard or a table."""
    return is_address(path) or any(map(os.path.isfile, Path(path).parents))


def _task_of(run: Path) -> str:
    """What a run's labels were to be, as photos without a label are some of several labels; "auto" where it does not say."""
    try:
        return load(run / RECIPE).task
    except (OSError, ValueError, ReheadError):
        return "auto"
