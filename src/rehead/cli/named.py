"""The photos that the arguments of `rehead predict` name: files, folders and patterns, in order, without opening all first.

What cannot be had keeps its place with the reason. In a folder a file is a picture when its content is, or when its name
says so; what is in it is left to `predict.py`.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from rehead.data.layouts import PICTURE_NAMES
from rehead.data.rows import Skip
from rehead.data.walk import walk
from rehead.errors import PhotoError, SourceError
from rehead.pixels import is_image

HEAD_BYTES = 64  # of a file, by which its format is told
Named = tuple[str, PhotoError | None]


def found(patterns: list[str]) -> Iterator[Named]:
    """(path, None) of each file to predict, in the order of the arguments, (path, reason) of what names none.

    Raises SourceError where an argument is empty, and where none of them names a file.
    """
    if "" in patterns:
        raise SourceError(what="A photo's name is empty.", fix="Pass images, folders of images, or a pattern.")
    rows = itertools.chain.from_iterable(map(_of, patterns))
    nothing: list[Named] = []
    for row in rows:
        if row[1] is None:
            return itertools.chain(nothing, [row], rows)
        nothing.append(row)
    raise SourceError(
        what=f"There is nothing to predict: {'; '.join(f'{path} {wrong.what}' for path, wrong in nothing[:5] if wrong)}.",
        fix="Pass images, folders of images, or a pattern.",
    )


def _of(pattern: str) -> Iterator[Named]:
    """What one argument names: a file as it is, a folder walked, a pattern expanded."""
    if os.path.isdir(pattern):
        return _or("holds no picture", pattern, _below(Path(pattern)))
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return iter([(pattern, None)])
    return _or("matches no file", pattern, _matching(pattern))


def _or(reason: str, pattern: str, rows: Iterator[Named]) -> Iterator[Named]:
    first = next(rows, None)
    return itertools.chain([first], rows) if first else iter([(pattern, PhotoError(what=reason))])


def _matching(pattern: str) -> Iterator[Named]:
    """Files that match, and what is in folders that match, unless the pattern itself goes down into them."""
    for name in sorted(set(_expanded(pattern))):
        if not os.path.isdir(name):
            yield name, None
        elif "**" not in pattern:
            yield from _below(Path(name))


def _expanded(pattern: str) -> Iterator[str]:
    """What a pattern names. `**` goes down into folders but into no links, which may lead back; a name may come twice."""
    parts = pattern.replace(os.sep, "/").split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    tops, rest = "/".join(parts[:place]), "/".join(parts[place + 1 :]) or "*"
    for top in glob.iglob(tops) if tops else [("/" if place else "")]:
        for folder in _folders(top):
            yield from _expanded(os.path.join(glob.escape(folder), rest))


def _folders(top: str) -> Iterator[str]:
    """A folder and all below it that are not hidden."""
    yield top
    for root, names, _ in os.walk(top or "."):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in names:
            folder = os.path.join(root, name)
            if not os.path.islink(folder):
                yield folder if top else os.path.relpath(folder)


def _below(folder: Path) -> Iterator[Named]:
    skipped: list[Skip] = []
    try:
        for file in walk(folder, skipped):
            yield from _lost(folder, skipped)
            if file.suffix.lower() in PICTURE_NAMES or _is_picture(file):
                yield str(file), None
    except SourceError as error:
        yield str(folder), PhotoError(what=f"cannot be listed: {error.why.rstrip('.')}")
    yield from _lost(folder, skipped)


def _is_picture(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return is_image(opened.read(HEAD_BYTES))
    except OSError:
        return True  # nobody can tell: its row says that it cannot be read


def _lost(folder: Path, skipped: list[Skip]) -> Iterator[Named]:
    """Takes from `skipped` what may have held pictures; a link to a folder that is listed anyway loses none."""
    while skipped:
        skip = skipped.pop(0)
        if skip.reason.startswith("cannot be") or Path(skip.path).suffix.lower() in PICTURE_NAMES:
            yield str(folder / skip.path), PhotoError(what=skip.reason)
