"""Corrected pictures on disk, as a folder that `rehead tune` takes as it is.

    of classes            feedback/<label>/<digest>.jpg
    of labels, numbers    feedback/photos/<digest>.jpg and feedback/feedback.csv with path,label

A folder holds corrections of one task, which they say themselves. A picture is named by the SHA-256 of its bytes, so a second
correction of it takes the place of the first. Each change is one rename, and changes follow one another, also those of other
services on the same folder. The table is left to `manifest.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.bundle_facts import Task
from rehead.data.corrections import LOCK
from rehead.data.walk import is_leftover
from rehead.durable import write_bytes
from rehead.errors import MissingExtra, RunError
from rehead.pixels import MAX_PIXELS, opened
from rehead.serving.dimensions import check_pixels
from rehead.serving.labels import checked
from rehead.serving.manifest import MANIFEST, PHOTOS, read_rows, task_of_rows, write_rows
from rehead.serving.models import Loaded
from rehead.serving.problems import Problem

MAX_BYTES = 10 << 30  # of all corrections: some thousand photos as phones take them
LEAST_FREE_BYTES = 1 << 30  # of the disk, which others need too
LOCK_S = 10  # a change takes milliseconds; whoever holds the folder longer hangs
ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "HEIF": "heic", "JPEG2000": "jp2"}  # others: their own names


@dataclass(frozen=True)
class Kept:
    """path: relative to the folder of corrections, with "/". label: as it is kept. digest: of the picture's bytes."""

    path: str
    label: str
    digest: str


class Feedback:
    """One folder of corrections, for models of one task."""

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_BYTES, free_bytes: int = LEAST_FREE_BYTES, pixels: int = MAX_PIXELS
    ) -> None:
        self.folder, self._max_bytes, self._least_free_bytes, self._pixels = folder, max_bytes, free_bytes, pixels
        self._mutex, self._look = threading.Lock(), threading.Lock()

    def keep(self, loaded: Loaded, data: bytes, text: str) -> Kept:
        """The picture, kept with what it should have been named. Raises Problem: 409 where the folder holds corrections of
        another task or a table that cannot be read, 422 for no picture or no label, 507 for no room, 500 where it cannot be
        written."""
        task = loaded.model.task
        label = checked(text, task, loaded.model.classes)
        digest = hashlib.sha256(data).hexdigest()
        with self._look:  # a picture is large while it is decoded: one at a time, and changes do not wait for it
            name = f"{digest}.{_ending(loaded, data, self._pixels)}"
        with self._changing():
            rows = read_rows(self.folder)
            if self._task(rows) not in (task, None):
                raise Problem(
                    409,
                    "The folder of corrections holds those of a model of another task.",
                    fix="Start the service with another --feedback.",
                )
            path = f"{label}/{name}" if task == "classification" else f"{PHOTOS}/{name}"
            self._place(path, data, self._found(digest))
            write_rows(self.folder, task, rows if task == "classification" else rows | {path: label})
        return Kept(path, label, digest)

    def forget(self, digest: str) -> None:
        """The picture of these bytes is kept no more. Raises Problem: 404 where it was not, 409 and 500 as `keep` does."""
        with self._changing():
            found = self._found(digest)
            if not found:
                raise Problem(404, "No such picture is kept.", fix="It may have been taken back before.")
            if rows := read_rows(self.folder):
                gone = {path.relative_to(self.folder).as_posix() for path in found}
                left = {path: label for path, label in rows.items() if path not in gone}
                write_rows(self.folder, task_of_rows(rows), left)
            for path in found:
                path.unlink(missing_ok=True)
                _leave(path.parent)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        import filelock

        try:
            with self._mutex, filelock.FileLock(self.folder / LOCK, timeout=LOCK_S):
                yield
        except OSError as error:
            raise _unwritable(error) from error

    def _found(self, digest: str) -> list[Path]:
        """The files of a picture: one, unless somebody copied it by hand."""
        assert digest.isalnum(), digest
        return sorted(path for path in self.folder.glob(f"*/{digest}.*") if not path.name.endswith(".part"))

    def _place(self, path: str, data: bytes, found: list[Path]) -> None:
        target = self.folder / path
        if target in found:
            return
        self._check_room(0 if found else len(data))
        target.parent.mkdir(exist_ok=True)
        if target.parent.name not in os.listdir(self.folder):
            raise Problem(
                409,
                f"There is a folder like {target.parent.name!r} already, in other capitals.",
                why="This disk does not tell them apart.",
                fix="Correct it by the name that is there.",
            )
        if not found:
            write_bytes(target, data)
            return
        os.replace(found[0], target)
        for other in found:
            other.unlink(missing_ok=True)
            _leave(other.parent)

    def _check_room(self, n_bytes: int) -> None:
        if n_bytes == 0:
            return
        if size_of(self.folder) + n_bytes > self._max_bytes:
            raise _no_room(f"They may take {self._max_bytes / (1 << 30):.0f} GiB.", "Tune on them, and move them away.")
        if shutil.disk_usage(self.folder).free - n_bytes < self._least_free_bytes:
            raise _no_room("The disk is almost full.", "Make room on the service's disk.")

    def _task(self, rows: dict[str, str]) -> Task | None:
        """Of which task the corrections are that the folder holds, None where it holds none. rows: of the table."""
        if rows:
            return task_of_rows(rows)
        with os.scandir(self.folder) as entries:
            is_used = any(entry.is_dir() and entry.name != PHOTOS and not is_leftover(entry.name) for entry in entries)
        return "classification" if is_used else None


def opened_feedback(folder: Path, models: list[Loaded], **bounds: Any) -> dict[str, Feedback]:
    """Where the corrections of each model are kept, by its name: the folder itself, or one in it for each of several models.

    Raises RunError where nothing can be written there, a served bundle is there, two models' folders would be one, or the
    folder holds corrections of one model and several are served, or the other way; MissingExtra.
    """
    if importlib.util.find_spec("filelock") is None:
        raise MissingExtra("filelock", "serve", "Keeping corrections")
    from rehead.data.rows import short_name

    _check_apart(folder, models)
    places = {one.name: folder / short_name(one.name) if len(models) > 1 else folder for one in models}
    if len(set(places.values())) < len(places):
        raise RunError(
            what=f"The corrections of two models would lie in one folder: {', '.join(places)}.",
            fix="Name the models so that letters and digits tell them apart: NAME=FOLDER.",
        )
    try:
        _check_as_before(folder, [*places.values()])
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
            (place / LOCK).touch()  # and left as it is: another service may hold it
            with tempfile.TemporaryFile(dir=place):  # whether there is a place to write to
                pass
    except OSError as error:
        raise RunError(
            what=f"Corrections cannot be kept in {folder}.",
            why=f"{error.strerror or error}.",
            fix="Pass --feedback with a folder that you may write to, or leave it out.",
        ) from error
    return {name: Feedback(place, **bounds) for name, place in places.items()}


def _check_apart(folder: Path, models: list[Loaded]) -> None:
    """Raises RunError where corrections would be taken for parts of a bundle, or a bundle for corrections."""
    ours = folder.resolve()
    for one in models:
        bundle = one.folder.resolve()
        if ours.is_relative_to(bundle) or bundle.is_relative_to(ours):
            raise RunError(
                what=f"Corrections cannot be kept in {folder}.",
                why=f"The bundle {one.folder} is served, and one of the two folders holds the other.",
                fix="Pass --feedback with a folder of its own, such as feedback/.",
            )


def _check_as_before(folder: Path, places: list[Path]) -> None:
    """Raises RunError where the folder was kept for several models and `places` are the folder itself, or the other way: the
    corrections that it holds could be tuned on no more. Raises OSError."""
    models = sorted(lock.parent.name for lock in folder.glob(f"*/{LOCK}"))
    if places == [folder]:
        if models:
            raise RunError(
                what=f"Corrections cannot be kept in {folder}.",
                why=f"It holds those of each model in a folder by itself: {', '.join(models)}.",
                fix=f"Pass the folder of one: --feedback {shlex.quote(str(folder / models[0]))}",
            )
        return
    others = [place for place in folder.glob("*") if place not in places and _may_be_kept(place)]
    if others and not models:
        raise RunError(
            what=f"Corrections of several models cannot be kept in {folder}.",
            why=f"Those of one model lie there already, such as {others[0].name}, and could be tuned on no more.",
            fix="Pass --feedback with another folder, or move them into a folder in it that has the model's name.",
        )


def _may_be_kept(path: Path) -> bool:
    return path.name == MANIFEST or (path.is_dir() and not is_leftover(path.name))


def size_of(folder: Path) -> int:
    """The bytes of all files below."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def _ending(loaded: Loaded, data: bytes, pixels: int) -> str:
    """By what the bytes are, whatever their name was. Raises Problem 422 where they are no picture that can be decoded."""
    from rehead.errors import PhotoError

    try:
        check_pixels(data, pixels)
        loaded.model.pixels(data)
        with opened(data) as image:
            kind = image.format or "png"
    except PhotoError as error:
        raise Problem(
            422, f"It cannot be kept: the picture {error.what}.", fix="Send a picture that can be read."
        ) from None
    return ENDINGS.get(kind, kind.lower())


def _leave(folder: Path) -> None:
    """Removes a folder that holds nothing more."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _no_room(why: str, fix: str) -> Problem:
    return Problem(507, "There is no room for more corrections.", why=why, fix=fix)


def _unwritable(error: OSError) -> Problem:
    from rehead.durable import FULL

    if error.errno in FULL:
        return _no_room("The disk is full.", "Make room on the service's disk.")
    return Problem(
        500,
        "The correction cannot be kept.",
        why=f"{error.strerror or error}.",
        fix="Give the service a --feedback folder that it may write to.",
    )
