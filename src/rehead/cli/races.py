"""A race as a person types it and sees it: arguments for one of several backbones, a table, and what to take."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rehead.cli.arguments import as_bytes, backbone_arguments
from rehead.cli.tables import console, printable, show_table
from rehead.errors import RecipeError
from rehead.reporting.command import argument as backbone_argument
from rehead.search.heats import Entry, Race
from rehead.verdict.intervals import Interval


def arguments_by_name(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """'resnet18:pad_type=same' -> {'resnet18': {'pad_type': 'same'}}. Raises RecipeError where there is no name."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, colon, argument = text.partition(":")
        if not colon:
            raise RecipeError(
                what=f"--backbone-arg {text!r} names no backbone.",
                fix="In a race: --backbone-arg mobilenetv2_100:pad_type=same",
            )
        found.setdefault(name, {}).update(backbone_arguments([argument], of=f"{name}:"))
    return found


def show_race(
    raced: Race, photos: str, arguments: Mapping[str, Mapping[str, Any]], options: Mapping[str, str | None]
) -> None:
    """The backbones, one a line, the reasons of those that did not run, and the recommendation with what to type.

    options: of the race, by their names, those that `rehead tune` has too and that say what is learned.
    """
    print()
    header = ["backbone", "by folds %", "held out %", "images/s", "size", "1,000 photos"]
    rows = [_cells(entry, entry is raced.best) for entry in raced.entries]
    show_table(header, rows, right=range(1, 6), spare=["1,000 photos", "size", "images/s"])
    out = console()
    for entry in raced.entries:
        if entry.reason:
            out.print(f"! {printable(entry.label)}: {printable(entry.reason)}", style="yellow", markup=False)
    out.print(
        f"* recommended. by folds: right by {raced.folds}-fold on {raced.n_train} training photos; held out: on "
        f"{raced.n_held_out} others; each with its 95 % interval. 1,000 photos: what their features take on disk.",
        style="dim",
        markup=False,
    )
    out.print(f"\n{printable(raced.recommendation)}", style="bold", markup=False)
    out.print(f"Picture   {printable(str(raced.run))}/race.svg", markup=False, soft_wrap=True)
    again = command(raced.best, photos, arguments.get(raced.best.backbone, {}), options)
    out.print(f"Go on     {printable(again)}", markup=False, soft_wrap=True)


def _cells(entry: Entry, is_best: bool) -> list[str]:
    return [
        printable(entry.label) + (" *" if is_best else ""),
        _share(entry.by_folds),
        _share(entry.held_out),
        "–" if entry.images_per_s is None else f"{entry.images_per_s:.0f}",
        "–" if entry.network_bytes is None else as_bytes(entry.network_bytes),
        "–" if entry.feature_bytes is None else as_bytes(entry.feature_bytes),
    ]


def _share(interval: Interval | None) -> str:
    """'98.5 (96.7–99.3)', in percent."""
    if interval is None:
        return "–"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def command(entry: Entry, photos: str, arguments: Mapping[str, Any], options: Mapping[str, str | None]) -> str:
    """What to type to tune the backbone that won on the photos of the race."""
    given: list[tuple[str, str | None]] = [*options.items(), ("backbone", entry.backbone), ("weights", entry.weights)]
    given += [("backbone-arg", backbone_argument(name, value)) for name, value in arguments.items()]
    words = [f"--{name} {shlex.quote(value)}" for name, value in given if value is not None and value != "auto"]
    return " ".join(["rehead tune", shlex.quote(photos), *words])
