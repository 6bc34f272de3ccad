"""Folders of corrected photos, which `rehead serve --feedback` keeps: one for each model that is served."""

from __future__ import annotations

import shlex
from pathlib import Path

from rehead.errors import SourceError

LOCK = ".feedback.lock"  # in each such folder


def check_one_model(folder: Path, shown: str) -> None:
    """Raises SourceError for a folder that holds those of several models: their names would be taken for classes."""
    if models := sorted(lock.parent.name for lock in folder.glob(f"*/{LOCK}")):
        raise SourceError(
            what=f"{shown} holds corrections of photos for each model by itself: {', '.join(models)}.",
            fix=f"Name those of one: rehead tune {shlex.quote(str(Path(shown) / models[0]))}",
        )
