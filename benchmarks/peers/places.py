"""Where things are: the checkout, the photos that are given, and the folder of work, which git does not see."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # what all benchmarks share lies above

from arguments import count, numbers, some_of
from machine import RESULTS, commit, instructions, processor, results_here

__all__ = [
    "DATA", "HERE", "RESULTS", "ROOT", "SOURCES", "WORK", "commit", "count", "instructions", "numbers", "processor",
    "results_here", "some_of",
]  # fmt: skip
ROOT = HERE.parents[1]
SOURCES = ROOT / "src"
DATA = Path(os.environ.get("REHEAD_DATA", ROOT.parent / "shared" / "data"))
WORK = ROOT / ".peers"
