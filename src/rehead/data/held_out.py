"""Photos that are held out by name, as with --valid and --test: apart from those that are learned from, and behind them in one
source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from rehead.data.addresses import is_address, path_of, split
from rehead.data.columns import Rows
from rehead.data.rows import Named, Row, Skip, Source
from rehead.data.web import WEB
from rehead.errors import NothingThere, SourceError, counted
from rehead.progress import Progress

T = TypeVar("T")


def apart(main: Source, held_out: Iterable[Source], progress: Progress) -> Source:
    """`main` without the photos that lie where one lies that is held out, with a word: a table may name these too.

    Raises SourceError where none is left.
    """
    taken = {place for source in held_out for place in map(_lies_at(source), source.rows) if place is not None}
    place = _lies_at(main)
    rows = Rows(row for row in main.rows if place(row) not in taken)
    if not rows:
        raise _at_once(f"All photos of {main.name} are", NothingThere)
    n = len(main.rows) - len(rows)
    if n:
        progress.note(
            f"{counted(n, 'photo')} of {main.name} {'is' if n == 1 else 'are'} held out, and not learned from"
        )
    return replace(main, rows=rows) if n else main


def _lies_at(source: Source) -> Callable[[Named], object]:
    """Where a photo of a source lies, whatever way leads there; None where it has no place of its own."""
    real = lru_cache(os.path.realpath)

    def place(row: Named) -> object:
        if (file := source.file(row)) is not None:
            folder, name = os.path.split(file)
            full = os.path.join(real(folder), name)
            return os.path.realpath(full) if os.path.islink(full) else full
        uri = source.uri(row)
        return None if uri is None else _placed(uri)

    return place


def joined(main: Source, held_out: dict[str, Source], *, is_train: bool) -> Source:
    """The rows of all of them, each path made unique; those of `main` that have a side which is named apart are left out.

    is_train: whether `main` was named as the training side.
    """
    sided = {row.path for row in main.rows if row.side}
    rows = Rows(row if row.side else replace(row, side="train") for row in main.rows if row.side not in held_out)
    taken = set(rows.paths)
    origin: dict[str, tuple[Source, Row]] = {}
    skipped = list(main.skipped)
    for side, source in held_out.items():
        prefix = _way(main, source, side)
        skipped.extend(replace(skip, path=f"{prefix}/{skip.path}") for skip in source.skipped)
        for row in source.rows:
            path = row.path if os.path.isabs(row.path) else f"{prefix}/{row.path}"
            while path in taken:
                path = f"{side}:{path}"
            taken.add(path)
            origin[path] = source, row
            rows.append(Row(path, row.label, side, row.group))

    def of(row: Named) -> tuple[Source, Named]:
        return origin.get(row.path, (main, row))

    def by(ask: Callable[[Source, Named], T]) -> Callable[[Named], T]:
        return lambda row: ask(*of(row))

    return replace(
        main,
        rows=rows,
        skipped=skipped,
        read=by(lambda source, row: source.read(row)),
        file=by(lambda source, row: source.file(row)),
        uri=by(lambda source, row: source.uri(row)),
        stamp=by(lambda source, row: source.stamp(row)),
        digest=by(lambda source, row: source.digest(row)),
        is_named=by(lambda source, row: source.is_named(row)),
        within=by(lambda source, row: source.within(row)),
        is_rest=lambda row: not is_train and row.path not in origin and row.path not in sided,
    )


def replaced(main: Source, held_out: Iterable[str]) -> list[Skip]:
    """A word for each side whose photos give way to others."""
    n_own = Counter(row.side for row in main.rows)
    why = "is the photos' own side ({1}) and left out, as --{0} names others"
    return [Skip(side, why.format(side, counted(n_own[side], "photo")), "aside") for side in held_out if n_own[side]]


def place_of(source: object) -> Path | str | None:
    """The folder or file that is read for a side, or its address in a store; None for what is neither."""
    path = path_of(source)
    if path is None:
        return str(source) if is_address(source) else None
    return path if os.path.exists(path) else None


def check_apart(source: object, held_out: Iterable[Path | str]) -> None:
    """Raises SourceError where one of the places that are held out is the source."""
    place = place_of(source)
    for other in held_out:
        if _are_same(place, other):
            raise _at_once(f"{other} is")


def _at_once(what: str, kind: type[SourceError] = SourceError) -> SourceError:
    return kind(
        what=f"{what} to be tuned on and held out at once.",
        why="Photos that the head has seen say nothing of those it has not.",
        fix="Name another folder, or leave out --valid and --test: some photos are then held out.",
    )


def way_from(address: str, other: str) -> str | None:
    """The path of another address as seen from a folder's, "" for the folder itself; None for what is elsewhere."""
    (store, folder), (other_store, path) = map(_placed, (address, other))
    if store != other_store:
        return None
    if path == folder:
        return ""
    return path.removeprefix(f"{folder}/") if not folder or path.startswith(f"{folder}/") else None


def _way(main: Source, other: Source, side: str) -> str:
    """How paths of `other` begin as seen from `main`: a relative path between folders, else a name."""
    if main.root and other.root:
        try:
            return os.path.relpath(other.root, main.root).replace(os.sep, "/")
        except ValueError:  # on two drives of Windows
            return other.root.as_posix()
    return side if other.layout in ("dataset", "huggingface") else other.name


def _are_same(one: Path | str | None, other: Path | str) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.samefile(other)
    return isinstance(one, str) and isinstance(other, str) and way_from(one, other) == ""


def _placed(address: str) -> tuple[tuple[str, ...], str]:
    """The store of an address, whoever asks it, and with which options, and the path there."""
    parts = split(address)
    scheme = parts.scheme.lower()
    store = scheme, parts.netloc.rpartition("@")[2].lower(), parts.query * (scheme in WEB)
    return store, unquote(parts.path).strip("/")
