"""From what was measured to docs/benchmarks.md and docs/peers.svg.

Everything between `<!-- peers -->` and `<!-- /peers -->` is written here, and only there. Pictures lie beside the document.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cells import read_results
from chart import chart
from claims import accuracies, claims
from entrants import MODES, every_peer, left_out
from photos import SETS
from places import RESULTS, ROOT
from summary import Facts, Row, rows

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
ASKED = {
    "head": "only a new classifier learns",
    "last": "the last stage learns too (`blocks.6`, `conv_head` and their norms)",
    "full": "everything learns",
}
COLUMNS = (
    "peer", "seeds", "seconds", "against rehead", "right of held-out photos", "s an epoch", "first estimate s", "peak MB",
    "CPU s", "lines", "environment GB", "artefact MB", "one prediction s",
)  # fmt: skip
HOW = (
    "Medians over the seeds, of seconds the least and the most too; where a row has one seed it is one run. Seconds are from "
    "the shell to the end of the process, with held-out photos judged and the artefact written. Right: the mean over seeds, "
    "with Wilson's 95 % interval for the photos that are held out. First estimate: when a tool first tells, as it works, how "
    "many of the held-out photos that it has seen by then are right. Threads are what each library chooses by itself. "
    "How all of it is measured: [benchmarks/peers/README.md](../benchmarks/peers/README.md)."
)
OF_CLAIMS = (
    "Ratios of medians, and of how many seeds, the peer's first; in bold where it is what was wanted and rehead is right on as "
    "many of the held-out photos in the mean. A dagger: on fewer. A star: not all of the same days, and this machine "
    "shares its host. A ratio of seconds below 1.3 or so says nothing, nor one of memory below 1.05."
)
OF_ACCURACIES = (
    "Percent of the held-out photos that are right, means over the seeds, and of how many; in bold where no other is right on "
    "more. Beside it the best of all others, be it a tool, our tuned loop or scikit-learn. The intervals stand in the tables."
)
OF_ALL = ("torch", "timm", "python")


def main(results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """results: the folder with a folder for each machine. The one with the most cells is shown first, and drawn.

    Raises ValueError where nothing was measured, and for a document without the markers; then nothing is written."""
    measured = [list(read_results(path)["cells"].values()) for path in sorted(results.glob("*/peers.json"))]
    machines = sorted(filter(None, measured), key=len, reverse=True)
    if not machines:
        raise ValueError(
            f"There are no results in {results}: it has a folder for each machine, and in that peers.json."
        )
    hidden = {peer.name for peer in every_peer().values() if not peer.charted}
    for mode in MODES:
        shown = [facts for facts in machines[0] if facts["peer"] not in hidden]
        by_data = {data: found for data in SETS if (found := rows(shown, data, mode))}
        if any(row.wall_s for found in by_data.values() for row in found):
            (document.parent / picture(mode)).write_text(
                chart(by_data, f"{mode}: {plain(ASKED[mode])}"), encoding="utf-8"
            )
    document.write_text(between(document.read_text(encoding="utf-8"), section(machines, left_out())), encoding="utf-8")


def picture(mode: str) -> str:
    return "peers.svg" if mode == "head" else f"peers-{mode}.svg"


def between(text: str, written: str) -> str:
    """The document with what stands between the markers replaced. Raises ValueError where they are not there once each."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"The document needs {BEGIN} and, after it, {END}, once each.")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{written}\n{END}{rest.split(END)[1]}"


def section(machines: list[list[Facts]], missing: dict[str, str]) -> str:
    """All that stands between the markers. machines: the cells of each, the first drawn too."""
    first, *others = machines
    parts = ["![Seconds to a verified number](peers.svg)", about(first), HOW, claims(first), OF_CLAIMS]
    parts += [accuracies(first), OF_ACCURACIES]
    parts += tables(first, pictured=True)
    for cells in others:
        parts += [
            f"### On {cells[0]['machine']['processor']}",
            about(cells),
            claims(cells),
            OF_CLAIMS,
            accuracies(cells),
            *tables(cells, pictured=False),
        ]
    if notes := [f"* {peer.title}: {peer.note}." for peer in every_peer().values() if peer.note]:
        parts.append("To read the tables by:\n\n" + "\n".join(notes))
    if missing:
        parts.append("Left out:\n\n" + "\n".join(f"* {name}: {reason}" for name, reason in missing.items()))
    return "\n\n".join(parts)


def tables(cells: list[Facts], *, pictured: bool) -> Iterator[str]:
    """The tables of one machine, by mode and photos, under headings of their level."""
    for mode in MODES:
        by_data = {data: found for data in SETS if (found := rows(cells, data, mode))}
        if by_data:
            yield f"{'###' if pictured else '####'} {mode.capitalize()}: {ASKED[mode]}"
        if pictured and mode != "head" and any(row.wall_s for found in by_data.values() for row in found):
            yield f"![{mode.capitalize()}: seconds to a verified number]({picture(mode)})"
        for data, found in by_data.items():
            n = next((facts["n"] for facts in cells if facts["data"] == data and "n" in facts), None)
            yield f"{data}{f', {n} photos held out' if n else ''}:\n\n{table(found)}"
            here = {row.peer for row in found}
            if absent := [p.title for p in every_peer().values() if mode in p.modes and p.name not in here]:
                yield f"Not measured yet: {', '.join(absent)}."


def about(cells: list[Facts]) -> str:
    """Machine, versions, seeds, commits and days of cells that one machine measured."""
    machines = _list(machine(facts["machine"]) for facts in cells)
    epochs = _list(str(facts["epochs"]) for facts in cells)
    seeds = sorted({facts["seed"] for facts in cells})
    commits = _list(facts["commit"] for facts in cells)
    dates = sorted({facts["date"] for facts in cells})
    usual = {
        name: statistics.mode(facts["versions"][name] for facts in cells if name in facts["versions"])
        for name in OF_ALL
        if any(name in facts["versions"] for facts in cells)
    }
    shared = _list(f"{name} {version}" for name, version in usual.items())
    titles = dict.fromkeys(facts["title"] for facts in cells if not facts["peer"].startswith("rehead"))
    tools = [f"{title}: {told}" for title in titles if (told := _own_versions(cells, title, usual))]
    ours = _list(word for facts in cells if facts["peer"].startswith("rehead") for word in _words(facts, usual))
    return (
        f"{machines}; {shared}; epochs: {epochs}; seeds {', '.join(map(str, seeds))}; commit {commits}; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}. {'; '.join(filter(None, (ours, *sorted(tools))))}."
    )


def machine(facts: Facts) -> str:
    memory = f", {facts['memory_gb']} GB" if "memory_gb" in facts else ""
    wide = f" with {', '.join(facts['instructions'])}" if facts.get("instructions") else ""
    return f"{facts['cores']} cores of {facts['processor']}{wide}{memory}"


def table(found: list[Row]) -> str:
    """Markdown, the fastest first. Against rehead: how many times its seconds."""
    ours = next((row.wall_s for row in found if row.peer == "rehead"), None)
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | ---: | ---: | ---: | --- |" + " ---: |" * (len(COLUMNS) - 5)]
    lines += ["| " + " | ".join(cells_of(row, ours)) + " |" for row in found]
    return "\n".join(lines)


def cells_of(row: Row, ours: float | None) -> list[str]:
    trouble = row.trouble.replace("|", "/").replace("<", "&lt;")
    right = (
        f"{100 * row.right.value:.1f} % ({100 * row.right.low:.1f} to {100 * row.right.high:.1f})" if row.right else ""
    )
    seconds = number(row.wall_s)
    if row.n_seeds > 1 and row.wall_range:
        seconds += f" ({' to '.join(map(number, row.wall_range))})"
    return [
        row.title,
        str(row.n_seeds) if row.n_seeds else "–",
        seconds,
        f"{number(row.wall_s / ours)} x" if row.wall_s and ours else "–",
        "; ".join(part for part in (right, trouble) if part),
        number(row.epoch_s),
        number(row.first_s),
        "–" if row.peak_mb is None else f"{row.peak_mb:,.0f}",
        number(row.cpu_s),
        str(row.lines),
        f"{row.environment_gb:.1f}",
        number(row.artefact_mb),
        number(row.predict_s),
    ]


def number(value: float | None) -> str:
    """Two digits or more that count: 0.91, 9.1, 26, 1,234."""
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 20 else f"{value:,.0f}"


def plain(text: str) -> str:
    return text.replace("`", "")


def _own_versions(cells: list[Facts], title: str, usual: dict[str, str]) -> str:
    return _list(word for facts in cells if facts["title"] == title for word in _words(facts, usual))


def _words(facts: Facts, usual: dict[str, str]) -> list[str]:
    """What a cell ran on, but for what all have and what goes with PyTorch."""
    hidden = {"torchvision", "numpy"}
    return [
        f"{name} {version}"
        for name, version in facts["versions"].items()
        if name not in hidden and usual.get(name) != version
    ]


def _list(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "results", type=Path, nargs="?", default=RESULTS, help="the folder with a folder for each machine"
    )
    parser.add_argument("document", type=Path, nargs="?", default=DOCUMENT, help="what has the markers")
    asked = parser.parse_args()
    try:
        main(asked.results, asked.document)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
