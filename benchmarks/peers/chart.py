"""One mode as a picture: for each peer a row, for each set of photos a panel with seconds (log axis) and accuracy.

SVG without scripts or fonts of its own; its colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from summary import Row

LABELS, PANEL, GAP, ROW = 222, 256, 22, 24  # pixels
TITLE = 580  # what the longest title takes
TOP, BOTTOM, ACCURACY, BESIDE = 94, 34, 50, 40  # above and below all rows; of a panel, at its right; beside a dot
STYLE = """
.page { fill: #ffffff } .ink { fill: #1f2328 } .quiet { fill: #59636e } .grid { stroke: #d1d9e0 }
.stem { stroke: #a5b0bb } .dot { fill: #6e7b88 } .ours.stem { stroke: #2f7d5b } .ours.dot { fill: #2f7d5b }
.ours.ink { fill: #1d6a49; font-weight: 600 }
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif } .title { font-size: 14px; font-weight: 600 }
.small { font-size: 11px } .end { text-anchor: end } .middle { text-anchor: middle }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .ink { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #30363d }
.stem { stroke: #56606b } .dot { fill: #9aa5b1 } .ours.stem { stroke: #4cc38a } .ours.dot { fill: #4cc38a }
.ours.ink { fill: #67d8a0 }
}"""


def chart(by_data: Mapping[str, Sequence[Row]], title: str) -> str:
    """The picture as SVG. by_data: the rows of each set of photos."""
    peers = order(by_data)
    low, high = _decades([row.wall_s for found in by_data.values() for row in found if row.wall_s])
    width = max(LABELS + len(by_data) * (PANEL + GAP), TITLE)
    height = TOP + ROW * len(peers) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}: seconds to a verified number, and accuracy</title><style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(12, 24, f"{title[:1].upper()}{title[1:]}", "ink title"),
        _text(12, 43, "Seconds from the shell to a verified number, log axis", "quiet small"),
    ]
    parts += [_text(LABELS - 12, _y(i), titled, f"{_ours(peer)}ink end") for i, (peer, titled) in enumerate(peers)]
    for column, (data, found) in enumerate(by_data.items()):
        left = LABELS + column * (PANEL + GAP)
        parts += _panel(left, data, {row.peer: row for row in found}, [peer for peer, _ in peers], (low, high), height)
    return "\n".join([*parts, "</svg>\n"])


def order(by_data: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    """Peers with titles, the fastest first on the first photos that they were measured on; then those that failed everywhere.

    A peer that cannot do this is left to the table.
    """
    seconds: dict[tuple[str, str], list[float]] = {}  # by photos
    for row in (row for found in by_data.values() for row in found):
        if row.wall_s or not row.trouble.startswith("cannot"):
            seconds.setdefault((row.peer, row.title), []).extend([row.wall_s] if row.wall_s else [])
    return sorted(seconds, key=lambda peer: (seconds[peer] or [math.inf])[0])


def _panel(
    left: float, data: str, row_by_peer: Mapping[str, Row], peers: list[str], decades: tuple[int, int], height: float
) -> list[str]:
    low, high = decades
    span = PANEL - ACCURACY - BESIDE

    def x(seconds: float) -> float:
        return left + span * (math.log10(seconds) - low) / (high - low)

    parts = [_text(left, TOP - 26, data, "ink title"), _text(left + PANEL, TOP - 26, "right", "quiet small end")]
    for power in range(low, high + 1):
        at = x(10**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 14}" y2="{height - BOTTOM + 2}"/>')
        parts.append(
            _text(
                at,
                height - BOTTOM + 18,
                f"{10**power:,}" if power >= 0 else f"{10.0**power:g}",
                "quiet small middle",
            )
        )
    for i, peer in enumerate(peers):
        row, y = row_by_peer.get(peer), _y(i) - 4
        if row is None or row.wall_s is None or row.right is None:
            parts.append(
                _text(left, y + 4, "not measured" if row is None else row.trouble.split(":")[0], "quiet small")
            )
            continue
        ours = _ours(peer)
        parts.append(
            f'<line class="{ours}stem" stroke-width="2" x1="{left}" x2="{x(row.wall_s):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<circle class="{ours}dot" r="5" cx="{x(row.wall_s):.1f}" cy="{y}"/>')
        seconds = f"{row.wall_s:.1f}" if row.wall_s < 20 else f"{row.wall_s:,.0f}"
        parts.append(_text(x(row.wall_s) + 9, y + 4, seconds, f"{ours}ink small"))
        parts.append(_text(left + PANEL, y + 4, f"{100 * row.right.value:.1f} %", f"{ours}ink small end"))
    return parts


def _y(i: int) -> float:
    return TOP + ROW * i + ROW / 2


def _ours(peer: str) -> str:
    return "ours " if peer.startswith("rehead") else ""


def _decades(seconds: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around all of them, one apart at least."""
    low = math.floor(math.log10(min(seconds)))
    return low, max(low + 1, math.ceil(math.log10(max(seconds))))


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
