"""The matrix and its results: which cells there are, in which order, and the file that holds what was measured of each.

A cell is a peer, a set of photos, a mode and a seed. The file is written whole after each cell, so a matrix that is stopped
goes on where it was.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehead.verdict.intervals import wilson

FORMAT = 1


@dataclass(frozen=True)
class Cell:
    peer: str
    data: str
    mode: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.peer}, {self.data}, {self.mode}, seed {self.seed}"


def in_order(peers: Sequence[str], sets: Sequence[str], modes: Sequence[str], seeds: Iterable[int]) -> list[Cell]:
    """All cells: one seed after the other, in each the modes, in each the sets, so that a part of a matrix compares peers."""
    order = itertools.product(seeds, modes, sets, peers)
    return [Cell(peer, data, mode, seed) for seed, mode, data, peer in order]


def read_results(path: Path) -> dict[str, Any]:
    """What was measured before: {"format", "cells": {key: facts}}. Raises ValueError, which names the file, for what is
    no such thing."""
    if not path.is_file():
        return {"format": FORMAT, "cells": {}}
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}). Take it from version control, or move it away.") from None
    if results.get("format") != FORMAT:
        raise ValueError(f"{path} has format {results.get('format')}, and not {FORMAT}.")
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replaces the file whole: a matrix that is killed leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    growing = path.with_name(f".{path.name}")
    with growing.open("w") as file:
        file.write(json.dumps(results, indent=1, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        growing.replace(path)
    except OSError:
        growing.unlink()
        raise


def judged(table: Path, held_out: Path) -> dict[str, Any]:
    """How many of the photos in `held_out` a heldout.csv names right: {"n", "right", "accuracy", "low", "high"}.

    Raises ValueError where it does not name each of them once.
    """
    truth = {f"{path.parent.name}/{path.name}": path.parent.name for path in held_out.glob("*/*")}
    with table.open(newline="") as file:
        rows = [(row["photo"], row["label"]) for row in csv.DictReader(file)]
    if sorted(photo for photo, _ in rows) != sorted(truth):
        raise ValueError(f"heldout.csv names {len(rows)} photos, val/ has {len(truth)}; each has to be named once.")
    right = sum(truth[photo] == label for photo, label in rows)
    share = wilson(right, len(truth))
    return {"n": share.n, "right": right, "accuracy": share.value, "low": share.low, "high": share.high}
