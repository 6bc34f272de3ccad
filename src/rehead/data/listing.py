"""What lies below an address. A store lists by pages, one after the other: so folders are listed beside each other."""

from __future__ import annotations

import functools
import heapq
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any
from urllib.parse import urlunsplit

from rehead.data.addresses import refused, split, store_at, store_of
from rehead.data.columns import Texts
from rehead.data.rows import Request, Stamp
from rehead.data.spill import Numbers
from rehead.data.walk import is_leftover
from rehead.errors import SourceError
from rehead.parallel import ordered_map

LISTS, LEVELS = 16, 2  # lists at once; levels of folders that are told apart
CROWDED = 1_000  # folders in one, which is listed whole then
UNKNOWN = -1  # the size of a file whose store does not say how large it is and when it changed


class Listing(Mapping[str, Stamp | None]):
    """The paths of files, sorted, and of each its stamp. spills: see `spill.Numbers`."""

    def __init__(self, spills: bool = True) -> None:
        self.paths, self._sizes, self._times = Texts(spills=spills), Numbers("q", spills), Numbers("q", spills)
        self._next = 0

    def add(self, path: str, stamp: Stamp | None) -> None:
        """Paths come in order."""
        self.paths.append(path)
        self._sizes.append(UNKNOWN if stamp is None else stamp[0])
        self._times.append(0 if stamp is None else stamp[1])

    def extend(self, other: Listing, begin: int = 0, end: int | None = None) -> None:
        """Its paths from one place to another come behind."""
        self.paths.extend(other.paths, begin, end)
        for own, others in ((self._sizes, other._sizes), (self._times, other._times)):
            for some in others.blocks(begin, end):
                own.extend(some.tobytes())

    def __getitem__(self, path: str) -> Stamp | None:
        i = self._next  # who asks for one after the other need not search
        if i >= len(self) or self.paths[i] != path:
            i = bisect_left(self.paths, path)
        if i == len(self) or self.paths[i] != path:
            raise KeyError(path)
        self._next = i + 1
        return self._stamp(i)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def stamped(self, begin: int, end: int) -> Iterator[tuple[str, Stamp | None]]:
        """Paths and stamps from one place to another."""
        return ((self.paths[i], self._stamp(i)) for i in range(begin, end))

    def _stamp(self, i: int) -> Stamp | None:
        size, time = self._sizes[i], self._times[i]
        return None if size == UNKNOWN else (size, time, time)


def listed(address: str, request: Request) -> Listing:
    """The files below an address, without hidden ones and what systems leave behind."""
    request.progress.phase("Listing", None, "files")
    parts = split(address)
    found, lists = Listing(), []
    try:
        store, root = store_at(urlunsplit(parts._replace(path="")), parts.path)
        for some in _lists(store, root):
            request.progress.advance(len(some))
            if some:
                lists.append((len(found), len(found) + len(some)))
                found.extend(some)
    except (OSError, ValueError) as error:
        raise refused(address, error) from error
    return _in_order(found, lists)


def _in_order(found: Listing, lists: list[tuple[int, int]]) -> Listing:
    """The listing in the order of its paths. lists: where each begins and ends of those it is made of, which are in order."""
    ordered = sorted(lists, key=lambda one: found.paths[one[0]])
    apart = all(found.paths[a[1] - 1] < found.paths[b[0]] for a, b in itertools.pairwise(ordered))
    if apart and ordered == lists:
        return found
    whole = Listing()
    if apart:
        for begin, end in ordered:
            whole.extend(found, begin, end)
        return whole
    for path, one in heapq.merge(*(found.stamped(begin, end) for begin, end in ordered), key=itemgetter(0)):
        whole.add(path, one)
    return whole


def _sorted(files: list[Any], start: int) -> Listing:
    """A list of files, which is given up for it: what a store says of one takes several times as much memory."""
    if any(files[i].path > files[i + 1].path for i in range(len(files) - 1)):
        files.sort(key=lambda one: one.path)
    found = Listing(spills=False)
    files.reverse()
    while files:
        one = files.pop()
        if not any(map(is_leftover, (path := one.path[start:]).split("/"))):
            found.add(path, _stamp(one))
    return found


def _lists(store: Any, root: str) -> Iterator[Listing]:
    """The files below a folder of a store, some at a time. A store gives a list by pages, one after the other: so the folders
    of the first levels are listed beside each other; those that hold very many folders each as one list."""
    from pyarrow.fs import FileSelector, FileType  # which is there: the store was opened by it

    start = len(root.rstrip("/")) + 1

    def at(folder: str, whole: bool) -> tuple[Listing, list[str]]:
        found = store.get_file_info(FileSelector(folder, recursive=whole))
        below = [one.path for one in found if one.type == FileType.Directory and _may_enter(one, folder)]
        if not whole and len(below) > CROWDED:
            return Listing(), below
        files = [one for one in found if one.type == FileType.File]
        del found
        return _sorted(files, start), below

    def each(folders: list[str], whole: bool) -> Iterator[tuple[Listing, list[str]]]:
        return ordered_map(functools.partial(at, whole=whole), folders, workers=LISTS, ahead=2 * LISTS)

    folders, crowded = [root], []
    for _ in range(LEVELS):
        inner: list[str] = []
        for folder, (files, below) in zip(folders, each(folders, False), strict=True):
            if len(below) > CROWDED:
                crowded.append(folder)
            else:
                inner += below
                yield files
        folders = inner
        if len(folders) >= LISTS:
            break
    for files, _ in each([*crowded, *folders], True):
        yield files


def _may_enter(folder: Any, above: str) -> bool:
    """Whether a folder is none of a system's, and not again the one above: "cat//1.jpg" lies in a folder of no name there."""
    return folder.path.rstrip("/") != above.rstrip("/") and not is_leftover(folder.base_name)


def _stamp(found: Any) -> Stamp | None:
    """Of what a store lists, where it says how large it is and when it changed."""
    if found.size is None or found.mtime_ns is None:
        return None
    return int(found.size), int(found.mtime_ns), int(found.mtime_ns)


def is_file_at(address: str) -> bool:
    """Whether there is a file at an address."""
    try:
        stamp_at(address)
    except SourceError:
        return False
    return True


def stamp_at(address: str) -> Stamp | None:
    """What changes when the file at an address does. Raises SourceError where there is none."""
    try:
        store, path = store_of(address)
        found = store.get_file_info(path)
        if not found.is_file:
            raise FileNotFoundError(path)
    except (OSError, ValueError) as error:
        raise refused(address, error, "read") from error
    return _stamp(found)
