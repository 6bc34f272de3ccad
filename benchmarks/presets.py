"""Claims: on the flowers, `balanced` is right on at least 84 % in at most a third of the time of plain full fine-tuning, and
`thorough` not on fewer; on cats and dogs and on ants and bees no preset is below the linear head by more than its interval.

Every preset on three data sets, three seeds each (another seed is another split where the photos bring none), each run from
an empty cache. Plain full fine-tuning: the rate of `epoch.py`'s loop on 512 of the flowers, times 4 epochs. A run that is in
the results file already, of this version of the presets, is not done again: `presets.py flowers balanced` does a part.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from epoch import plain_epoch
from measured import DATA, ROOT, dogscats_manifest, report, timed

from rehead.tuning.recipe import PRESETS

FILE = ROOT / "benchmarks" / "results" / "presets.json"
SETS, SEEDS = ("hymenoptera", "dogscats", "flowers"), (0, 1, 2)
N_PLAIN, PLAIN_EPOCHS = 512, 4


def main(wanted: list[str]) -> None:
    facts = json.loads(FILE.read_text())["facts"] if FILE.is_file() else {}
    for preset, settings in PRESETS.items():
        for name in SETS:
            for seed in SEEDS:
                key = f"{name}, {preset}, seed {seed}"
                known = facts.get(key, {}).get("settings") == settings
                if known or not all(word in (name, preset, str(seed)) for word in wanted):
                    continue
                facts[key] = {"settings": settings, **one_run(name, preset, seed)}
                report("presets", facts)
    if not wanted or "plain" in wanted:
        paths = sorted((DATA / "flowers").glob("*/*.jpg"))
        paths = paths[:: len(paths) // N_PLAIN][:N_PLAIN]
        facts["plain full fine-tuning, flowers photos/s"] = len(paths) / plain_epoch(
            "tf_efficientnet_lite0", paths, None
        )
    report("presets", facts)
    print(table(facts))


def one_run(name: str, preset: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        photos = dogscats_manifest(Path(folder)) if name == "dogscats" else DATA / name
        command = ["tune", str(photos), "--recipe", preset, "--seed", str(seed), "--json"]
        run = timed(command, cache=Path(folder) / "cache", cwd=Path(folder))
    verdict = json.loads(run["output"])["verdict"]
    cost = {"seconds": round(run["seconds"], 1), "cpu_s": round(run["cpu_s"], 1), "peak_mb": round(run["peak_mb"])}
    return {**cost, "n_train": verdict["n_train"], **verdict["top1"]}


def table(facts: dict[str, Any]) -> str:
    """The runs as Markdown: for each data set and preset the mean and range over the seeds, and the median time."""
    lines = [
        "| photos | preset | right, mean (range) of 3 seeds | seconds, median | CPU seconds |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for name in SETS:
        for preset in PRESETS:
            runs = [facts[key] for seed in SEEDS if (key := f"{name}, {preset}, seed {seed}") in facts]
            if runs:
                right = [100 * run["value"] for run in runs]
                seconds, cpu_s = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_s"))
                spread = f"{statistics.mean(right):.1f} % ({min(right):.1f} to {max(right):.1f})"
                lines.append(f"| {name} | `{preset}` | {spread} | {seconds:.0f} | {cpu_s:.0f} |")
    if rate := facts.get("plain full fine-tuning, flowers photos/s"):
        n = next((run["n_train"] for key, run in facts.items() if key.startswith("flowers") and "n_train" in run), 3462)
        lines.append(
            f"| flowers | plain loop, all layers, {PLAIN_EPOCHS} epochs | – | {PLAIN_EPOCHS * n / rate:.0f} | – |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
