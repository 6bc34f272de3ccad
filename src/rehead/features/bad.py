"""Photos that cannot be read: why, when they are too many, and the list of them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rehead.csv_rows import csv_writer
from rehead.data.rows import Named, Skip, bounded
from rehead.durable import write_text
from rehead.errors import PhotoError, TooManyBad, counted

BAD_LIST = "skipped.csv"  # in the cache: a job that is stopped leaves no run to put it into
N_NAMED = 3


def skip_of(photo: Named, error: PhotoError | OSError) -> Skip:
    """Why a photo is left out that cannot be read."""
    return Skip(
        photo.path, error.what if isinstance(error, PhotoError) else f"cannot be read: {error.strerror or error}"
    )


def check_bad(
    bad: Collection[Skip],
    n_photos: int,
    max_bad: float,
    *,
    so_far: bool = False,
    before: Sequence[Skip] = (),
    n_all: int = 0,
) -> None:
    """Raises TooManyBad when more than `max_bad` of the photos are bad: of these `n_photos`, or of all there are.

    before: what was found to be bad before these were looked at, as in `Catalog.bad`. n_all: all photos, both kinds of bad
    ones included, as in `Catalog.n_all`. so_far: not all were looked at.
    """
    if len(bad) > max_bad * n_photos:
        raise too_many_bad(list(bad), n_photos, max_bad, so_far=so_far)
    if before and len(before) + len(bad) > max_bad * n_all:
        raise too_many_bad([*before, *bad], n_all, max_bad, so_far=so_far)


def too_many_bad(skips: Sequence[Any], seen: int, max_bad: float, *, so_far: bool = False) -> TooManyBad:
    """The error for a share of unreadable photos above `max_bad`. so_far: not all were looked at."""
    what = f"{len(skips)} of {counted(seen, 'photo')} cannot be read{' so far' if so_far else ''}"
    more = ", or allow more with --max-bad 0.5" if 2 * len(skips) < seen else ""
    return _bad(f"{what}, which is more than {100 * max_bad:.4g}%.", skips, f"Mend or remove them{more}.")


def none_read(skips: Sequence[Any]) -> TooManyBad:
    """The error where not one of the photos can be read."""
    return _bad(f"None of {counted(len(skips), 'photo')} can be read.", skips, "Mend them, or bring others.")


def _bad(what: str, skips: Sequence[Any], fix: str) -> TooManyBad:
    first = "; ".join(f"{bounded(skip.path, 200)} {skip.reason}" for skip in skips[:N_NAMED])
    error = TooManyBad(what=what, why=first + (" ..." if len(skips) > N_NAMED else ""), fix=fix)
    error.skips = skips
    return error


@contextlib.contextmanager
def listed(path: Path) -> Iterator[None]:
    """When too many photos are bad, those that were found are written to `path`, and the error names it."""
    try:
        yield
    except TooManyBad as error:
        try:
            write_text(path, bad_table(error.skips))
        except OSError:  # the error itself is worth more than its list
            raise error from None
        why = f"{error.why}; {path} lists all {len(error.skips)}."
        raise TooManyBad(what=error.what, why=why, fix=error.fix) from None


def bad_table(skips: Sequence[Any]) -> str:
    """path,reason,kind as CSV."""
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(["path", "reason", "kind"])
    writer.writerows((skip.path, skip.reason, skip.kind) for skip in skips)
    return text.getvalue()
