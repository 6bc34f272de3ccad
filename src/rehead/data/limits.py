"""How much an archive may unpack to, counted while it is unpacked: nothing it says of itself is believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rehead.errors import UnsafeArchive
from rehead.progress import Progress

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an archive may unpack to.

    n_bytes: above the largest archives of photos in use (ImageNet: 150 GiB). ratio: photos are compressed already and
    gain almost nothing, plain bitmaps of flat colour up to 100 times; bombs 1,000 times and more. free_bytes: so much
    harms nobody, whatever the ratio. n_members: the largest public collections in one archive have some millions.
    depth: Kaggle has a zip inside the zip; one more is allowed.
    """

    n_bytes: int = 200 * GIB
    ratio: int = 200
    free_bytes: int = GIB
    n_members: int = 5_000_000
    depth: int = 3


@dataclass
class Meter:
    """What was unpacked so far, against what may be. Raises UnsafeArchive when it is too much."""

    archive: Path
    limits: Limits
    progress: Progress
    n_bytes: int = 0
    n_members: int = 0

    def __post_init__(self) -> None:
        by_ratio = self.limits.ratio * self.archive.stat().st_size
        self.allowed_bytes = min(self.limits.n_bytes, max(self.limits.free_bytes, by_ratio))

    def add_bytes(self, n: int) -> None:
        self.n_bytes += n
        self.check(self.n_bytes)

    def check(self, n_bytes: int) -> None:
        if n_bytes > self.allowed_bytes:
            raise self._bomb(f"It unpacks to more than {self.allowed_bytes:,} bytes.")

    def add_member(self) -> None:
        self.n_members += 1
        self.progress.advance()
        if self.n_members > self.limits.n_members:
            raise self._bomb(f"It has more than {self.limits.n_members:,} members.")

    def hostile(self, why: str) -> UnsafeArchive:
        """The error to raise for a member that means harm."""
        what = f"{self.archive} was refused: {why}."
        return UnsafeArchive(what=what, fix="Do not unpack it unless you know where it comes from.")

    def _bomb(self, why: str) -> UnsafeArchive:
        what = f"{self.archive} was refused: it unpacks to far more than an archive of photos should."
        return UnsafeArchive(what=what, why=why, fix="If you trust it, unpack it yourself and pass the folder.")
