"""A new manifest of photos and an edited plan. No photo is changed, moved or lost: what a plan does not name stays as it is."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rehead.auditing.plan import Line, read_plan
from rehead.bundle_facts import Task
from rehead.csv_rows import csv_writer
from rehead.data.addresses import split
from rehead.data.catalog import Catalog
from rehead.data.room import check_writable
from rehead.data.rows import Photo, Skip, Source, first_few, label_of, quoted
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.data.targets import SEPARATOR, label_for, task_of
from rehead.data.web import WEB
from rehead.durable import write_asked
from rehead.errors import RunError, SourceError, counted
from rehead.features.cache import cache_folder
from rehead.progress import Progress, Silent
from rehead.tuning.recipe import Recipe


@dataclass(frozen=True)
class Applied:
    """What was written. n: photos in the manifest. skipped: lines of the plan that were not followed, and why. new_labels:
    those that no photo had before. task: what the labels are, where a manifest of them would be taken for another; else None.
    """

    manifest: Path
    n: int
    n_removed: int
    n_relabelled: int
    skipped: tuple[Skip, ...]
    new_labels: tuple[str, ...]
    task: Task | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "manifest": str(self.manifest)}


def apply_plan(
    source: object,
    plan: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    layout: str = "auto",
    valid: object | None = None,
    test: object | None = None,
    task: str = "auto",
    cache: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Applied:
    """Writes a manifest path,label,split,group of the source's photos as the plan has them; `rehead tune` takes it. Photos in a
    bucket are named by their addresses.

    task: as in `rehead.tune`.
    out: by default <photos>-audited.csv in the current folder. A file that is there is replaced only with force. Sides are
    those that the source gives; where it gives none they stay to be drawn, which gives the same ones again.
    Raises SourceError where the plan or the photos cannot be used, RunError where the file cannot be written, RecipeError.
    """
    Recipe(task=task)  # raises RecipeError for what is no task
    lines = read_plan(Path(plan))
    place, progress = cache_folder(cache), progress or Silent()
    check_writable(place)
    opened = open_source(
        source, layout=layout, valid=valid, test=test, task=task, cache=place, max_bad=1.0, progress=progress
    )
    target = check_free(Path(out) if out is not None else Path(f"{opened.name}-audited.csv"), "out", force)
    _check_named(opened)
    catalog = scan(opened, seed=0, valid_fraction=0.2, task=task, progress=progress, cache=place, is_learned=False)
    photos = {photo.path: photo for photo in (*catalog.photos, *(p for group in catalog.same for p in group))}
    order = {row.path: n for n, row in enumerate(opened.rows)}
    photos = dict(sorted(photos.items(), key=lambda item: order[item[0]]))
    changed, skipped = _followed(photos, lines, catalog)
    if not changed:
        raise SourceError(
            what=f"{plan} leaves none of {counted(len(photos), 'photo')}.",
            fix="Leave some of them: change their action to keep.",
        )
    known, labels = ({photo.label for photo in some.values()} for some in (photos, changed))
    write_asked(target, _manifest(list(changed.values()), catalog, opened, target))
    return Applied(
        manifest=target,
        n=len(changed),
        n_removed=len(photos) - len(changed),
        n_relabelled=sum(photo.label != photos[path].label for path, photo in changed.items()),
        skipped=tuple(skipped),
        new_labels=tuple(sorted(labels - known)),
        task=catalog.task if task_of(labels, "manifest") != catalog.task else None,
    )


def check_free(path: Path, option: str, force: bool) -> Path:
    """The path, as one that may be written. Raises RunError for what is no .csv, and what is there already, unless force."""
    if path.suffix.lower() != ".csv":
        raise RunError(
            what=f"--{option} {path} does not end in .csv.",
            why="So that no photo is ever written over.",
            fix=f"For example: --{option} {path.stem or 'photos'}.csv",
        )
    if os.path.lexists(path) and not force:
        raise RunError(
            what=f"{path} is there already.", fix=f"Name another file with --{option}, or replace it: --force"
        )
    return path


def _check_named(source: Source) -> None:
    """Raises SourceError where a manifest cannot name each of these photos."""
    apart = [row for row in source.rows if source.within(row) or not (source.file(row) or _address(source.uri(row)))]
    if not apart:
        return
    within, why, fix = source.within(apart[0]), "", "Write them into files, and name the folder that holds these."
    if within == "archive":
        fix = "Unpack the archive into a folder, and name that."
    elif within == "shard":
        fix = "Write the photos of the shards into a folder for each class, and name the one that holds these."
    elif source.uri(apart[0]):
        why = "The address of their folder has options behind a question mark, which in a table is part of a photo's name."
        fix = "Leave them out, and set the region or endpoint by AWS_DEFAULT_REGION, AWS_ENDPOINT_URL or a profile."
    what = f"{first_few([row.path for row in apart], 1)} cannot be named in a manifest."
    raise SourceError(what=what, why=why, fix=fix)


def _followed(photos: dict[str, Photo], lines: Sequence[Line], catalog: Catalog) -> tuple[dict[str, Photo], list[Skip]]:
    """The photos as the plan has them, and what of it cannot be followed any more."""
    changed, skipped = dict(photos), []
    away = {skip.path: skip.reason for skip in catalog.skipped}
    path_by_file = {os.path.realpath(file): path for path, photo in photos.items() if (file := catalog.file(photo))}
    for line in lines:
        path = line.path if line.path in photos else path_by_file.get(os.path.realpath(line.path), line.path)
        photo = photos.get(path)
        if photo is None:
            if line.action != "remove" or line.path not in away:
                skipped.append(Skip(line.path, away.get(line.path, "is not among these photos")))
        elif line.label and line.label != photo.label:
            skipped.append(Skip(line.path, f"is labelled {photo.label} now, not {line.label}: it stays as it is"))
        elif line.action == "remove":
            changed.pop(path, None)
        elif line.action == "relabel":
            try:
                changed[path] = replace(photo, label=_new_label(line.new_label, catalog))
            except ValueError as error:
                skipped.append(Skip(line.path, f"in the plan {error}: it stays as it is"))
    return changed, skipped


def _new_label(text: str, catalog: Catalog) -> str:
    """The label as the photos have theirs. Raises ValueError for one of another kind, as `label_for` does."""
    if catalog.task == "classification" and SEPARATOR in text and text not in catalog.classes:
        raise ValueError(f"has the label {quoted(text)}, which is several")
    return label_for(catalog.task, label_of(text))


def _manifest(photos: Sequence[Photo], catalog: Catalog, source: Source, target: Path) -> str:
    """The manifest as text; paths below its folder are relative to it, so that both may move together."""
    folder = Path(os.path.realpath(target.parent))
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(["path", "label", "split", "group"])
    for photo in photos:
        path = _path(source.file(photo), folder) or source.uri(photo)
        writer.writerow([path, photo.label, "" if catalog.ours else photo.side, photo.group or ""])
    return text.getvalue()


def _path(file: str | None, folder: Path) -> str | None:
    """A file as a manifest in this folder names it."""
    if file is None:
        return None
    near = os.path.relpath(os.path.realpath(os.path.dirname(file)), folder)
    is_apart = near.startswith("..") or os.path.isabs(near)
    path = file if is_apart else os.path.normpath(os.path.join(near, os.path.basename(file)))
    return path.replace(os.sep, "/")


def _address(uri: str | None) -> str | None:
    """An address as a manifest has it: none with options, but on the web."""
    return None if uri is None or (split(uri).query and split(uri).scheme.lower() not in WEB) else uri
