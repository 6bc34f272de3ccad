"""The rows of a source, read once: which of them are photos, and the digest of each.

By several threads here, or by other machines where rows have addresses. What an earlier job read, and did not change since, is
known (`known.py`). A row is a photo if its content says so; nothing is decoded.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import blake3

from rehead.data import far
from rehead.data.addresses import read_address
from rehead.data.columns import Digests, Rows
from rehead.data.known import Look, open_known, stamp_of
from rehead.data.layouts import PICTURE_NAMES
from rehead.data.photo_bytes import HEAD_BYTES
from rehead.data.rows import NOT_THERE, Photo, Row, Skip, Source, Stamp, bounded
from rehead.errors import PhotoError, ReheadError, SourceError
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import IS_HEIC, is_image, why_unidentified
from rehead.progress import Progress

CHUNK = 128  # files a thread reads at a time; more makes the bar jump, fewer costs switching
REMEMBERED, SEEN = 10_000, 4_000  # files that are written into the index, and photos that are kept, at once
COMPANIONS = (".jxl", ".heic", ".heif")  # which cameras and programs put beside a picture that all can read
MAX_WORKERS = (
    4  # a slow disk answers several at once; on one that does not wait, more than the cores took twice the time
)


Seen = tuple[bytes, Any]  # a digest, and what else was wanted of a photo


def photos_of(
    source: Source,
    progress: Progress,
    cache: Path | None = None,
    readers: far.Readers | None = None,
    besides: far.Besides | None = None,
) -> tuple[Rows, Digests]:
    """The rows that are photos, and their digests; others are added to `source.skipped` when somebody would miss them.

    besides: what else is wanted of photos; it is taken of those that have an address and are read. Raises SourceError where
    there are none.
    """
    progress.phase("Reading", len(source.rows), "files")
    digests, away, n = Digests(), set[int](), 0
    how = At(functools.partial(_identify, source, None), min(MAX_WORKERS, max(2, n_cores())), CHUNK)
    if any(source.uri(row) is not None for row in source.rows):
        look = besides.look if besides else None
        how = At(functools.partial(_identify, source, look), far.n_readers(), far.FEW)
        if readers is not None:
            how = At(functools.partial(_identify_there, source, look, readers), readers.at_once, far.CHUNK)
    seen: list[Seen] = []
    n_told = len(source.skipped)
    for rows, results in _chunks(source, how, cache, seen):
        if besides and len(seen) >= SEEN:
            besides.keep(seen)
            seen.clear()
        for place, (row, result) in enumerate(zip(rows, results, strict=True), n):
            if isinstance(result, bytes):
                digests.append(result)
                continue
            away.add(place)
            if result:
                source.skipped.append(Skip(row.path, result))
        n += len(rows)
        progress.advance(len(rows))
    if besides:
        besides.keep(seen)
    if not digests:
        raise _nothing(source)
    every = source.rows if isinstance(source.rows, Rows) else Rows(source.rows)
    photos = every.without(away)
    source.skipped[n_told:] = _with_companions_aside(source, source.skipped[n_told:], photos)
    return photos, digests


def _with_companions_aside(source: Source, skipped: list[Skip], photos: Rows) -> list[Skip]:
    """What stands beside a photo of the same name, in a format that is not read here, is no photo that is lost."""
    may_be = {
        skip.path for skip in skipped if PurePath(skip.path).suffix.lower() in COMPANIONS and not source.is_named(skip)
    }
    stems = set(map(_stem, may_be))
    there = stems.intersection(map(_stem, photos.paths)) if stems else stems
    return [
        replace(skip, kind="aside") if skip.path in may_be and _stem(skip.path) in there else skip for skip in skipped
    ]


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


Chunk = list[tuple[Row, Look]]


@dataclass(frozen=True)
class At:
    """How rows are read: by what, so many chunks at once, of so many rows."""

    identify: Callable[[Chunk], list[bytes | str | Seen]]
    at_once: int
    chunk: int


def _chunks(
    source: Source, how: At, cache: Path | None, seen: list[Seen]
) -> Iterator[tuple[list[Row], list[bytes | str]]]:
    """The rows, some at a time, with what is said of them, by several threads; what is new is remembered. seen: is given what
    else was found of photos."""
    with open_known(cache) if cache is not None else nullcontext() as known:

        def looked() -> Iterator[Chunk]:
            for rows in batched(source.rows, how.chunk):
                looks = known.look([_stamped(source, row) for row in rows]) if known else [Look(None, None)] * len(rows)
                looks = [
                    look if (read := source.digest(row)) is None else Look(None, read)
                    for row, look in zip(rows, looks, strict=True)
                ]
                chunk = list(zip(rows, looks, strict=True))
                under_way.append(chunk)
                yield chunk

        under_way: deque[Chunk] = deque()
        new: list[tuple[str, Stamp, bytes]] = []
        for told in ordered_map(how.identify, looked(), workers=how.at_once, ahead=4 * how.at_once):
            chunk = under_way.popleft()
            seen += [one for one in told if isinstance(one, tuple)]
            results = [one[0] if isinstance(one, tuple) else one for one in told]
            for (row, look), result in zip(chunk, results, strict=True):
                if look.stamp and look.digest is None and isinstance(result, bytes):
                    new.append((str(_place(source, row)), look.stamp, result))
            if known and len(new) >= REMEMBERED:
                known.remember(new)
                new.clear()
            yield [row for row, _ in chunk], results
        if known:
            known.remember(new)


def _place(source: Source, row: Row) -> str | None:
    """The file or the address of a row."""
    return source.file(row) or source.uri(row)


def _stamped(source: Source, row: Row) -> tuple[str, Stamp | None] | None:
    """The same, and what changes when it does."""
    if (file := source.file(row)) is not None:
        return file, stamp_of(file)
    uri = source.uri(row)
    return None if uri is None else (uri, source.stamp(row))


def _identify(source: Source, look: Callable[[bytes], Any] | None, chunk: Chunk) -> list[bytes | str | Seen]:
    """For each row its digest, and what else is wanted, or the reason why it is no photo ("" when nobody would expect one)."""

    def decoded(data: bytes) -> Any:
        with far.DECODING:
            return look(data) if look else None

    return [
        known.digest
        or identified(functools.partial(source.read, row), row.path, source.is_named(row), look and decoded)
        for row, known in chunk
    ]


def _identify_there(
    source: Source, look: Callable[[bytes], Any] | None, readers: far.Readers, chunk: Chunk
) -> list[bytes | str | Seen]:
    """The same by other machines, of those that have an address and are not known."""
    uris = {
        n: uri for n, (row, known) in enumerate(chunk) if known.digest is None and (uri := source.uri(row)) is not None
    }
    asked = [(uri, chunk[n][0].path, source.is_named(chunk[n][0])) for n, uri in uris.items()]
    work = functools.partial(identified_at, look)
    told = dict(zip(uris, readers.each(work, asked), strict=True)) if asked else {}
    here = [n for n in range(len(chunk)) if told.get(n) is None]
    found = told | dict(zip(here, _identify(source, look, [chunk[n] for n in here]), strict=True))
    return [one for n in range(len(chunk)) if (one := found[n]) is not None]


def identified(
    read: Callable[[], bytes], path: str, named: bool, look: Callable[[bytes], Any] | None = None
) -> bytes | str | Seen:
    """The digest of what is read, or the reason why it is no photo ("" when nobody would expect one). named: whether a list
    says that it is one. look: gives what else is wanted of its bytes, None where it cannot."""
    try:
        data = read()
    except FileNotFoundError:
        return NOT_THERE
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except PhotoError as error:
        return error.what
    expected = named or PurePath(path).suffix.lower() in PICTURE_NAMES
    if not is_image(data[:HEAD_BYTES]):
        return why_unidentified(data) if expected else ""
    digest = blake3.blake3(data).digest()
    seen = look(data) if look else None
    return digest if seen is None else (digest, seen)


def checked(data: bytes, photo: Photo, since: str) -> bytes:
    """The bytes of a photo that was identified before. Raises PhotoError where they are others. since: when that was."""
    if blake3.blake3(data).digest() != photo.digest:
        raise PhotoError(what=f"is another picture than it was {since}")
    return data


def identified_at(
    look: Callable[[bytes], Any] | None, rows: list[tuple[str, str, bool]]
) -> list[bytes | str | Seen | None]:
    """The same of what is at each address, with its path and whether a list names it; None where this machine cannot read it:
    another may. One photo is looked at at a time."""
    alone = threading.Lock()

    def decoded(data: bytes) -> Any:
        with alone:
            return look(data) if look else None

    def one(row: tuple[str, str, bool]) -> bytes | str | Seen | None:
        uri, path, named = row
        try:
            data = read_address(uri)
        except (OSError, ReheadError):
            return None
        return identified(lambda: data, path, named, look and decoded)

    return list(ordered_map(one, rows, workers=far.AT_ONCE, ahead=2 * far.AT_ONCE))


def _nothing(source: Source) -> SourceError:
    named = any(map(source.is_named, source.rows))
    reasons = list(dict.fromkeys(skip.reason for skip in source.skipped))
    why = "; ".join(f"{bounded(skip.path)} {skip.reason}" for skip in source.skipped[:3])
    if len(reasons) == 1 and len(source.skipped) > 1:
        why = f"Each of {len(source.skipped)}, such as {bounded(source.skipped[0].path)}, {reasons[0]}"
    fix = "Mend what the list names." if named else "Pass a folder with one folder of photos for each class."
    if reasons == [IS_HEIC]:
        fix = 'Install it with: pip install "rehead[heic]"'
    elif not named and 2 * sum(skip.kind == "broken" for skip in source.skipped) > len(source.rows):
        fix = "Mend these files, or pass others."
    return SourceError(
        what=f"{source.name} has no photo that can be read.",
        why=why or f"{len(source.rows)} files were looked at, none of them an image.",
        fix=fix,
    )
