"""The facts of many photos, by several threads, kept by digest in one file of the cache, so that none is decoded twice.

What cannot be kept is computed again: a damaged, locked or unwritable file costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from rehead.auditing.facts import Facts, Hashed, facts_of, hash_of
from rehead.data import far
from rehead.data.addresses import photo_at
from rehead.data.catalog import Catalog
from rehead.data.rows import Skip
from rehead.errors import PhotoError
from rehead.parallel import batched, n_cores, ordered_map
from rehead.progress import Progress, Silent

FILE = "facts-4.sqlite"  # the number is that of the facts and the table: others, another file
MAX_ASKED = 500  # at once; some builds of SQLite allow 999
WAIT_S = 5.0  # for another job that writes
CHUNK = 16  # photos a thread decodes at a time
NAMES = tuple(field.name for field in fields(Facts) if field.name != "hash")
HASH = 32  # bytes
REMEMBERED = 4_000  # photos that are written at once; one takes 30 us where it is 1,000, and 12 where it is 10,000
T = TypeVar("T")
By: TypeAlias = Callable[[bytes], Facts | Hashed]  # what is taken of an encoded picture


class Kept:
    """The facts as `far.Besides`: taken when a photo at an address is read, they need no second reading."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    @property
    def look(self) -> Callable[[bytes], Facts | None]:
        return facts_or_none

    def keep(self, found: Sequence[tuple[bytes, Any]]) -> None:
        with _open(self._cache) as connection:
            _remember(connection, found)


def facts_or_none(data: bytes) -> Facts | None:
    try:
        return facts_of(data)
    except PhotoError:
        return None


def facts_of_photos(
    catalog: Catalog,
    positions: Sequence[int],
    cache: Path | None,
    progress: Progress | None = None,
    readers: far.Readers | None = None,
) -> tuple[dict[int, Facts], dict[int, Skip]]:
    """The facts of the photos at these positions, and the reason for each that cannot be had.

    cache: the folder where they are kept, None: nowhere. readers: machines that look at what has an address.
    """
    found: dict[int, Facts] = {}
    bad: dict[int, Skip] = {}
    for i, facts in _told(_known, catalog, positions, cache, progress or Silent(), readers):
        if isinstance(facts, Skip):
            bad[i] = facts
        elif isinstance(facts, Facts):
            found[i] = facts
    return found, bad


def hashes_of_photos(
    catalog: Catalog,
    positions: Sequence[int],
    cache: Path,
    progress: Progress,
    readers: far.Readers | None,
    *,
    whole: bool,
    reads_far: bool = True,
) -> Iterator[tuple[int, bytes]]:
    """The perceptual hashes of those of these photos that have one which is not of noise, 32 bytes each, in any order. Many
    photos' facts would take thirty times as much memory. whole: whether the rest of the facts will be asked for too, so that
    all are taken at once. reads_far: whether what lies at addresses is read for it."""
    if not reads_far:
        digests = [*catalog.digests(positions)]
        with _open(cache) as connection:
            known = _known_hashes(connection, digests)
        positions = [
            i
            for i, digest in zip(positions, digests, strict=True)
            if digest in known or catalog.uri(catalog.photos[i]) is None
        ]
    for i, told in _told(_known_hashes, catalog, positions, cache, progress, readers, facts_of if whole else hash_of):
        if isinstance(told, Facts | Hashed) and not told.is_flat:
            yield i, told.hash.to_bytes(HASH, "big")
        elif isinstance(told, bytes) and told:
            yield i, told


def _told(
    known: Callable[[sqlite3.Connection | None, Sequence[bytes]], Mapping[bytes, T]],
    catalog: Catalog,
    positions: Sequence[int],
    cache: Path | None,
    progress: Progress,
    readers: far.Readers | None,
    by: By = facts_of,
) -> Iterator[tuple[int, T | Facts | Hashed | Skip]]:
    """What is known of photos by their digests, then what `by` says of the others, or why it says nothing; other machines say
    all that there is to say."""
    progress.phase("Looking at", len(positions))
    missing = array("q")
    with _open(cache) as connection:
        for some in batched(positions, REMEMBERED):
            digests = [*catalog.digests(some)]
            there = known(connection, digests)
            missing.extend(i for i, digest in zip(some, digests, strict=True) if digest not in there)
            progress.advance(len(there))
            yield from ((i, there[digest]) for i, digest in zip(some, digests, strict=True) if digest in there)
        new: list[tuple[bytes, Facts | Hashed]] = []
        look, at_once, n = functools.partial(_looked_at, catalog, by), n_cores(), CHUNK
        if any(catalog.uri(catalog.photos[i]) is not None for i in missing):
            at_once, n = far.n_readers(), far.FEW
            if readers is not None:
                look, at_once, n = functools.partial(_looked_there, catalog, readers, by), readers.at_once, far.CHUNK
        looked = ordered_map(look, batched(missing, n), workers=at_once, ahead=4 * at_once)
        with contextlib.closing(looked):
            for chunk in looked:
                new += [(catalog.photos[i].digest, facts) for i, facts in chunk if not isinstance(facts, Skip)]
                progress.advance(len(chunk))
                if len(new) >= REMEMBERED:
                    _remember(connection, new)
                    new.clear()
                yield from chunk
        _remember(connection, new)


def _looked_at(catalog: Catalog, by: By, positions: Sequence[int]) -> list[tuple[int, Facts | Hashed | Skip]]:
    return [(i, _said_or_reason(catalog, by, i)) for i in positions]


def _looked_there(
    catalog: Catalog, readers: far.Readers, by: By, positions: Sequence[int]
) -> list[tuple[int, Facts | Hashed | Skip]]:
    """The same by other machines, of photos that have an address."""
    rows = {i: (uri, photo.digest) for i in positions if (uri := catalog.uri(photo := catalog.photos[i])) is not None}
    told = dict(zip(rows, readers.each(facts_at, [*rows.values()]), strict=True)) if rows else {}
    found = {i: Skip(catalog.photos[i].path, one) if isinstance(one, str) else one for i, one in told.items()}
    return [(i, found.get(i) or _said_or_reason(catalog, by, i)) for i in positions]


def facts_at(rows: list[tuple[str, bytes]]) -> list[Facts | str | None]:
    """The facts of what is at each address, or why there are none; None where this machine has no way to it, or where other
    bytes are than those of the digest beside it. One photo is decoded at a time."""

    import blake3

    alone = threading.Lock()

    def one(row: tuple[str, bytes]) -> Facts | str | None:
        try:
            data = photo_at(row[0])
        except (OSError, PhotoError):
            return None
        if blake3.blake3(data).digest() != row[1]:
            return None
        try:
            with alone:
                return facts_of(data)
        except PhotoError as error:
            return error.what

    return list(ordered_map(one, rows, workers=far.AT_ONCE, ahead=2 * far.AT_ONCE))


def _said_or_reason(catalog: Catalog, by: By, position: int) -> Facts | Hashed | Skip:
    photo = catalog.photos[position]
    try:
        data = catalog.read(photo)
        with far.DECODING:
            return by(data)
    except PhotoError as error:
        return Skip(photo.path, error.what)
    except FileNotFoundError:
        return Skip(photo.path, "is not there any more")
    except OSError as error:
        return Skip(photo.path, f"cannot be read: {error.strerror or error}")


@contextlib.contextmanager
def _open(cache: Path | None) -> Iterator[sqlite3.Connection | None]:
    """The file in a cache folder; None where there can be none."""
    try:
        connection = sqlite3.connect(cache / FILE, timeout=WAIT_S) if cache is not None else None
    except sqlite3.Error:
        connection = None
    if connection is None:
        yield None
        return
    with contextlib.closing(connection):
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS facts"
                " (digest BLOB PRIMARY KEY, hash BLOB, flat INTEGER, facts TEXT)"  # in the order of digests: twice the time
            )
        yield connection


def _known(connection: sqlite3.Connection | None, digests: Sequence[bytes]) -> Mapping[bytes, Facts]:
    known: dict[bytes, Facts] = {}
    for digest, hashed, _, text in _rows(connection, digests, "facts"):
        with contextlib.suppress(ValueError, TypeError):
            known[digest] = _facts(hashed, text)
    return known


def _known_hashes(connection: sqlite3.Connection | None, digests: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Nothing where a hash is that of noise."""
    rows = _rows(connection, digests, "NULL")
    return {
        digest: b"" if flat else hashed
        for digest, hashed, flat, _ in rows
        if isinstance(hashed, bytes) and len(hashed) == HASH
    }


def _rows(connection: sqlite3.Connection | None, digests: Sequence[bytes], facts: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for asked in batched(digests if connection else (), MAX_ASKED):
        question = f"SELECT digest, hash, flat, {facts} FROM facts WHERE digest IN ({','.join('?' * len(asked))})"
        with contextlib.suppress(sqlite3.Error):
            assert connection is not None
            rows += connection.execute(question, asked)
    return rows


def _facts(hashed: bytes, text: str) -> Facts:
    values: dict[str, Any] = dict(zip(NAMES, json.loads(text), strict=True))
    values |= {name: tuple(values[name]) for name in ("border", "inside")}
    return Facts(**values, hash=int.from_bytes(hashed, "big"))


def _remember(connection: sqlite3.Connection | None, new: Sequence[tuple[bytes, Facts | Hashed]]) -> None:
    if connection is None:
        return
    rows = [
        (
            digest,
            said.hash.to_bytes(HASH, "big"),
            said.is_flat,
            json.dumps([getattr(said, name) for name in NAMES]) if isinstance(said, Facts) else None,
        )
        for digest, said in new
    ]
    with contextlib.suppress(sqlite3.Error), connection:
        connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", rows)
