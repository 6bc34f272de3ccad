"""Claims: `rehead --help` under 0.4 s, `rehead predict` of one photo under 1.5 s, from the shell. Seven runs each, medians."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from measured import generated, median, report, timed

N_RUNS = 7


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = generated(folder / "photos", 60)
        tuned = timed(["tune", str(photos), "--json", "--no-report"], cache=folder / "cache", cwd=folder)
        bundle, photo = json.loads(tuned["output"])["bundle"], str(next((photos / "a").iterdir()))
        commands = {"rehead --help, s": ["--help"], "rehead predict of one photo, s": ["predict", bundle, photo]}
        facts = {
            what: median([timed(arguments, cache=folder / "cache", cwd=folder)["seconds"] for _ in range(N_RUNS)])
            for what, arguments in commands.items()
        }
        report("start", facts)


if __name__ == "__main__":
    main()
