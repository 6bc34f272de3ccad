"""Plots as SVG files: one look for all of them."""

from __future__ import annotations

import io
import logging
from typing import Any


def blank(width: float, height: float, n_columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure and its axes, side by side, without frame at the top and the right. width, height: in inches."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    row = figure.subplots(1, n_columns, squeeze=False)[0].tolist()
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure, row


def svg_of(figure: Any) -> str:
    """The figure as the text of an SVG file; the same figure gives the same text on any day."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
