"""How much the service takes on: every bound in one place, with its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rehead.tuning.familiar import K

MAX_TOP = 10_000  # classes that a request may have listed: as many as any model of ours was tried with
MAX_NEAREST = K  # photos learned from that it may ask for: a bundle tells of no more


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The defaults are for a machine of a few cores that sees about a hundred photos a second.

    body_bytes: of one request: twenty photos as phones take them. held_bytes: of the bodies of all requests under way;
        beside them lie at most as many again while they are taken apart. images: of one request.
    pixels: of one picture, as its header says them: 64 times 2^20, so that the photos of phones with 64 megapixels fit; fewer
        where a format's decoder takes more memory, see `dimensions.py`. Each thread holds one at a time: 8 bytes a pixel, so
        512 MiB, and half a second to two and a half for a PNG of that size.
    queue: photos that wait: some seconds of work, and whoever comes later does better to come again.
    request_s: from the whole body to the answer. body_s, body_idle_s: until the body is there, and between two pieces of it.
        header_s: until headers begin, and from then until they are there. connection_s: any one exchange, a reader that
        never reads included.
    connections: at once, well below the 1,024 open files that systems allow. linger_s: how long a body that was refused is
        still read and thrown away, so that its sender sees why. shutdown_s: what is under way may take so long at the end.
    watch_s: between two looks whether a bundle was replaced, a few calls of stat.
    """

    body_bytes: int = 96 << 20
    held_bytes: int = 256 << 20
    images: int = 64
    pixels: int = 64 << 20
    queue: int = 256
    request_s: float = 30.0
    body_s: float = 120.0
    body_idle_s: float = 10.0
    header_s: float = 10.0
    connection_s: float = 300.0
    connections: int = 512
    linger_s: float = 10.0
    shutdown_s: int = 30
    watch_s: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
