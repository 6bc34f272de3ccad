"""The same photos, the same weights, the same machine: rehead and its peers, each as its own documentation says.

    python benchmarks/peers/measure.py [--peers rehead,sklearn] [--data hymenoptera] [--modes head] [--seeds 0] [--again]

Cells that are measured already are skipped, so a matrix that was stopped goes on; see README.md here for what is measured
and how. Environments, photos and weights are made in --work first; `--build-only` stops there.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import environments
import photos
import weights
from cells import in_order, read_results, write_results
from entrants import MODES, every_peer
from one_cell import Bench, measured
from places import WORK, results_here


def main() -> None:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # told to end, it ends the peer that runs too
    peers = {name: peer for name, peer in every_peer().items() if name in asked.peers}
    work = asked.work.resolve()
    for peer in peers.values():
        environments.build(work / "envs" / peer.environment, peer.requirements)
    for peer in peers.values():
        if peer.convert:
            environments.convert(work / "envs" / peer.environment, peer.convert, weights.lay_out(work))
    bench = Bench(
        work=work,
        photos={name: photos.lay_out(name, work) for name in asked.data},
        weights=weights.lay_out(work),
        epochs=asked.epochs,
        timeout_s=asked.timeout,
    )
    if asked.build_only:
        return
    for cell in in_order(list(peers), asked.data, asked.modes, asked.seeds):
        results = read_results(asked.out)  # again for each: others may add to it
        if results["cells"].get(cell.key, {}).get("epochs") == asked.epochs and not asked.again:
            continue
        print(f"{cell.key} ...", end=" ", flush=True)
        facts = measured(peers[cell.peer], cell, bench)
        results["cells"][cell.key] = facts
        write_results(asked.out, results)
        print(in_short(facts), flush=True)


def in_short(facts: dict) -> str:
    if facts["outcome"] != "done":
        return f"{facts['outcome']}: {facts['last_lines'][-1] if facts['last_lines'] else ''}"
    return f"{facts['wall_s']:.1f} s, {facts['right']} of {facts['n']} right, {facts['peak_mb']:.0f} MB"


def arguments() -> argparse.Namespace:
    def names(among: list[str] | tuple[str, ...]):
        def read(text: str) -> list[str]:
            if unknown := set(text.split(",")) - set(among):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose among {', '.join(among)}")
            return [name for name in among if name in text.split(",")]

        return read

    known = list(every_peer())
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peers", type=names(known), default=known)
    parser.add_argument("--data", type=names(photos.SETS), default=list(photos.SETS))
    parser.add_argument("--modes", type=names(MODES), default=list(MODES))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=WORK, help="environments, photos and weights; not in git")
    parser.add_argument("--out", type=Path, default=results_here() / "peers.json")
    parser.add_argument(
        "--timeout", type=float, default=3600, help="seconds for a training; over it, it is told as such"
    )
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure what was measured before")
    return parser.parse_args()


if __name__ == "__main__":
    main()
