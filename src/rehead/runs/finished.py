"""A finished run, opened again: its photos under the names it knows them by, its recipe, and what its model gave for them."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from rehead import bundle as bundles
from rehead.bundle import Bundle
from rehead.data.catalog import Catalog
from rehead.data.columns import Photos
from rehead.data.rows import Photo, Skip
from rehead.errors import RunError, command
from rehead.runs.contents import COPIES
from rehead.runs.earlier import CATALOG, places
from rehead.runs.listing import Run, read_run
from rehead.runs.origins import access, asked_of, full_path, place_of
from rehead.runs.outputs import Outputs, read_outputs
from rehead.runs.resume import Asked
from rehead.verdict.metrics import DRAWN


@dataclass(frozen=True)
class Finished:
    """asked: what it was asked for besides its recipe. catalog: all photos of the run, also those that its limit left out.
    outputs: of those that it used."""

    run: Run
    asked: Asked
    bundle: Bundle
    catalog: Catalog
    outputs: Outputs


def read_finished(folder: str | os.PathLike[str], cache: Path) -> Finished:
    """The finished run in a folder, or the one that a bundle lies in. cache: where its archives are unpacked.

    Raises RunError where it is not finished or something of it is missing, BundleError.
    """
    bundle_folder, path = places(Path(os.path.expanduser(folder)))
    run = read_run(path)
    if run.verdict is None:
        go_on = command("tune", "--resume", path)
        raise RunError(what=f"The run {path} is not finished.", fix=f"Go on with it first: {go_on}")
    bundle = bundles.read(bundle_folder)
    try:
        asked, photos, place = asked_of(path), _photos(path / CATALOG), place_of(path)
        copies = _photos(path / COPIES) if (path / COPIES).is_file() else Photos()
        skipped = _skipped(path / "skipped.csv")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(what=f"The run {path} cannot be read.", why=f"{type(error).__name__}: {error}") from error
    bad = tuple(skip for skip in skipped if skip.kind == "broken")
    catalog = replace(
        _catalog(path, run, bundle, photos, place, cache),
        skipped=skipped,
        bad=bad,
        n_rows=len(photos) + len(bad),
        same=tuple(tuple(copies[i] for i in places) for places in copies.digests.same()),
    )
    return Finished(run, asked, bundle, catalog, read_outputs(path))


def _catalog(path: Path, run: Run, bundle: Bundle, photos: Photos, place: str, cache: Path) -> Catalog:
    read, is_gone = access(path, cache)

    def full(photo: Photo) -> Photo:
        return Photo(full_path(place, photo.path), photo.label, photo.side, photo.digest, photo.group)

    assert run.verdict is not None
    return Catalog(
        name=path.name,
        layout="manifest",
        photos=photos,
        classes=bundle.classes,
        read=lambda photo: read(full(photo)),
        ours=run.verdict.side == DRAWN,
        task=bundle.task,
        is_gone=lambda photo: is_gone(full(photo)),
        file=lambda photo: file if os.path.isfile(file := full(photo).path) else None,
    )


def _photos(path: Path) -> Photos:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return Photos(
            Photo(row["path"], row["label"], row["side"], bytes.fromhex(row["digest"]), row["group"] or None)
            for row in csv.DictReader(file)
        )


def _skipped(path: Path) -> tuple[Skip, ...]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            return tuple(Skip(row["path"], row["reason"], cast(Any, row.get("kind", "broken"))) for row in rows)
    except FileNotFoundError:
        return ()
