"""Where labelled photos come from: one function that takes whatever a user has, and the readers it chooses from.

A new kind of source is one function here or beside it, and one line in `LAYOUTS`. Nothing is decoded, and no file's
content judged: that is the catalog's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from rehead.data.addresses import fetched, is_address, local_path, mended, open_address, path_of, split
from rehead.data.archives import archive_stem, is_archive, unpacked_in_use
from rehead.data.buckets import read_bucket
from rehead.data.far import Readers
from rehead.data.folders import EXAMPLES, read_folder
from rehead.data.held_out import apart, check_apart, joined, place_of, replaced
from rehead.data.in_use import InUse
from rehead.data.manifests import TABLE_NAMES, read_manifest, read_manifest_of
from rehead.data.memory import is_hugging_face, no_sequence, read_dataset, read_hugging_face
from rehead.data.rows import SIDE_BY_NAME, Named, Request, Row, Skip, Source, short_name
from rehead.data.shards import begins_like_one, is_shard, read_shards
from rehead.data.spill import spill_into
from rehead.data.tables import is_table, list_in, read_lists, read_table, values_of
from rehead.data.targets import SEPARATOR
from rehead.data.walk import walk
from rehead.errors import ReheadError, SourceError, nearest
from rehead.progress import Progress, Silent

__all__ = ["LAYOUTS", "Row", "Skip", "Source", "open_source", "walk"]


def open_source(
    source: object,
    *,
    layout: str = "auto",
    valid: object | None = None,
    test: object | None = None,
    cache: Path,
    classes: Iterable[str] = (),
    task: str = "auto",
    max_bad: float = 0.2,
    readers: Readers | None = None,
    progress: Progress | None = None,
) -> Source:
    """The labelled photos of `source`: their paths, labels and sides, and a way to read each.

    source: a folder, a CSV or Parquet manifest, an archive of either, WebDataset shards; the address of one of these in a
        bucket, such as s3://bucket/photos, or wherever else pyarrow and fsspec read; a tuple (paths or images, labels); a
        data frame or pyarrow table; a Hugging Face data set; a sequence of (image, label); or a mapping of those by side,
        as Hugging Face's `DatasetDict`.
    layout: "auto", or a key of `LAYOUTS`. valid, test: sources whose photos all are of that side, in place of those
        that `source` itself has there; what else has no side is then of the training side. cache: where archives are
        unpacked, and long columns lie. classes: labels to expect, if known.
    task: what labels are, see `targets.py`; "auto" where they tell it. max_bad: the share of shards that may be broken.
    readers: machines that go through shards in a bucket, in place of this one.
    Raises SourceError, UnsafeArchive, MissingExtra.
    """
    spill_into(cache)
    if is_train := isinstance(source, Mapping):
        source, valid, test = _by_side(source, valid, test)
    _check_names(source, valid, test)
    held_out = {side: other for side, other in (("valid", valid), ("test", test)) if other is not None}
    request = Request(
        cache=cache,
        classes=frozenset(classes),
        besides=tuple(place for other in held_out.values() if (place := place_of(other)) is not None),
        task=task,
        max_bad=max_bad,
        readers=readers,
        progress=progress or Silent(),
    )
    check_apart(source, request.besides)
    main = _open(source, layout, request)
    if not held_out:
        return main
    if task == "auto" and any(SEPARATOR in row.label for row in main.rows):
        task = "multilabel"  # then a held-out photo may have no label either
    expected = replace(request, besides=(), classes=frozenset(row.label for row in main.rows), task=task)
    others = {side: _open(other, "auto", expected) for side, other in held_out.items()}
    main = apart(main, others.values(), request.progress)
    given_up = replaced(main, held_out)
    for skip in given_up:
        request.progress.note(f"{skip.path} {skip.reason}")
    main = replace(main, skipped=[*main.skipped, *given_up])
    return joined(main, others, is_train=is_train)


def _check_names(*sources: object) -> None:
    names = [os.fsdecode(source) for source in sources if isinstance(source, str | bytes | os.PathLike)]
    if not all(name.strip() for name in names):
        raise SourceError(
            what="A name of photos is empty.",
            why="It would mean the current folder.",
            fix="Name it as . if that is meant.",
        )
    if any("\0" in name for name in names):
        raise SourceError(
            what="A name of photos holds a NUL.", why="No file can have such a name.", fix="Check where it comes from."
        )


def read_archive(source: str | Path, request: Request, layout: str = "auto", shown: str = "") -> Source:
    """What an archive holds, read as a folder. shown: what errors call it."""
    archive = Path(source)
    folder, in_use = unpacked_in_use(archive, request.cache, request.progress, _is_shard_file)
    found = read_folder(folder, replace(request, besides=(), confined=True, shown=shown or str(archive)), layout)
    name, read = short_name(archive_stem(archive)), partial(_read, found.read, in_use)
    return replace(found, name=name, root=None, read=read, within=lambda _: "archive")


def _read(read: Callable[[Named], bytes], _in_use: InUse, row: Named) -> bytes:
    """Reads a photo of a folder that is in use for as long as anybody has a way to its photos."""
    return read(row)


LAYOUTS: dict[str, Callable[[Any, Request], Source]] = {
    "folders": partial(read_folder, layout="folders"),
    "split": partial(read_folder, layout="split"),
    "flat": partial(read_folder, layout="flat"),
    "manifest": read_manifest,
    "archive": read_archive,
    "webdataset": read_shards,
    "lists": read_lists,
    "table": read_table,
    "dataset": read_dataset,
    "huggingface": read_hugging_face,
}
OF_FOLDERS = ("folders", "split", "flat", "manifest", "webdataset")
OF_FILES = (*OF_FOLDERS, "archive")  # what a command line can name; the others are of what is in memory


def _open(source: object, layout: str, request: Request) -> Source:
    if is_address(source):
        address = str(source)
        here = local_path(address)
        if here is None:
            return _open_address(address, layout, request)
        source = here
    path = path_of(source)
    if layout != "auto" and layout not in LAYOUTS:
        known = tuple(LAYOUTS) if path is None else OF_FILES
        raise SourceError(
            what=f"There is no layout {layout!r}.",
            why=f"There are auto, {', '.join(known)}.",
            fix=nearest(layout, known),
        )
    if path is None:
        kind, source = _in_memory(source)
        if layout not in ("auto", kind):
            raise SourceError(what=f"The layout {layout!r} was asked for, but what was passed has {kind!r}.")
        return LAYOUTS[kind](source, request)
    if not os.path.exists(path):
        _check_spelling(path, str(source))
        return read_folder(path, request)  # which says that it is not there, or cannot be looked at
    if os.path.isdir(path):
        _check_layout(path, "a folder", layout, OF_FOLDERS)
        return read_folder(path, request, layout)
    if path.suffix.lower() in TABLE_NAMES:
        _check_layout(path, "a manifest", layout, ("manifest",))
        return read_manifest(path, request)
    _check_layout(path, "a file", layout, OF_FILES)
    if _is_shard_file(path, layout):
        return read_shards(path, request)
    if is_archive(path):
        _check_shard(str(path), layout)
        return read_archive(path, request, "auto" if layout == "archive" else layout)
    if layout in ("manifest", "archive"):
        return LAYOUTS[layout](path, request)
    raise SourceError(
        what=f"{path} is a file, but neither a manifest (.csv, .parquet) nor an archive (.zip, .tar, .tar.gz, ...).",
        fix=EXAMPLES,
    )


def _check_spelling(path: Path, given: str) -> None:
    """Raises SourceError for what is not there, where it was perhaps meant otherwise, or is no folder by its name."""
    if meant := mended(given):
        raise SourceError(
            what=f"There is no folder {given}.",
            why="An address has two strokes behind its colon.",
            fix=f"Write {meant} if that is meant.",
        )
    if path.suffix.lower() in TABLE_NAMES or is_archive(path):
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceError(
                what=f"There is no file {path}.",
                why=f"It was looked for at {os.path.abspath(path)}.",
                fix="Check the spelling, or pass the file's full path.",
            ) from error
        except OSError as error:
            raise SourceError(
                what=f"{path} cannot be read.", why=f"{error.strerror}.", fix="Check the path, and its permissions."
            ) from error


def _open_address(address: str, layout: str, request: Request) -> Source:
    name = PurePosixPath(unquote(split(address).path))
    if name.suffix.lower() in TABLE_NAMES:
        _check_layout(address, "a manifest", layout, ("manifest",))
        return read_manifest_of(address, request)
    if is_archive(name):
        _check_layout(address, "a file", layout, OF_FILES)
        if _is_one_shard(name.name, layout, lambda: open_address(address)):
            return read_shards(address, request)
        _check_shard(address, layout)
        with fetched(address, request) as path:
            return read_archive(path, request, "auto" if layout == "archive" else layout, shown=address)
    return read_bucket(address, request, layout)


def _is_shard_file(path: Path, layout: str = "auto") -> bool:
    return _is_one_shard(path.name, layout, lambda: path.open("rb"))


def _is_one_shard(name: str, layout: str, opened: Callable[[], Any]) -> bool:
    """Whether a file is to be read as a shard: it was asked for, or it begins like one."""
    if not is_shard(name) or layout != "auto":
        return is_shard(name) and layout == "webdataset"
    with contextlib.suppress(OSError, ReheadError), opened() as stream:
        return begins_like_one(stream)
    return False


def _check_shard(name: str, layout: str) -> None:
    if layout == "webdataset":
        raise SourceError(
            what=f"{name} is no shard.",
            why="A photo is read from its place, so a shard is a .tar that is not compressed.",
            fix="Unpack it (gunzip), and name the .tar, or a folder of them.",
        )


def _check_layout(path: Path | str, kind: str, layout: str, possible: tuple[str, ...]) -> None:
    if layout not in ("auto", *possible):
        raise SourceError(
            what=f"{path} is {kind} and cannot have the layout {layout!r}.",
            why=f"Possible are auto, {', '.join(possible)}.",
            fix="Leave --layout out: the layout is recognised.",
        )


def _in_memory(source: object) -> tuple[str, object]:
    """The layout of a source in memory, by what it has, and what its reader wants."""
    if is_hugging_face(source):
        return "huggingface", source
    if is_table(source):
        return "table", source
    if not isinstance(source, tuple) or len(source) != 2 or any(isinstance(part, str) for part in source):
        is_column = hasattr(source, "to_list") or hasattr(source, "to_pylist")  # whose own [i] may go by an index
        return "dataset", values_of(source) if is_column else source
    for part in source:
        if not hasattr(part, "__len__"):
            raise no_sequence(part)
    images, labels = map(list_in, source)
    if isinstance(labels, Mapping):
        raise SourceError(
            what="The labels are a mapping.",
            why="They belong to the photos by their order.",
            fix="Pass a list: [labels[path] for path in paths].",
        )
    if len(images) != len(labels):
        what = f"There are {len(images)} photos and {len(labels)} labels."
        raise SourceError(what=what, fix="Pass one label for each photo.")
    labels = values_of(labels)
    are_paths = all(isinstance(image, str | os.PathLike) for image in images)
    return ("lists", (images, labels)) if are_paths else ("dataset", list(zip(images, labels, strict=True)))


def _by_side(sources: Mapping[Any, object], valid: object | None, test: object | None) -> tuple[object, object, object]:
    by_side: dict[str, object] = {}
    for name, source in sources.items():
        side = SIDE_BY_NAME.get(str(name).lower())
        if side is None or side in by_side:
            raise SourceError(
                what=f"A mapping of sources has the side {name!r}{'' if side is None else ' twice'}.",
                why=f"Known are {', '.join(SIDE_BY_NAME)}.",
            )
        by_side[side] = source
    if "train" not in by_side:
        raise SourceError(what="A mapping of sources has no 'train'.", why=f"It has {', '.join(map(str, sources))}.")
    return by_side["train"], by_side.get("valid", valid), by_side.get("test", test)
