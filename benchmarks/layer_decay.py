"""Figures behind the default of `--layer-decay`, 1: at which share of the rate above each layer learns best where all do.

Each of three data sets is divided at random, so often as `SETS` says, and all layers learn for three epochs behind the solved
head, at each share of `SHARES`; beside them the head alone. Ants and bees keep no sides of their own here: they are few, and
one division of them says little. `--data flowers` does a part; what is in the results file is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from arguments import some_of
from measured import DATA, earlier, report, timed

SHARES = ("head alone", "1", "0.8", "0.6")
SETS = {  # photos at most, the share that is held out, divisions
    "hymenoptera": (400, 0.4, 4),
    "dogscats": (800, 0.5, 2),
    "flowers": (1_300, 0.5, 2),
}


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--data", type=some_of([*SETS]), default=[*SETS])
    facts = earlier("layer_decay")
    for name in asked.parse_args().data:
        limit, held_out, n_divisions = SETS[name]
        for seed in range(n_divisions):
            for share in SHARES:
                key = f"{name}, division {seed}, {share}"
                if key not in facts:
                    facts[key] = one_run(name, limit, held_out, seed, share)
                    report("layer_decay", facts)
    print(table(facts))


def one_run(name: str, limit: int, held_out: float, seed: int, share: str) -> dict[str, Any]:
    """How many of the held-out photos are right, and their log-loss."""
    learns = ["head"] if share == SHARES[0] else ["all", "--augment", "crop", "--epochs", "3", "--layer-decay", share]
    with tempfile.TemporaryDirectory() as folder:
        photos = without_sides(Path(folder), name)
        divided = ["--limit", str(limit), "--valid-fraction", str(held_out), "--seed", str(seed)]
        command = ["tune", str(photos), *divided, "--train", *learns, "--json", "--no-report"]
        run = timed(command, cache=Path(folder) / "cache", cwd=Path(folder))
    verdict = json.loads(run["output"])["verdict"]
    n = verdict["top1"]["n"]
    return {"right": round(verdict["top1"]["value"] * n), "n": n, "log_loss": verdict["log_loss"]["value"]}


def without_sides(folder: Path, name: str) -> Path:
    """A manifest of all photos of a data set, none of them on a side."""
    rows = [f"{path},{path.parent.name}" for path in sorted((DATA / name).rglob("*.jpg"))]
    manifest = folder / f"{name}.csv"
    manifest.write_text("\n".join(["path,label", *rows]) + "\n")
    return manifest


def table(facts: dict[str, Any]) -> str:
    """As Markdown: photos right in all divisions together, and the mean log-loss."""
    lines = ["| photos | " + " | ".join(SHARES) + " |", "| --- | " + " | ".join("---" for _ in SHARES) + " |"]
    for name, (*_, n_divisions) in SETS.items():
        cells = []
        for share in SHARES:
            runs = [facts.get(f"{name}, division {seed}, {share}") for seed in range(n_divisions)]
            done = [run for run in runs if run]
            loss = sum(run["log_loss"] for run in done) / max(1, len(done))
            cells.append(f"{sum(r['right'] for r in done)} of {sum(r['n'] for r in done)}, {loss:.3f}" if done else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
