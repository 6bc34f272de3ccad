"""The course of a training as a picture: loss by epoch, and the learning rate of every step. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rehead.svg import blank, svg_of
from rehead.tuning.course import Course, lr_at

NATS = "cross-entropy, nats"
LEARNED, WATCHED, RATE = "#1f77b4", "#d1495b", "#555555"


def curves_svg(history: Sequence[dict[str, Any]], course: Course, n_steps: int, unit: str = NATS) -> str:
    """An SVG with the loss of each epoch, in `unit`, on the photos learned from and on those watched, and the learning rate.

    history: one entry an epoch with epoch, loss and, with watched photos, watch_loss. n_steps: of an epoch, at least 1.
    """
    figure, (losses, rates) = blank(8, 3.2, n_columns=2)
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
        axes.locator_params(axis="x", integer=True)
    return svg_of(figure)
