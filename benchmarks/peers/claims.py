"""What is claimed beside other tools, from the rows of the tables: how many times the best of them takes what rehead takes,
and which is right on more of the held-out photos."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from photos import SETS
from summary import Facts, Row, rows

SOLVED, TUNED = "sklearn", "pytorch-tuned"  # what has no epochs; a loop of our own, which no documentation shows
NAMES = {"hymenoptera": "ants and bees", "dogscats": "cats and dogs", "flowers": "flowers"}


@dataclass(frozen=True)
class Claim:
    """of: the row of rehead. measure: seconds or megabytes of a row. wanted: how many times at least, None where nothing was.
    beside: the row of the one peer, None for the best of the tools that are trained as their documentation says."""

    text: str
    wanted: int | None
    mode: str
    measure: str = "wall_s"
    of: str = "rehead"
    beside: str | None = None


CLAIMS = (
    Claim("a head, cold: seconds of the fastest trained tool", 15, "head"),
    Claim("the same: of PyTorch's tuned loop", 15, "head", beside=TUNED),
    Claim("the same: of scikit-learn on timm's features", 2, "head", beside=SOLVED),
    Claim("a head by OpenVINO in bfloat16, cold: seconds of the fastest trained tool", 15, "head", of="rehead-openvino"),
    Claim("a head of the network in 8 bits, cold: seconds of the fastest trained tool", 15, "head", of="rehead-int8"),
    Claim("another head from the store: seconds of the fastest trained tool, which begins anew", 100, "head", of="rehead-warm"),
    Claim("the same: of PyTorch's tuned loop", 100, "head", of="rehead-warm", beside=TUNED),
    Claim("last stage: seconds of training an epoch of the fastest tool", 4, "last", "epoch_s"),
    Claim("the same: of PyTorch's tuned loop", 4, "last", "epoch_s", beside=TUNED),
    Claim("last stage, the whole job: seconds of the fastest tool", None, "last"),
    Claim("the same: of PyTorch's tuned loop", None, "last", beside=TUNED),
    Claim("everything learns: seconds of the fastest tool", 1, "full"),
    Claim("the same: of PyTorch's tuned loop", 1, "full", beside=TUNED),
    Claim("a head: peak MB of the leanest tool", 1, "head", "peak_mb"),
    Claim("last stage: peak MB of the leanest tool", 1, "last", "peak_mb"),
    Claim("everything learns: peak MB of the leanest tool", 1, "full", "peak_mb"),
)  # fmt: skip

LEARNED = (  # in words, the mode, the row of rehead
    ("a head", "head", "rehead"),
    ("a head by OpenVINO in bfloat16", "head", "rehead-openvino"),
    ("a head of the network in 8 bits", "head", "rehead-int8"),
    ("the last stage too", "last", "rehead"),
    ("everything", "full", "rehead"),
)


def claims(cells: list[Facts]) -> str:
    """A table in Markdown: each ratio and what it is of, in bold where it is what was wanted of what is as right."""
    lines = ["| times what rehead takes | wanted | " + " | ".join(map(NAMES.__getitem__, SETS)) + " |"]
    lines.append("| --- | ---: |" + " --- |" * len(SETS))
    for claim in CLAIMS:
        wanted = "–" if claim.wanted is None else str(claim.wanted)
        lines.append(
            f"| {claim.text} | {wanted} | {' | '.join(_cell(claim, rows(cells, data, claim.mode)) for data in SETS)} |"
        )
    return "\n".join(lines)


def accuracies(cells: list[Facts]) -> str:
    """A table in Markdown: percent right of rehead, in bold where nothing else has more, and of the best of all others."""
    lines = ["| learned | " + " | ".join(map(NAMES.__getitem__, SETS)) + " |", "| --- |" + " --- |" * len(SETS)]
    for words, mode, ours in LEARNED:
        lines.append(f"| {words} | {' | '.join(_right(ours, rows(cells, data, mode)) for data in SETS)} |")
    return "\n".join(lines)


def _right(ours: str, found: list[Row]) -> str:
    percent = {row: _percent(row) for row in found if row.right is not None}
    mine = next((row for row in percent if row.peer == ours), None)
    others = [row for row in percent if not row.peer.startswith("rehead")]
    if mine is None or not others:
        return "–"
    best = max(others, key=percent.__getitem__)
    shown = f"{percent[mine]} %"
    shown = f"**{shown}**" if percent[mine] >= percent[best] else shown
    return f"{shown}; {percent[best]} of {best.title} ({mine.n_seeds} and {best.n_seeds} seeds)"


def _percent(row: Row) -> float:
    """As the tables show it, so that no less than that is a difference."""
    return round(100 * row.right.value, 1) if row.right else 0.0


def _cell(claim: Claim, found: list[Row]) -> str:
    value = attrgetter(claim.measure)
    known = [row for row in found if value(row) is not None]
    ours = next((row for row in known if row.peer == claim.of), None)
    tools = [row for row in known if row.peer not in (SOLVED, TUNED) and not row.peer.startswith("rehead")]
    peers = tools if claim.beside is None else [row for row in known if row.peer == claim.beside]
    if ours is None or not peers:
        return "–"
    best = min(peers, key=value)
    ratio = value(best) / value(ours)
    is_as_right = claim.measure == "peak_mb" or _percent(ours) >= _percent(best)
    is_wanted = claim.wanted is not None and ratio >= claim.wanted
    shown = f"**{_number(ratio)}**" if is_wanted and is_as_right else _number(ratio)
    marks = ("*" if claim.measure.endswith("_s") and ours.days != best.days else "") + ("" if is_as_right else "†")
    name = f" of {best.title}" if claim.beside is None else ""
    seeds = f"({best.n_seeds} and {ours.n_seeds} seeds)"
    return f"{shown}{marks}: {_number(value(best))}{name} for {_number(value(ours))} {seeds}"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 20 else f"{value:,.0f}"
