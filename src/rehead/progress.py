"""What a long job tells of itself while it runs. How that looks is left to whoever listens (`cli/terminal.py`)."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Laws: `phase` ends the phase before it; `advance` never goes past `total`; every call is cheap and never raises."""

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None:
        """A new stretch of work: `total` units of it, or an unknown number."""

    def advance(self, n: int = 1) -> None:
        """`n` more units are done."""

    def status(self, text: str) -> None:
        """What stands beside the bar from now on, in place of what stood there."""

    def note(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """Tells nothing."""

    def phase(self, name: str, total: int | None = None, unit: str = "photos") -> None: ...

    def advance(self, n: int = 1) -> None: ...

    def status(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...
