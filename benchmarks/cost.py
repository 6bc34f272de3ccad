"""Claim: a simulation that is calibrated on one size tells the seconds of a job at others, alone and on clusters, within 20 %.

cases     whole jobs of cats and dogs, alone, with `--ray local` and on simulated nodes; then what the simulation says of those
          that it was not calibrated on. The 1,399 photos are many times there under other bytes
rates     what no other script measures: what the process that begins a job can take, and what each photo costs it
tables    docs/scale.md: seconds, money and what holds a job up, for up to ten billion photos. --prices FILE: other machines
          and prices than scaling/prices.toml; --document FILE: where sections are written

Parts can be named; all together take eight minutes, `cost.py tables` a few seconds. Results are put beside those of earlier
runs; of cases that are run --again the median counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measured import earlier, report

PARTS = ("cases", "rates", "tables")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(one(sys.argv[2], sys.argv[3:]))
        return
    from scaling import cases, rates, tables
    from scaling.calibration import predicted

    options = asked(sys.argv[1:])
    facts = earlier("cost")
    with tempfile.TemporaryDirectory() as name:
        if "cases" in options.parts:
            runs = (facts["cases"] if options.again else []) + list(
                cases.measure(Path(name), options.again or cases.CASES)
            )
            facts |= {"cases": runs, "checked": predicted(runs)}
            report("cost", facts)
        if "rates" in options.parts:
            facts |= dict(rates.measure(Path(name)))
            report("cost", facts)
    if "tables" in options.parts:
        tables.main(options.prices, options.document)


def asked(words: list[str]) -> argparse.Namespace:
    """What the script is to do: all parts where none is named."""
    from scaling import cases, tables

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "parts", nargs="*", metavar="|".join(PARTS)
    )  # of no part at all Python 3.11 says that it is no choice
    parser.add_argument("--again", default="", help="cases that are run once more, such as local-1399,1x1-400")
    parser.add_argument("--prices", type=Path, default=tables.PRICES)
    parser.add_argument("--document", type=Path, default=tables.DOCUMENT)
    options = parser.parse_args(words)
    named = {f"{where}-{n}": (where, n) for where, n in cases.CASES}
    again = options.again.split(",") if options.again else []
    for what, names, there in (("part", options.parts, PARTS), ("case", again, named)):
        if unknown := [name for name in names if name not in there]:
            parser.error(f"no {what} is called {', '.join(unknown)}; there are {', '.join(there)}")
    options.parts, options.again = options.parts or PARTS, tuple(named[name] for name in again)
    return options


def one(what: str, words: list[str]) -> str:
    """What a process of its own was begun for; see `scaling.cases.in_process`."""
    from scaling import cases, rates

    return json.dumps(cases.case(*words)) if what == "case" else rates.one(what, words)


if __name__ == "__main__":
    main()
