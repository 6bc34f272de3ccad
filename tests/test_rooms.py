"""The order of the rooms, as pyproject.toml has it: `make test` holds it too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_rooms_import_downwards_only() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout
