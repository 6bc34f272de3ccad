"""The picture of a race names every backbone, and marks the one that is recommended."""

from __future__ import annotations

from xml.etree import ElementTree

from rehead.verdict.intervals import wilson
from rehead.verdict.scatter import CHOSEN, Point, scatter_svg

POINTS = [Point("small", 88.0, wilson(74, 100), True), Point("large", 20.0, wilson(100, 100), False)]


def test_every_point_has_its_name() -> None:
    svg = scatter_svg(POINTS, "100 photos")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "<!-- small -->" in svg
    assert "<!-- large -->" in svg


def test_a_name_with_dollars_is_a_name() -> None:
    named = [Point(r"a$\frac$", 88.0, wilson(74, 100), True), Point("b$1$", 20.0, wilson(90, 100), False)]
    assert r"<!-- a$\frac$ -->" in scatter_svg(named, "$x$ photos")


def test_the_recommended_one_has_a_colour_of_its_own() -> None:
    assert CHOSEN in scatter_svg(POINTS, "")
    assert CHOSEN not in scatter_svg(POINTS[1:], "")
