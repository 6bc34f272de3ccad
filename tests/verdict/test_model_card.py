"""The model card says of a model what is true of how it was made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import rehead
from rehead.verdict.model_card import _why_partial

LIMITED = "It rests on part of the photos that were there: 20 photos at most were to be used."
CUT_SHORT = "Extraction was cut short: the head rests on part of the training photos."


@pytest.mark.parametrize(("limit", "said"), [(20, [LIMITED]), (40, []), (None, [])])
def test_a_limit_is_told_as_what_was_wanted(
    photos: Path, cache: Path, tmp_path: Path, limit: int | None, said: list[str]
) -> None:
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", limit=limit, report=False)
    card = (tuned.bundle / "README.md").read_text()
    assert [line for line in card.splitlines() if line in (LIMITED, CUT_SHORT)] == said


def test_it_is_called_as_the_run_that_took_the_place_of_another(photos: Path, cache: Path, tmp_path: Path) -> None:
    for _ in range(2):
        tuned = rehead.tune(photos, cache=cache, out=tmp_path / "pets", force=True, report=False)
    assert "\n# pets: blue, red\n" in (tuned.bundle / "README.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf_8_are_escaped(photos: Path, cache: Path, tmp_path: Path) -> None:
    out = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    tuned = rehead.tune(photos, cache=cache, out=out, report=False)
    assert "\n# caf\\xe9: blue, red\n" in (tuned.bundle / "README.md").read_text(encoding="utf-8")
    assert rehead.load(tuned.bundle).classes == ("blue", "red")


def test_where_time_was_up_before_the_limit_that_is_told() -> None:
    n_photos = {"train": 10, "held_out": 4, "skipped": 30, "unreadable": 1}
    assert _why_partial(None, n_photos) == _why_partial(20, n_photos) == CUT_SHORT
    assert "15 photos at most" in _why_partial(15, n_photos)
