"""Photos that are held out by name, as with --valid and --test: put behind those that are learned from, as one source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from rehead.data.columns import Rows
from rehead.data.rows import Named, Row, Skip, Source
from rehead.errors import counted

T = TypeVar("T")


def joined(main: Source, held_out: dict[str, Source]) -> Source:
    """The rows of all of them, each path made unique; those of `main` that have a side which is named apart are left out."""
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
    )


def replaced(main: Source, held_out: Iterable[str]) -> list[Skip]:
    """A word for each side whose photos give way to others."""
    n_own = Counter(row.side for row in main.rows)
    why = "is the photos' own side ({1}) and left out, as --{0} names others"
    return [Skip(side, why.format(side, counted(n_own[side], "photo"))) for side in held_out if n_own[side]]


def _way(main: Source, other: Source, side: str) -> str:
    """How paths of `other` begin as seen from `main`: a relative path between folders, else a name."""
    if main.root and other.root:
        try:
            return os.path.relpath(other.root, main.root).replace(os.sep, "/")
        except ValueError:  # on two drives of Windows
            return other.root.as_posix()
    return side if other.layout in ("dataset", "huggingface") else other.name
