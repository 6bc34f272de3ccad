"""The files below a folder, in sorted order: no hidden ones, no leftovers of systems, safe with loops of links.

Which of them are photos is left to others: a name's ending decides nothing here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from stat import S_ISDIR

from rehead.data.rows import Skip
from rehead.errors import SourceError

LEFTOVERS = {  # in lower case; those with a leading dot are hidden anyway
    "__macosx",  # macOS, in archives
    "@eadir",  # Synology thumbnails
    "@tmp",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",  # macOS folder icons
}


def walk(folder: Path, unreadable: list[Skip] | None = None) -> Iterator[Path]:
    """The files below `folder`, sorted part by part of their paths, links followed, each real folder entered once.

    unreadable: is given what could not be listed. Raises SourceError when `folder` is not a folder that can be listed.
    """
    for relative in files_below(folder, unreadable if unreadable is not None else []):
        yield folder / relative


def files_below(folder: Path, skipped: list[Skip], besides: Collection[Path] = ()) -> Iterator[str]:
    """The same as paths relative to `folder` with "/" between the parts; `besides` and all below it is left out.

    A link to a folder is followed unless that folder is below `folder` under a name of its own, or was entered before.
    """
    root = os.path.realpath(folder)
    entered = {_identity(os.stat(path)) for path in besides}
    has_files = any(map(os.path.isfile, besides))
    pending = [("", True)]
    while pending:
        relative, is_folder = pending.pop()
        if not is_folder:
            if not (has_files and _is_among(entered, os.path.join(root, relative))):
                yield relative
            continue
        try:
            if _may_enter(root, relative, entered, skipped):
                pending.extend(reversed(list(_children(root, relative, skipped))))
        except OSError as error:
            if not relative:
                raise _unusable(folder, error) from error
            skipped.append(Skip(relative, f"cannot be listed: {error.strerror}"))


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def _is_among(entered: set[tuple[int, int]], path: str) -> bool:
    try:
        return _identity(os.stat(path)) in entered
    except OSError:  # a link that leads nowhere: who reads it says so
        return False


def _may_enter(root: str, relative: str, entered: set[tuple[int, int]], skipped: list[Skip]) -> bool:
    path = os.path.join(root, relative)
    identity = _identity(os.stat(path))
    is_link = bool(relative) and os.path.islink(path)
    if identity in entered or (is_link and _stands_below(root, os.path.realpath(path))):
        if is_link:
            skipped.append(Skip(relative, "is a link to a folder that is listed under its own name", "aside"))
        return False
    entered.add(identity)
    return True


def _stands_below(root: str, path: str) -> bool:
    """Whether a walk from `root` comes to the real folder `path` by itself."""
    inside = path == root or path.startswith(root.rstrip(os.sep) + os.sep)
    return inside and not any(is_leftover(part) for part in path[len(root) :].split(os.sep) if part)


def _children(root: str, relative: str, skipped: list[Skip]) -> Iterator[tuple[str, bool]]:
    prefix = relative + "/" if relative else ""
    with os.scandir(os.path.join(root, relative)) as found:
        entries = sorted((entry for entry in found if not is_leftover(entry.name)), key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        try:
            if entry.is_dir():
                yield path, True
            elif entry.is_file():
                yield path, False
            else:
                skipped.append(Skip(path, "is a link to nothing" if entry.is_symlink() else "is not a regular file"))
        except OSError as error:
            skipped.append(Skip(path, f"cannot be followed: {error.strerror}"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _unusable(folder: Path, error: OSError) -> SourceError:
    try:
        is_file = not S_ISDIR(os.stat(folder).st_mode)
    except OSError:
        is_file = False
    if is_file:
        return SourceError(what=f"{folder} is a file, not a folder.", fix="Pass the folder that holds the photos.")
    if isinstance(error, FileNotFoundError):
        return SourceError(
            what=f"There is no folder {folder}.",
            why=f"It was looked for at {os.path.abspath(folder)}.",
            fix="Check the spelling, or pass the folder's full path.",
        )
    what = "permissions" if isinstance(error, PermissionError) else "spelling"
    return SourceError(
        what=f"{folder} cannot be listed.", why=f"{error.strerror}.", fix=f"Check the {what} of the folder."
    )
