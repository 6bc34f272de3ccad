"""Where things are: the checkout, the photos that are given, and the folder of work, which git does not see."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = ROOT / "src"
DATA = Path(os.environ.get("REHEAD_DATA", ROOT.parent / "shared" / "data"))
WORK = ROOT / ".peers"
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
