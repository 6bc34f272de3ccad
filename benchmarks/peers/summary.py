"""What three seeds of a peer say together: medians of costs, the mean accuracy with its interval, and what went wrong."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rehead.verdict.intervals import Interval, wilson

Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A peer on one set of photos in one mode. Costs are medians over its seeds, None where nothing was done; the time of a
    prediction is that of all its cells.

    wall_range: the least and the most of its seeds. right: the mean share over seeds, with Wilson's interval for as many
    photos as are held out: seeds do not narrow it. days: on which it was measured.
    trouble: what is to be told of seeds that were not done, "" where all were.
    """

    peer: str
    title: str
    n_seeds: int
    trouble: str
    wall_s: float | None = None
    wall_range: tuple[float, float] | None = None
    first_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    epoch_s: float | None = None
    predict_s: float | None = None
    right: Interval | None = None
    lines: int = 0
    environment_gb: float = 0.0
    artefact_mb: float | None = None
    days: frozenset[str] = frozenset()


def rows(cells: Iterable[Facts], data: str, mode: str) -> list[Row]:
    """The rows of one table, the fastest first, those without a result last."""
    by_peer: dict[str, list[Facts]] = {}
    predictions: dict[str, list[float]] = {}
    for facts in cells:
        predictions.setdefault(facts["peer"], []).extend(facts.get("predict_s", ()))
        if facts["data"] == data and facts["mode"] == mode:
            by_peer.setdefault(facts["peer"], []).append(facts)
    made = [_row(peer, found, predictions[peer]) for peer, found in by_peer.items()]
    return sorted(made, key=lambda row: (row.wall_s is None, row.wall_s or 0.0, row.title))


def _row(peer: str, found: list[Facts], predictions: list[float]) -> Row:
    done = [facts for facts in found if facts["outcome"] == "done"]
    about = {"peer": peer, "title": found[0]["title"], "n_seeds": len(done), "trouble": _trouble(found)}
    kept = {"lines": found[-1]["lines"], "environment_gb": found[-1]["environment_bytes"] / 1e9}
    if not done:
        return Row(**about, **kept)
    mean = statistics.mean(facts["accuracy"] for facts in done)
    n = done[0]["n"]
    epochs = [seconds for facts in done for seconds in facts["epochs_s"]]
    firsts = [facts["first_s"] for facts in done if "first_s" in facts]
    return Row(
        **about,
        **kept,
        **{name: statistics.median(facts[name] for facts in done) for name in ("wall_s", "cpu_s", "peak_mb")},
        wall_range=(min(facts["wall_s"] for facts in done), max(facts["wall_s"] for facts in done)),
        first_s=statistics.median(firsts) if firsts else None,
        epoch_s=statistics.median(epochs) if epochs else None,
        predict_s=statistics.median(predictions) if predictions else None,
        right=wilson(mean * n, n),
        artefact_mb=statistics.median(facts["artefact_bytes"] for facts in done) / 1e6,
        days=frozenset(facts["date"] for facts in done),
    )


def _trouble(found: list[Facts]) -> str:
    """Such as "failed: no space left" or "1 of 3 seeds: timeout"."""
    bad = [facts for facts in found if facts["outcome"] != "done"]
    if not bad:
        return ""
    said = bad[0]["last_lines"][-1] if bad[0]["last_lines"] else ""
    what = {"timeout": f"not finished in {bad[0].get('wall_s', 0):.0f} s"}.get(
        bad[0]["outcome"], f"{bad[0]['outcome']}: {said}"
    )
    return what if len(bad) == len(found) else f"{len(bad)} of {len(found)} seeds {what}"
