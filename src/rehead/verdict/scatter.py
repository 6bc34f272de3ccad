"""Backbones as points: how fast against how often right, so that what is gained for waiting can be seen. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rehead.svg import blank, svg_of
from rehead.verdict.intervals import Interval

CHOSEN, OTHER = "#d1495b", "#1f77b4"


@dataclass(frozen=True)
class Point:
    """accuracy: in 0..1, with its interval. is_chosen: whether it is the one that is recommended."""

    label: str
    images_per_s: float
    accuracy: Interval
    is_chosen: bool


def scatter_svg(points: Sequence[Point], subtitle: str) -> str:
    """An SVG with a labelled point for each: images a second to the right, on a logarithmic scale; % right upwards."""
    figure, (axes,) = blank(7.5, 4.2)
    for place, point in enumerate(sorted(points, key=lambda point: point.images_per_s)):
        colour = CHOSEN if point.is_chosen else OTHER
        value, low, high = (100 * v for v in (point.accuracy.value, point.accuracy.low, point.accuracy.high))
        bar = [[max(0.0, value - low)], [max(0.0, high - value)]]  # rounding may put an end beyond the value
        axes.errorbar([point.images_per_s], [value], yerr=bar, fmt="o", color=colour, capsize=3, markersize=7)
        above = place % 2 == 0  # neighbours' names stand on different sides, or they would cover each other
        axes.annotate(
            point.label,
            (point.images_per_s, high if above else low),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            color=colour,
            fontweight="bold" if point.is_chosen else "normal",
            parse_math=False,  # a "$" is part of a name
        )
    axes.set(xscale="log", xlabel="images a second", ylabel="right, %")
    axes.set_title(subtitle, fontsize=10, parse_math=False)
    _room(axes, points)
    return svg_of(figure)


def _room(axes: Any, points: Sequence[Point]) -> None:
    """Limits with room for names at every side, and ticks that are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rates = [point.images_per_s for point in points]
    low, high = min(p.accuracy.low for p in points), max(p.accuracy.high for p in points)
    margin = max(1.0, 12 * (high - low))
    axes.set(xlim=(min(rates) / 1.8, max(rates) * 1.8), ylim=(100 * low - margin, 100 * high + margin))
    axis = axes.xaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if 0 <= value <= 100 else ""))
