"""The course of a training as a picture: loss by epoch, and the learning rate of every step. No torch."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import Any

from rehead.tuning.course import Course, lr_at

NATS = "cross-entropy, nats"
LEARNED, WATCHED, RATE = "#1f77b4", "#d1495b", "#555555"


def curves_svg(history: Sequence[dict[str, Any]], course: Course, n_steps: int, unit: str = NATS) -> str:
    """An SVG with the loss of each epoch, in `unit`, on the photos learned from and on those watched, and the learning rate.

    history: one entry an epoch with epoch, loss and, with watched photos, watch_loss. n_steps: of an epoch, at least 1.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    losses, rates = figure.subplots(1, 2)
    epochs = [facts["epoch"] for facts in history]
    losses.plot(epochs, [facts["loss"] for facts in history], marker="o", color=LEARNED, label="photos learned from")
    watched = [(facts["epoch"], facts["watch_loss"]) for facts in history if "watch_loss" in facts]
    if watched:
        losses.plot(*zip(*watched, strict=True), marker="o", color=WATCHED, label="photos watched")
    losses.set(title="Loss", xlabel="epoch", ylabel=unit, xlim=(0.5, course.epochs + 0.5))
    losses.legend(frameon=False)
    steps = range(n_steps * (epochs[-1] if epochs else 0))
    rates.stairs(
        [lr_at(course, step, n_steps * course.epochs) for step in steps],
        [step / n_steps for step in range(len(steps) + 1)],
        baseline=None,
        color=RATE,
    )
    rates.set(title="Learning rate", xlabel="epochs done", xlim=(0, course.epochs), ylim=(0, course.lr * 1.05))
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axes in (losses, rates):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    text = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
