"""Claims: what each form of a bundle keeps of it: the same answers, accuracy, size, speed; in docs/export.md.

Every data set of ../shared/data is tuned with the defaults, and its bundle exported to every form, each with --force. Photos
are those that the run held out; speeds are medians of five repeats in turns with the original, in one process, on all
cores, with prepared photos.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import instructions
from measured import DATA, dogscats_manifest, report

import rehead
from rehead.variants.job import FORMS

VNNI = {"avx512_vnni", "avx_vnni"}  # add 8-bit products in 32 bits, which is what makes int8 fast


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=["dogscats", "hymenoptera", "flowers"])
    parser.add_argument("--to", choices=FORMS, help="One form alone; its figures go into a file of their own.")
    names, only = (asked := parser.parse_args()).names, asked.to
    facts: dict[str, Any] = {"8-bit dot products (VNNI)": not VNNI.isdisjoint(instructions())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for data in names:
            source = dogscats_manifest(folder) if data == "dogscats" else DATA / data
            run = rehead.tune(source, out=folder / data, report=False)
            for to in [only] if only else FORMS:
                facts[f"{data}, {to}"] = row(rehead.export(run.bundle, to, force=True).measured)
                print(f"{data}, {to}: done", file=sys.stderr)
    report(f"variants-{only}" if only else "variants", facts)


def row(measured: Any) -> dict[str, Any]:
    """The figures that stand in the table."""
    one, other = measured.original, measured.variant
    return {
        "photos": measured.n,
        "same_answers": round(measured.same, 4),
        "largest": float(f"{measured.largest:.2g}"),
        "mean": float(f"{measured.mean:.2g}"),
        "accuracy": [round(figures.score.value, 4) for figures in (one, other)],
        "interval": [[round(f.score.low, 4), round(f.score.high, 4)] for f in (one, other)],
        "difference": [
            round(v, 4) for v in (measured.difference.value, measured.difference.low, measured.difference.high)
        ],
        "unsure": [figures.unsure for figures in (one, other)],
        "unfamiliar": [figures.unfamiliar for figures in (one, other)],
        "mb": [round(figures.size_bytes / 1e6, 1) for figures in (one, other)],
        "photos_per_s": [figures.photos_per_s for figures in (one, other)],
        "cores": measured.cores,
        "made": dict(measured.settings),
    }


if __name__ == "__main__":
    main()
