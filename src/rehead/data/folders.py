"""A folder on a disk: listed, and read as what it is: a manifest's, shards', or photos in a layout of `layouts.py`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rehead.data.columns import Texts
from rehead.data.corrections import check_one_model
from rehead.data.layouts import PICTURE_NAMES, forced, recognised, without_runs
from rehead.data.manifests import READ_PARTS, are_parts, find_manifest, has_parts, read_manifest, read_parts
from rehead.data.rows import Request, Skip, Source, file_below, reader_below, short_name
from rehead.data.shards import are_shards, is_shard, read_shards
from rehead.data.walk import files_below
from rehead.errors import NothingThere, ReheadError, SourceError, counted

LISTED_AT_ONCE = 1000  # files between two steps of the progress display
EXAMPLES = (
    "Layouts: folders photos/cat/1.jpg; split photos/train/cat/1.jpg with photos/valid/cat/2.jpg; "
    "flat photos/cat.1.jpg; a CSV or Parquet manifest with path,label; "
    "WebDataset shards photos/train-0000.tar. --layout forces one."
)


def read_folder(source: str | Path, request: Request, layout: str = "auto") -> Source:
    """The labelled files below a folder, in the order of their paths.

    layout: "auto", or one of "folders", "split", "flat", "manifest", "webdataset". Raises SourceError when nothing fits.
    """
    folder = Path(source)
    skipped: list[Skip] = []
    paths = _listed(folder, skipped, request)
    shown = request.shown or str(folder)
    if not paths:
        raise no_files(shown, skipped)
    check_one_model(folder, shown)
    refused = list[ReheadError]()
    if layout in ("auto", "manifest"):
        manifest, refused = find_manifest(folder, paths, is_asked=layout == "manifest")
        if manifest:
            found = replace(read_manifest(folder / manifest, request), name=short_name(folder.resolve().name))
            _tell_left_out(found, folder, manifest, paths, request)
            tell_refused(refused, request)
            return found
        if are_parts(paths) or (layout == "manifest" and has_parts(paths)):
            return read_parts(folder, paths, request)
        if layout == "manifest":
            raise no_manifest(shown, refused)
    if layout == "webdataset" or (layout == "auto" and are_shards(paths)):
        found = read_shards(folder, request, dict.fromkeys(paths))
        tell_refused(refused, request)
        return replace(found, skipped=[*skipped, *found.skipped])
    name, reading = recognised(paths, request.classes) if layout == "auto" else (layout, forced(layout, paths))
    if not reading.rows:
        raise unrecognised(shown, paths, layout, refused)
    tell_refused(refused, request)
    if n := sum(map(is_shard, paths)):
        request.progress.note(
            f"{counted(n, 'tar file')} beside the photos {'is' if n == 1 else 'are'} no photos, and left out"
        )
    return Source(
        name=short_name(folder.resolve().name),
        layout=name,
        rows=reading.rows,
        read=reader_below(str(folder.absolute())),
        skipped=[*skipped, *reading.skipped],
        root=folder.absolute(),
        file=file_below(str(folder)),
        is_named=lambda _: False,
    )


def _listed(folder: Path, skipped: list[Skip], request: Request) -> Texts:
    request.progress.phase("Listing", None, "files")
    paths = Texts()
    for path in files_below(folder, skipped, [path for path in request.besides if isinstance(path, Path)]):
        paths.append(path)
        if len(paths) % LISTED_AT_ONCE == 0:
            request.progress.advance(LISTED_AT_ONCE)
    return without_runs(paths, skipped)


def _tell_left_out(found: Source, folder: Path, manifest: str, paths: Iterable[str], request: Request) -> None:
    """A word on pictures of a folder that the table in it does not name."""
    beside = os.path.dirname(manifest)

    def is_there(path: str) -> bool:
        way = os.path.relpath(path, folder) if os.path.isabs(path) else os.path.normpath(os.path.join(beside, path))
        return is_picture(path) and not way.startswith("..")

    named = sum(is_there(row.path) for row in found.rows)
    named += sum(is_there(skip.path) and (folder / beside / skip.path).exists() for skip in found.skipped)
    tell_left_out(sum(map(is_picture, paths)) - named, manifest, request)


def tell_left_out(n: int, manifest: str, request: Request) -> None:
    """A word on so many pictures that the table beside them does not name, where there are any."""
    if n > 0:
        are = "is" if n == 1 else "are"
        request.progress.note(
            f"{manifest} says what is learned; {counted(n, 'picture')} that it does not name {are} left out"
        )


def tell_refused(refused: Iterable[ReheadError], request: Request) -> None:
    """A word on each table that looks like a manifest, and is not taken for one."""
    for error in refused:
        request.progress.note("Left out: " + str(error).replace("\n", " ").rstrip("."))


def no_manifest(folder: str, refused: Sequence[ReheadError]) -> SourceError:
    """What to say of a folder without a manifest where one was asked for. refused: why those that look like one are not."""
    if not refused:
        return NothingThere(what=f"{folder} has no CSV or Parquet file with the columns path,label.", fix=EXAMPLES)
    what = f"{folder} has no CSV or Parquet file that can be taken."
    return SourceError(what=what, why=_reasons(refused), fix=refused[0].fix)


def _reasons(refused: Iterable[ReheadError]) -> str:
    return " ".join(part for error in refused for part in (error.what, error.why) if part)


def is_picture(path: str) -> bool:
    """Whether a name is that of a picture."""
    return os.path.splitext(path)[1].lower() in PICTURE_NAMES


def no_files(folder: str, skipped: Sequence[Skip]) -> SourceError:
    """What to say of a folder, on a disk or in a bucket, that has none."""
    reasons = "; ".join(f"{skip.path} {skip.reason}" for skip in skipped[:3])
    return NothingThere(
        what=f"{folder} holds no files.",
        why=reasons or "Hidden files and what systems leave behind are not counted.",
        fix="Put the photos of each class into a folder of its own: photos/cat/..., photos/dog/...",
    )


def unrecognised(folder: str, paths: Sequence[str], layout: str, refused: Sequence[ReheadError] = ()) -> SourceError:
    """What to say of a folder, on a disk or in a bucket, that has no labels in this layout. refused: as in `no_manifest`."""
    folders = sorted({path.partition("/")[0] for path in paths if "/" in path})
    files = [path for path in paths if "/" not in path]
    parts = [
        f"{counted(len(names), kind)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for kind, names in (("folder", folders), ("file", files))
        if names
    ]
    why = f"It holds {' and '.join(parts)}"
    fitting, reading = recognised(paths)
    if layout != "auto" and reading.rows:
        return NothingThere(
            what=f"{folder} does not have the layout {layout!r}.",
            why=f"{why}, which is the layout {fitting!r}.",
            fix=f"Leave --layout out, or pass --layout {fitting}.",
        )
    what = f"{folder} has no layout of labelled photos that is known here."
    if n := sum(map(is_shard, paths)):
        why += f"; {counted(n, 'shard')} of WebDataset may be among them: --layout webdataset reads these alone"
    elif any(path.lower().endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")) for path in paths):
        why += "; shards of WebDataset may not be compressed"
    if has_parts(paths):
        why += "; of Parquet files among others, --layout manifest reads these alone"
    if layout != "auto":
        what = f"{folder} does not have the layout {layout!r}."
    why = f"{why}; no label can be told from folders or names. {_reasons(refused)}".strip()
    fix = refused[0].fix if refused else READ_PARTS if has_parts(paths) else EXAMPLES
    kind = SourceError if refused else NothingThere  # a table is there, whose labels cannot be had
    return kind(what=what, why=why, fix=fix)
