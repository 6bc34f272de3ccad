"""The picture of a training holds what the history holds."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from rehead.tuning.curves import curves_svg
from rehead.tuning.recipe import Recipe

HISTORY = [{"epoch": 1, "loss": 0.9, "watch_loss": 0.8}, {"epoch": 2, "loss": 0.7, "watch_loss": 0.75}]


@pytest.mark.parametrize("n_epochs_done", [0, 1, 2])
def test_curves_are_a_picture_after_any_epoch(n_epochs_done: int) -> None:
    course = replace(Recipe().course, epochs=3)
    root = ElementTree.fromstring(curves_svg(HISTORY[:n_epochs_done], course, n_steps=5))
    assert root.tag.endswith("svg")


def test_photos_that_are_watched_have_a_line_of_their_own() -> None:
    course = replace(Recipe().course, epochs=3)
    both = curves_svg(HISTORY, course, 5)
    alone = curves_svg([{"epoch": f["epoch"], "loss": f["loss"]} for f in HISTORY], course, 5)
    assert both.count("#d1495b") > 0
    assert alone.count("#d1495b") == 0
