"""A bundle in another form: made, measured on photos held out, and only then put into the bundle. `rehead export`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead import bundle as bundles
from rehead.ambient import own_settings
from rehead.bundle import Bundle, Variant
from rehead.data.rows import Skip
from rehead.durable import FULL, replaced_folder, write_text
from rehead.errors import (
    BundleError,
    DiskFull,
    RecipeError,
    SourceError,
    UnjudgedVariant,
    WorseVariant,
    counted,
    nearest,
)
from rehead.features.bad import check_bad
from rehead.predict import Model
from rehead.prediction import Prediction
from rehead.progress import Progress, Silent
from rehead.runs.earlier import knows_photos
from rehead.runs.learned import learned_notes
from rehead.tuning.recipe import Recipe
from rehead.variants.forms import Make
from rehead.variants.int8 import N_CALIBRATION, to_int8
from rehead.variants.ir import to_openvino
from rehead.variants.measured import Figures, Measured, compared, rates
from rehead.variants.photos import Photos, calibration_photos, photos_of, prepared
from rehead.variants.pt2 import to_torch

N_TIMED = 64  # photos
FIGURES = "measured.json"
FORMS: dict[str, tuple[str, Make]] = {
    "onnx-int8": ("int8", to_int8),
    "openvino": ("openvino", to_openvino),
    "torch": ("torch", to_torch),
}
NO_TFLITE = (
    "Its converters do not install beside what rehead needs: litert-torch asks for a PyTorch before 2.15, onnx2tf for "
    "NumPy 1 and one release of ONNX Runtime."
)


@dataclass(frozen=True)
class Exported:
    """A form that was handed over. variant: its name in the bundle. folder: where its files are, the bundle or another.
    skipped: photos that could not be read. seconds: in all."""

    bundle: Path
    variant: str
    folder: Path
    files: tuple[Path, ...]
    measured: Measured
    skipped: tuple[Skip, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "bundle": str(self.bundle),
            "variant": self.variant,
            "files": [str(path) for path in self.files],
            "measured": self.measured.to_dict(),
            "skipped": [skip.to_dict() for skip in self.skipped],
            "seconds": {"total": self.seconds},
        }


@own_settings()
def export(
    bundle: str | os.PathLike[str],
    to: str,
    *,
    photos: object | None = None,
    layout: str = "auto",
    force: bool = False,
    out: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    max_bad: float = 0.2,
    progress: Progress | None = None,
) -> Exported:
    """The bundle's model in the form `to`, a key of FORMS, as a variant in the bundle, or in the new folder `out`.

    photos: labelled photos, as for `rehead.tune`; left out, those of the run that the bundle lies in. force: hands it over
    even where it is more than a point worse, or its score is not defined on these photos.
    Raises WorseVariant or UnjudgedVariant, which have the figures; RecipeError, BundleError, RunError, SourceError,
    MissingExtra, DiskFull.
    """
    begun, progress = time.monotonic(), progress or Silent()
    Recipe(max_bad=max_bad)  # raises RecipeError for what is no share
    name, make = _form(to)
    whole = bundles.read(Path(bundle))
    _check_place(whole, None if out is None else Path(out))
    shown = photos_of(whole, photos, layout, cache, progress, max_bad)
    notes = _notes(whole, shown)
    for note in notes:
        progress.note(note)

    def calibration() -> NDArray[np.uint8]:
        pixels = calibration_photos(shown, whole.preprocess, N_CALIBRATION, max_bad, progress)
        progress.phase("Calibrating")
        return pixels

    beside = next(folder for folder in Path(out or whole.folder).resolve().parents if folder.is_dir())
    with _room_for(whole, out), tempfile.TemporaryDirectory(prefix=".rehead-export-", dir=beside) as place:
        progress.phase(f"Converting to {to}")
        made = make(whole, Path(place), calibration)
        trial = replace(whole, variants={name: Variant(name, made.files, {})}, lost={})
        measured, skipped = _measured(trial, name, shown, max_bad, progress)
        measured = replace(measured, settings=made.settings, notes=notes)
        if measured.difference is None and not force:
            raise UnjudgedVariant(to, measured)
        if measured.is_worse and not force:
            raise WorseVariant(to, measured)
        progress.phase("Writing")
        folder = _handed_over(whole, name, made.files, measured, None if out is None else Path(out))
    files = tuple(folder / path.name for path in made.files)
    return Exported(whole.folder, name, folder, files, measured, skipped, round(time.monotonic() - begun, 3))


def _notes(bundle: Bundle, photos: Photos) -> tuple[str, ...]:
    """What the bundle learned from of the photos that judge it, as far as that is known."""
    notes = learned_notes(bundle.folder, [photos.catalog.photos[i] for i in photos.held_out], bundle.task)
    if not knows_photos(bundle.folder.resolve().parent):
        return (*notes, "The bundle lies apart from its run: whether it learned from these photos is not known.")
    return (*notes,)


def _form(to: str) -> tuple[str, Make]:
    if to == "tflite":
        raise RecipeError(
            what="There is no export to TFLite.",
            why=NO_TFLITE,
            fix="For a phone take --to onnx-int8: ONNX Runtime runs on Android and iOS.",
        )
    if to not in FORMS:
        raise RecipeError(
            what=f"--to cannot be {to!r}.", why=f"One of: {', '.join(FORMS)}.", fix=nearest(to, [*FORMS, "tflite"])
        )
    return FORMS[to]


def _check_place(bundle: Bundle, out: Path | None) -> None:
    """Raises BundleError or RecipeError, before minutes are spent, where nothing could be handed over."""
    if out is None:
        parent = bundle.folder.resolve().parent
        if not os.access(parent, os.W_OK | os.X_OK):
            raise BundleError(
                what=f"Nothing can be added to the bundle {bundle.folder}.",
                why=f"You may not write to {parent}.",
                fix="Copy the bundle, or write the export elsewhere: --out DIR",
            )
        return
    if out.resolve().is_relative_to(bundle.folder.resolve()):
        raise RecipeError(
            what=f"{out} lies in the bundle: an export cannot be written there.",
            why="A bundle holds the forms that its rehead.json names, and this one would be named nowhere.",
            fix="Leave --out out to add the form to the bundle, or name a folder elsewhere.",
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(
            what=f"{out} is there already.",
            why="An export never replaces what is there.",
            fix="Name a new folder: --out DIR",
        )


def _measured(
    trial: Bundle, name: str, photos: Photos, max_bad: float, progress: Progress
) -> tuple[Measured, tuple[Skip, ...]]:
    """Both forms on the photos that are held out."""
    models = Model(trial), Model(trial, variant=name)
    said: tuple[list[Prediction], list[Prediction]] = ([], [])
    rows: list[int] = []
    bad: list[Skip] = []
    timed: list[NDArray[np.uint8]] = []
    progress.phase("Checking on photos held out", len(photos.held_out))
    for found, pixels, skipped in prepared(photos.catalog, photos.held_out, trial.preprocess):
        progress.advance(len(found) + len(skipped))
        bad += skipped
        rows += found
        for model, own in zip(models, said, strict=True):
            own += model.predict_pixels(pixels) if found else []
        if len(timed) * len(pixels) < N_TIMED and found:
            timed.append(pixels)
    check_bad(bad, len(photos.held_out), max_bad)
    if not rows:
        raise SourceError(
            what=f"None of {counted(len(bad), 'held-out photo')} can be read: there is nothing to judge the export with.",
            fix="Name labelled photos that can be read: --photos DIR",
        )
    facts = compared(trial.task, said, trial.classes, photos.catalog.labels(rows))
    progress.phase("Timing both, in turns")
    speeds = rates(models, np.concatenate(timed))
    sizes = trial.model.stat().st_size, sum(path.stat().st_size for path in trial.variants[name].files)
    paired = {key: facts.pop(key) for key in ("score", "mae", "unsure", "unfamiliar")}
    figures = [Figures(**{k: v[i] for k, v in paired.items()}, size_bytes=sizes[i], photos_per_s=speeds[i])
               for i in range(2)]  # fmt: skip
    return Measured(**facts, side=photos.side, original=figures[0], variant=figures[1], cores=models[0].workers), tuple(
        bad
    )


@contextlib.contextmanager
def _room_for(bundle: Bundle, out: str | os.PathLike[str] | None) -> Iterator[None]:
    """What a disk says, in words: what was there before is whole."""
    try:
        yield
    except OSError as error:
        place = bundle.folder if out is None else out
        if error.errno in FULL:
            raise DiskFull(
                what=f"The disk is full: the export cannot be written to {place}.",
                why="The bundle is as it was.",
                fix="Make room, or name a folder on another disk: --out DIR",
            ) from error
        raise BundleError(
            what=f"The export cannot be written to {place}.",
            why=f"{error.strerror or error}. The bundle is as it was.",
            fix="Name a folder that you may write to: --out DIR",
        ) from error


def _handed_over(bundle: Bundle, name: str, files: tuple[Path, ...], measured: Measured, out: Path | None) -> Path:
    """The folder that the files are in now; another than the bundle's holds the figures besides, as FIGURES."""
    about: Mapping[str, Any] = measured.to_dict()
    if out is None:
        return bundles.add_variant(bundle, name, {path.name: path for path in files}, about).folder
    with replaced_folder(out) as temporary:
        for path in files:
            shutil.copyfile(path, temporary / path.name)
        write_text(temporary / FIGURES, json.dumps(about, indent=1) + "\n")
    return out
