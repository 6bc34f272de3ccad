"""The same photos, the same weights, the same machine: rehead and its peers, each as its own documentation says.

    python benchmarks/peers/measure.py [--peers rehead,sklearn] [--data hymenoptera] [--modes head] [--seeds 0] [--again]

Cells that are measured already are skipped, so a matrix that was stopped goes on, and tries anew what failed; see README.md
here for what is measured and how. Environments, photos and weights are made in --work first; `--build-only` stops there.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import environments
import photos
import weights
from cells import in_order, read_results, write_results
from entrants import MODES, every_peer
from one_cell import Bench, measured
from places import WORK, count, numbers, results_here, some_of


def main() -> None:
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # told to end, it ends the peer that runs too
    try:
        with alone(asked.work):
            measure(asked)
    except KeyboardInterrupt:
        sys.exit("\nStopped. What was measured stands in the results; the same command goes on.")


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """While this is the only measurement with its folder: two would build one environment, and take each other's cores."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "measuring.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                f"Another measurement is under way in {work}. Two at once would spoil each other's seconds: wait for it."
            )
        yield


def measure(asked: argparse.Namespace) -> None:
    if not asked.build_only:
        try:  # what cannot be kept is not measured
            write_results(asked.out, known(asked.out))
        except OSError as error:
            sys.exit(
                f"Results cannot be written to {asked.out}: {error.strerror}. --out is a file, such as peers.json."
            )
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
        if is_known(known(asked.out)["cells"].get(cell.key), asked) and not asked.again:
            continue
        print(f"{cell.key} ...", end=" ", flush=True)
        facts = measured(peers[cell.peer], cell, bench)
        results = known(asked.out)  # as it is now: a report or a person may have changed it
        results["cells"][cell.key] = facts
        write_results(asked.out, results)
        print(in_short(facts), flush=True)


def known(path: Path) -> dict:
    try:
        return read_results(path)
    except ValueError as error:
        sys.exit(str(error))


def is_known(facts: dict | None, asked: argparse.Namespace) -> bool:
    """Whether a cell need not be measured: what failed is tried anew, what was not finished in time where there is more."""
    if facts is None or facts["epochs"] != asked.epochs:
        return False
    if facts["outcome"] == "timeout":
        return facts["wall_s"] >= asked.timeout
    return facts["outcome"] in ("done", "cannot")


def in_short(facts: dict) -> str:
    if facts["outcome"] != "done":
        return f"{facts['outcome']}: {facts['last_lines'][-1] if facts['last_lines'] else ''}"
    return f"{facts['wall_s']:.1f} s, {facts['right']} of {facts['n']} right, {facts['peak_mb']:.0f} MB"


def arguments() -> argparse.Namespace:
    peers = list(every_peer())
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peers", type=some_of(peers), default=peers)
    parser.add_argument("--data", type=some_of(photos.SETS), default=list(photos.SETS))
    parser.add_argument("--modes", type=some_of(MODES), default=list(MODES))
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--epochs", type=count, default=3)
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
