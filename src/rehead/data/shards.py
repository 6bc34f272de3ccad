"""WebDataset shards: tar files of samples, each a photo and, under the same name, what it shows.

    train-0000.tar    000017.jpg  000017.cls    the class: a number or a name
                      000018.jpg  000018.json   {"label": "cat"}

Shards stay as they are. Each is gone through once, from its begin to its end, by this machine or by others, and remembered by
an index: where its photos begin, their labels and digests. From then on a photo is read from its place.
"""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import astuple
from pathlib import Path, PurePosixPath
from typing import IO, cast
from urllib.parse import quote, unquote, urlunsplit

from rehead.data import far
from rehead.data.addresses import is_address, open_address, part_of, photo_at, split
from rehead.data.columns import Names, Rows
from rehead.data.known import RACY_S, stamp_of
from rehead.data.listing import listed, stamp_at
from rehead.data.rows import (
    NOT_THERE,
    Named,
    Request,
    Row,
    Skip,
    Source,
    Stamp,
    are_sides,
    label_of,
    short_name,
    side_in,
)
from rehead.data.samples import Index, Member, indexed
from rehead.data.walk import files_below
from rehead.durable import write_text
from rehead.errors import NothingThere, ReheadError, SourceError, TooManyBad, counted
from rehead.parallel import n_cores, ordered_map
from rehead.progress import Progress

NAME = re.compile(r"\.tar$", re.IGNORECASE)
BESIDE = frozenset(  # endings of what may lie beside shards
    [
        ".txt",
        ".json",
        ".jsonl",
        ".md",
        ".idx",
        ".index",
        ".csv",
        ".tsv",
        ".yaml",
        ".yml",
        ".sha256",
        ".md5",
        ".log",
        ".parquet",
    ]
)
NAMES = "classnames.txt"  # beside shards: the names of classes 0, 1, ..., a line each
MOST_NAMES = 8 << 20  # bytes of it: a hundred thousand names
INDEX, FORMAT = "shards", 3  # where indices are in the cache, a folder for each of shards; what they are written as


def is_shard(name: str) -> bool:
    """Whether a file's name is one of a tar file that is not compressed."""
    return bool(NAME.search(name))


def are_shards(paths: Sequence[str]) -> bool:
    """Whether these files are shards, and perhaps some that tell of them: nothing that may be a photo."""
    others = (PurePosixPath(path) for path in paths if not is_shard(path))
    may_be = (path.suffix.lower() in BESIDE or (not path.suffix and path.name.isupper()) for path in others)  # README
    return any(map(is_shard, paths)) and all(may_be)


def begins_like_one(stream: IO[bytes]) -> bool:
    """Whether the first sample of a tar file is a photo with a .cls, or a .json that names a label, as only shards have it."""
    with suppress(OSError):
        found = indexed(stream, first=True)
        return bool(found.photos and found.photos[0].label)
    return False


def read_shards(source: str | Path, request: Request, files: Mapping[str, Stamp | None] | None = None) -> Source:
    """The labelled photos of shards: a tar file, or those of a folder, on a disk or at an address.

    files: those of the folder by their paths, where they are known; at an address with their stamps. Raises SourceError where
    there are no photos with labels, TooManyBad where more shards than `request.max_bad` allows cannot be read.
    """
    place = _Bucket(str(source), request, files) if is_address(source) else _Disk(Path(source), files)
    found: dict[str, Member] = {}
    rows = Rows()
    skipped, broken = [], []
    for shard, index in _indices(place, request):
        side = side_in(shard)
        if index.broken:
            broken.append(Skip(shard, index.broken))
        skipped += [Skip(f"{shard}/{name}", reason) for name, reason in index.skipped]
        for member in index.photos:
            path = f"{shard}/{member.name}"
            found[path] = member
            rows.append(Row(path, member.label, side))
    if len(broken) > request.max_bad * len(place.shards):
        raise _too_many(place, broken)
    if not rows:
        raise _nothing(place, [*broken, *skipped])
    if not are_sides(rows.sides.different):
        rows = Rows.of(rows.paths, rows.labels, Names(None for _ in rows), rows.groups)
    rows = _named(rows, place.names(), request.progress)

    def shard_of(row: Named) -> str:
        return row.path[: -len(found[row.path].name) - 1]

    return Source(
        name=place.name,
        layout="webdataset",
        rows=rows,
        read=lambda row: place.read(shard_of(row), found[row.path]),
        skipped=[*broken, *skipped],
        uri=lambda row: place.uri(shard_of(row), found[row.path]),
        stamp=lambda row: place.shards[shard_of(row)],
        digest=lambda row: bytes.fromhex(found[row.path].digest),
        within=lambda _: "shard",
    )


def _names_of(shards: Collection[str]) -> list[str]:
    """Where the names of classes may stand: in the folder that was named, or in the one below it that holds all shards."""
    below = posixpath.commonpath([posixpath.dirname(shard) for shard in shards]) if shards else ""
    return list(dict.fromkeys([NAMES, posixpath.join(below, NAMES)]))


class _Disk:
    """Shards of a folder of this machine. shards: by their paths in it their stamps."""

    def __init__(self, given: Path, files: Mapping[str, Stamp | None] | None) -> None:
        self.shown, self.name = str(given), short_name(NAME.sub("", given.resolve().name))
        self._root = given.absolute().parent if given.is_file() else given.absolute()
        if files is None:
            files = dict.fromkeys([given.name] if given.is_file() else files_below(given, []))
        self.shards = {name: stamp_of(str(self._root / name)) for name in files if is_shard(name)}

    def open(self, shard: str) -> IO[bytes]:
        return (self._root / shard).open("rb", buffering=0)

    def key(self, shard: str) -> str:
        return str(self._root / shard)

    def read(self, shard: str, member: Member) -> bytes:
        with (self._root / shard).open("rb") as file:
            file.seek(member.start)
            return file.read(member.size)

    def uri(self, shard: str, member: Member) -> None:
        del shard, member

    def names(self) -> list[str]:
        for path in _names_of(self.shards):
            with suppress(OSError):
                return (self._root / path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return []


class _Bucket:
    """Shards below an address."""

    def __init__(self, address: str, request: Request, files: Mapping[str, Stamp | None] | None) -> None:
        self.shown, self._folder = address, split(address)
        path = PurePosixPath(unquote(self._folder.path))
        self.name = short_name(NAME.sub("", path.name) or self._folder.netloc.rpartition("@")[2])
        if is_shard(path.name):
            self._folder = self._folder._replace(path=quote(str(path.parent)))
            files = {path.name: stamp_at(address)}
        elif files is None:
            files = listed(address, request)
        self.shards = {name: stamp for name, stamp in files.items() if is_shard(name)}

    def open(self, shard: str) -> IO[bytes]:
        return cast(IO[bytes], open_address(self.key(shard)))

    def key(self, shard: str) -> str:
        path = f"{unquote(self._folder.path).rstrip('/')}/{shard}"
        return urlunsplit(self._folder._replace(path=quote(path)))

    def read(self, shard: str, member: Member) -> bytes:
        return photo_at(self.uri(shard, member))

    def uri(self, shard: str, member: Member) -> str:
        return part_of(self.key(shard), member.start, member.size)

    def names(self) -> list[str]:
        for path in _names_of(self.shards):
            with suppress(OSError, ReheadError), closing(cast(IO[bytes], open_address(self.key(path)))) as file:
                return bytes(file.read(MOST_NAMES)).decode("utf-8-sig", "replace").splitlines()
        return []


def _indices(place: _Disk | _Bucket, request: Request) -> Iterator[tuple[str, Index]]:
    """The shards of a place, in order, and what each holds."""
    request.progress.phase("Reading", len(place.shards), "shards")
    readers = request.readers if isinstance(place, _Bucket) else None
    at_once = readers.at_once if readers else 2 * n_cores()

    def index_of(shard: str) -> Index:
        kept = _kept_in(request.cache, place.key(shard), place.shards[shard])
        if (index := _read_index(kept)) is None:
            index = _there(readers, place.key(shard)) if readers else None
            index = index or _index_here(functools.partial(place.open, shard))
            if kept is not None and not index.broken:
                with suppress(OSError):
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    write_text(kept, json.dumps(astuple(index)))
        return index

    found = ordered_map(index_of, place.shards, workers=at_once, ahead=2 * at_once)
    for shard, index in zip(place.shards, found, strict=True):
        request.progress.advance()
        yield shard, index


def _there(readers: far.Readers, address: str) -> Index | None:
    """The index made by another machine, None where it cannot read the shard."""
    [told] = readers.each(indexed_at, [address])
    return Index(broken=told) if isinstance(told, str) else told


def indexed_at(addresses: list[str]) -> list[Index | str | None]:
    """What the shard at each address holds, None where this machine cannot read it: another may."""

    def one(address: str) -> Index | None:
        try:
            with cast(IO[bytes], open_address(address)) as stream:
                return indexed(stream)
        except (OSError, ReheadError):
            return None

    return [one(address) for address in addresses]


def _index_here(opened: Callable[[], IO[bytes]]) -> Index:
    try:
        with opened() as stream:
            return indexed(stream)
    except FileNotFoundError:
        return Index(broken=NOT_THERE)
    except OSError as error:
        return Index(broken=f"cannot be read: {error.strerror or error}")


def _kept_in(cache: Path, key: str, stamp: Stamp | None) -> Path | None:
    """The file of a shard's index; None where nobody says when the shard changes."""
    import blake3

    if stamp is None or max(stamp[1:]) > time.time_ns() - int(RACY_S * 1e9):  # which may change again unseen
        return None

    def named(*what: object) -> str:
        return blake3.blake3(repr((FORMAT, *what)).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    return cache / INDEX / named(key.rpartition("/")[0]) / f"{named(key, stamp)}.json"


def _read_index(kept: Path | None) -> Index | None:
    """None where there is none, or it is damaged."""
    if kept is None:
        return None
    try:
        photos, skipped, broken = json.loads(kept.read_text(encoding="utf-8"))
        with suppress(OSError):
            os.utime(kept)  # `cache clear --older-than` goes by the last use
        return Index([Member(*one) for one in photos], [(name, reason) for name, reason in skipped], broken)
    except (OSError, ValueError, TypeError):
        return None


def _named(rows: Rows, names: Sequence[str], progress: Progress) -> Rows:
    """The rows with the names of classes in place of their numbers, where all are numbers of one; else that is told."""
    names = [label_of(name) for name in names]
    if not names:
        return rows
    times = Counter(names)
    names = [
        f"{name} ({n})" if name and times[name] > 1 else name for n, name in enumerate(names)
    ]  # ImageNet has two cranes
    fits = (label.isdecimal() and int(label) < len(names) and names[int(label)] for label in rows.labels.different)
    if not all(fits):
        progress.note(
            f"{NAMES} is left out: of its {len(names)} lines, the first of which names class 0, some class has none"
        )
        return rows
    labels = Names(names[int(label)] for label in rows.labels)
    return Rows.of(rows.paths, labels, rows.sides, rows.groups)


def _too_many(place: _Disk | _Bucket, broken: Sequence[Skip]) -> TooManyBad:
    error = TooManyBad(
        what=f"{len(broken)} of {counted(len(place.shards), 'shard')} in {place.shown} cannot be read to the end.",
        why="; ".join(f"{skip.path} {skip.reason}" for skip in broken[:3]) + ".",
        fix="Mend what is said of them, or copy them again; or allow more with --max-bad.",
    )
    error.skips = broken
    return error


def _nothing(place: _Disk | _Bucket, skipped: Sequence[Skip]) -> SourceError:
    are_gone = all(skip.reason == NOT_THERE for skip in skipped)
    return (NothingThere if are_gone else SourceError)(
        what=f"{place.shown} has no shard with a photo and its label.",
        why="; ".join(f"{skip.path} {skip.reason}" for skip in skipped[:3]),
        fix="A sample is a photo and, under the same name, a .cls, .json or .txt: 000017.jpg with 000017.cls.",
    )
