"""Where the photos of a run, and of those that it came from, are now: as files, or in archives and buckets, which its own
folder names."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rehead.data.addresses import is_address
from rehead.data.reading import checked
from rehead.data.rows import Photo, Source
from rehead.data.sources import open_source
from rehead.errors import NothingThere, PhotoError, ReheadError
from rehead.runs.resume import Asked, is_something_at
from rehead.tuning.recipe import load

PHOTOS, RECIPE = "photos.json", "recipe.toml"


def asked_of(run: Path) -> Asked:
    """What a run was asked for. Raises OSError, ValueError, TypeError where it does not say."""
    return Asked(**json.loads((run / PHOTOS).read_text(encoding="utf-8")))


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
    """The bytes of a photo with its full path, if they are still those it had, and whether it is gone: it has no file, and is
    in nothing that can be opened. Then reading raises PhotoError, from what is said of a source that is there and cannot be
    opened: that costs the photos that may be in it alone."""

    archives = _Archives(run, cache)

    def read(photo: Photo) -> bytes:
        if os.path.isfile(photo.path):
            data = Path(photo.path).read_bytes()
        elif photo.path in archives.listed:
            data = archives.listed[photo.path]()
        else:
            raise archives.why_not(photo.path)
        return checked(data, photo, "in the earlier run")

    def is_gone(photo: Photo) -> bool:
        return not os.path.isfile(photo.path) and photo.path not in archives.listed

    return read, is_gone


@dataclass(frozen=True)
class _Archives:
    """What the sources of a run, and of those it came from, hold now: for photos in archives, which have no file. It is looked
    for once it is asked for; another process that this is sent to looks by itself."""

    run: Path
    cache: Path

    @property
    def listed(self) -> dict[str, Callable[[], bytes]]:
        """A way to the bytes of each photo, by its full path."""
        return self._found[0]

    def why_not(self, path: str) -> PhotoError:
        """Why a photo is not among them, nor a file."""
        closed = self._found[1]
        may_hold = [error for place, error in closed.items() if path.startswith(os.path.join(place, ""))]
        if is_address(path):  # a table may be what has it
            may_hold += closed.values()
        if may_hold:
            why = PhotoError(what=f"cannot be read: {may_hold[0].what}")
            why.__cause__ = may_hold[0]
            return why
        if self._lost is not None and _is_in_another(path):
            return PhotoError(
                what=f"cannot be found: the run {self._lost}, which says where it is, is not there any more"
            )
        return PhotoError(what="is not there any more")

    @functools.cached_property
    def _found(self) -> tuple[dict[str, Callable[[], bytes]], dict[str, ReheadError]]:
        """What is there, and by the places of runs what is said of sources that are there and cannot be opened."""
        found, closed = dict[str, Callable[[], bytes]](), dict[str, ReheadError]()
        for one, asked in line_of(self.run):
            if asked.source is None:
                continue
            place, (opened, errors) = _place(one, asked), _opened(one, asked, self.cache)
            if opened is not None:
                found |= {full_path(place, row.path): partial(opened.read, row) for row in opened.rows}
            if errors:
                closed[place] = errors[0]
        return found, closed

    @functools.cached_property
    def _lost(self) -> str | None:
        """The run that is not there any more, from which the first came of those that are."""
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


def _opened(run: Path, asked: Asked, cache: Path) -> tuple[Source | None, list[ReheadError]]:
    """The source of a run, with those of its held-out sides that can be opened, None where it cannot be itself; and what is
    said of those that are there and cannot."""
    ask = partial(open_source, asked.source, layout=asked.layout, cache=cache, max_bad=1.0, task=_task_of(run))
    named = {"valid": asked.valid, "test": asked.test}
    sides = [{side: place} for side, place in named.items() if place and (is_address(place) or is_something_at(place))]
    if sides:
        with contextlib.suppress(ReheadError):
            return ask(**{side: place for one in sides for side, place in one.items()}), []
    opened, there, errors = None, dict[str, Any](), list[ReheadError]()
    for more in ({}, *sides):
        try:
            opened = ask(**there, **more)
        except ReheadError as error:
            if not _says_it_is_gone(error):
                errors.append(error)
            if opened is None:
                break
        else:
            there |= more
    return opened, errors


def _says_it_is_gone(error: ReheadError) -> bool:
    """Whether nothing is there, or nothing that was; an archive or store that cannot be read is."""
    return isinstance(error, NothingThere) or isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)


def _is_in_another(path: str) -> bool:
    """Whether a photo without a file of its own is in a store, or in a file that is there: an archive, a shard or a table."""
    return is_address(path) or any(map(os.path.isfile, Path(path).parents))


def _task_of(run: Path) -> str:
    """What a run's labels were to be, as photos without a label are some of several labels; "auto" where it does not say."""
    try:
        return load(run / RECIPE).task
    except (OSError, ValueError, ReheadError):
        return "auto"
