"""`rehead export`: a bundle's model in another form, with the figures that say what it is worth."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rehead.cli import terminal
from rehead.cli.arguments import Interrupt, as_bytes, named, not_empty
from rehead.cli.options import Json, Layout, MaxBad, finish
from rehead.cli.tables import console, narrow, printable, say, show_table
from rehead.errors import UnjudgedVariant, WorseVariant, command, counted

if TYPE_CHECKING:
    from rehead.variants.measured import Figures, Measured

NONE = "–"
ENOUGH = 100  # photos, of which one is a point of accuracy


def export(
    bundle: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    to: Annotated[str, typer.Option(help="onnx-int8, openvino or torch.")],
    photos: Annotated[
        Optional[str], typer.Option(help="Labelled photos, as for `rehead tune`; else those of the bundle's run.")
    ] = None,
    layout: Layout = "auto",
    max_bad: MaxBad = 0.2,
    force: Annotated[
        bool, typer.Option("--force", help="Take it even where it is more than a point worse, or cannot be judged.")
    ] = False,
    out: Annotated[Optional[str], typer.Option("--out", "-o", help="Write it to this new folder instead.")] = None,
    cache: Annotated[
        Optional[str], typer.Option("--cache", help="Where archives are unpacked. (env: REHEAD_CACHE)")
    ] = None,
    json: Json = False,
) -> None:
    """Put another form of its model into a bundle, after it was measured beside the original on photos held out.

    Example: rehead export runs/photos-efficientnet_lite0-1/bundle --to openvino
    """
    from rehead.variants.job import export as run_export

    target = not_empty(out, "out")
    progress = terminal.progress_for(json=json)
    try:
        with Interrupt(progress):
            done = run_export(bundle, to, photos=named(photos), layout=layout, force=force, out=target, cache=cache,
                              max_bad=max_bad, progress=progress)  # fmt: skip
    except (WorseVariant, UnjudgedVariant) as error:
        if json:
            print(json_module.dumps({"bundle": str(bundle), "variant": None, "measured": error.measured.to_dict()}))
        else:
            show_measured(error.measured, error.name)
        raise
    finish(progress, done.to_dict() if json else None)
    if json:
        return
    show_measured(done.measured, done.variant)
    terminal.show_skipped(done.skipped)
    out_ = console()
    size = as_bytes(done.measured.variant.size_bytes)
    out_.print(f"\nWritten   {printable(str(done.folder))}: {', '.join(path.name for path in done.files)}, {size}",
               markup=False, soft_wrap=True)  # fmt: skip
    if target is None:
        again = f"{command('predict', bundle)} PHOTO --variant {done.variant}"
        out_.print(f"Try it    {printable(again)}", markup=False, soft_wrap=True)


def show_measured(measured: "Measured", name: str) -> None:
    """Both forms side by side, and how far they agree."""
    console().print()
    both = measured.original, measured.variant
    rows = [(f"{measured.metric} %", *(_score(figures) for figures in both))]
    if measured.original.mae is not None:
        rows.append(("mean error", *(NONE if f.mae is None else str(f.mae) for f in both)))
    for flag in ("unsure", "unfamiliar"):
        if getattr(measured.original, flag) is not None:
            rows.append((f"{flag} %", *(f"{100 * getattr(figures, flag):.1f}" for figures in both)))
    rows.append(("size", *(as_bytes(figures.size_bytes) for figures in both)))
    rows.append((f"photos a second, {counted(measured.cores, 'core')}", *(f"{f.photos_per_s:.1f}" for f in both)))
    show_table([counted(measured.n, "photo"), "original", name], rows, right=[1, 2])
    say(f"\n{_agreement(measured)}")
    if measured.n < ENOUGH:
        little = f"{counted(measured.n, 'photo')} {'says' if measured.n == 1 else 'say'} little"
        one = f": one of them is {100 / measured.n:.0f} points" if measured.metric == "accuracy" else ""
        say(f"{little}{one}. Name more: --photos DIR")


def _score(figures: "Figures") -> str:
    return NONE if figures.score is None else narrow(figures.score)


def _agreement(measured: "Measured") -> str:
    said = [] if measured.same is None else [f"The same answer on {100 * measured.same:.1f} % of the photos."]
    what = "Numbers" if measured.same is None else "Probabilities"
    said.append(f"{what} are {measured.mean:.2g} apart on average, {measured.largest:.2g} at most.")
    if (found := measured.difference) is not None:
        low, high = 100 * found.low, 100 * found.high
        said.append(
            f"The difference in {measured.metric} is {100 * found.value:+.1f} points ({low:+.1f} to {high:+.1f})."
        )
    return " ".join(said)
