"""The commands that ask how far a model can be trusted: compare two of them, see where one looks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rehead.cli import terminal
from rehead.cli.arguments import Interrupt, named, not_empty
from rehead.cli.options import Cache, Json, Layout, MaxBad, Tta, finish
from rehead.cli.tables import console, percent, printable, say, show_table
from rehead.errors import ReheadError, missing_extras

if TYPE_CHECKING:
    from rehead.compare_bundles import Compared, Said
    from rehead.predict import Model

Unpacked = Annotated[Optional[str], typer.Option("--cache", help="Where archives are unpacked. (env: REHEAD_CACHE)")]
N_SHOWN = 20  # changed photos
FOLDS_READ = (
    "Each fold solves a head anew on features that are kept: the bundle's own is not asked, and no photo is run."
)


def compare(
    first: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    second: Annotated[Path, typer.Argument(help="The folder `bundle` of another.")],
    photos: Annotated[str, typer.Argument(help="Labelled photos, as for `rehead tune`.")],
    layout: Layout = "auto",
    max_bad: MaxBad = 0.2,
    tta: Tta = False,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Write a page with the photos that changed.")
    ] = None,
    cache: Unpacked = None,
    json: Json = False,
) -> None:
    """Judge two bundles on the same photos: which is better, and on which photos they differ.

    Example: rehead compare runs/photos-efficientnet_lite0-1/bundle runs/photos-resnet50-1/bundle new_photos/
    """
    from rehead.compare_bundles import compare as run_compare
    from rehead.reporting.job import check_page, write_page

    if out is not None:
        check_page(out)
    progress = terminal.progress_for(json=json)
    with Interrupt(progress):
        found = run_compare(first, second, named(photos), layout=layout, max_bad=max_bad, tta=tta, cache=cache,
                            progress=progress)  # fmt: skip
        if out is not None:
            write_page(out, found.page(progress))
    finish(progress, found.to_dict() if json else None)
    if not json:
        _show(found, photos, out)


def _show(found: "Compared", photos: str, page: Optional[Path]) -> None:
    from rehead.verdict.compare import Paired
    from rehead.verdict.intervals import Interval

    out = console()
    out.print(f"\n{printable(found.sentence)}", style="bold", markup=False)
    for which, name, score in zip(("first", "second"), found.names, found.scores, strict=True):
        said = f"right on {percent(score)}" if isinstance(score, Interval) else f"off by {score} on average"
        out.print(f"{which:6}  {printable(name)}: {said}", markup=False, soft_wrap=True)
    if isinstance(found.beside, Paired):
        difference = found.beside.difference
        out.print(
            f"second less first {100 * difference.value:+.1f} points "
            f"({100 * difference.low:+.1f} to {100 * difference.high:+.1f}); "
            f"both right on {found.beside.both}, neither on {found.beside.neither}",
            style="dim", markup=False,
        )  # fmt: skip
    for note in found.notes:
        out.print(f"! {printable(note)}", style="yellow", markup=False)
    if found.changes:
        out.print()
        rows = [
            (
                printable(terminal.opening(c.path, photos)),
                printable(", ".join(c.labels)),
                _said(c.first),
                _said(c.second),
            )
            for c in found.changes[:N_SHOWN]
        ]
        changed = "changed" if isinstance(found.beside, Paired) else "nearer by one"
        show_table([changed, "is", "first", "second"], rows)
        if (more := len(found.changes) - N_SHOWN) > 0:
            say(f"... and {more} more; --json has all.")
    terminal.show_skipped(found.skipped)
    if page is not None:
        say(f"Page    {printable(str(page))}")


def _said(said: "Said") -> str:
    if said.off is not None:
        return f"{said.named[0]}, off by {said.off:.3g}"
    sure = "" if said.probability is None else f" {said.probability:.3f}"
    return f"{'right' if said.is_right else 'wrong'}: {printable(', '.join(said.named)) or '(none)'}{sure}"


def cross_validated(
    bundle: Path, photos: Optional[str], folds: int, layout: str, cache: Optional[str], json: bool
) -> None:
    """`rehead verify --folds`."""
    from rehead.folds import cross_validate

    progress = terminal.progress_for(json=json)
    with Interrupt(progress):
        found = cross_validate(bundle, named(photos), folds=folds, layout=layout, cache=cache, progress=progress)
    finish(progress, found.to_dict() if json else None)
    if json:
        return
    terminal.show_verdict(found.verdict, photos)
    if found.by_fold:
        shares = ", ".join(f"{100 * share:.1f}" for share in found.by_fold)
        text = f"\nRight in each fold: {shares} %, from kept features; {found.seconds:.1f} s."
        console().print(text, markup=False)


def explain(
    bundle: Annotated[Path, typer.Argument(help="The folder `bundle` of a run.")],
    photo: Annotated[Path, typer.Argument(help="An image.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: .png, .jpg or .webp.")] = Path(
        "map.png"
    ),
    label: Annotated[Optional[str], typer.Option("--class", help="The class to look for; else what is named.")] = None,
    neighbours: Annotated[int, typer.Option(min=0, help="Photos it learned from that look most like this one.")] = 5,
    variant: Annotated[Optional[str], typer.Option(help="A form of the model that `rehead export` made.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is at --out.")] = False,
    cache: Cache = None,
) -> None:
    """Show where a bundle looks, bright where it speaks for the class; and the photos it learned from that look most like it.

    Example: rehead explain runs/photos-efficientnet_lite0-1/bundle cat.jpg -o map.png
    """
    from rehead.heat import check_picture, write_overlay
    from rehead.heat import explain as run_explain
    from rehead.predict import load

    check_picture(out, force=force)
    not_empty(cache, "cache")
    model = load(bundle, variant=variant)
    heat = run_explain(model, photo, label)
    write_overlay(heat, out, force=force)
    say(f"{printable(str(out))}: where it sees {printable(heat.label)}, by {heat.method}")
    if neighbours:
        _show_neighbours(model, photo, neighbours, cache)


def _show_neighbours(model: "Model", photo: Path, n: int, cache: Optional[str]) -> None:
    try:
        with missing_extras():
            from rehead.auditing.nearest import neighbours

            found = neighbours(model, photo, k=n, cache=cache)
    except ReheadError as error:  # or the features are gone
        is_carried = not (model.bundle.folder.resolve().parent / "recipe.toml").is_file()
        why = "the bundle lies outside the run that made it." if is_carried else printable(error.what)
        say(f"The photos it learned from cannot be shown: {why}")
        return
    rows = [(printable(one.path), printable(one.label), f"{one.similarity:.2f}") for one in found]
    show_table(["nearest photos it learned from", "is", "alike"], rows, right=[2])


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="The file to write; else report.html in the run.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Write one page about a run: what it gets right, what is wrong with its photos, and how it was made.

    Example: rehead report runs/photos-efficientnet_lite0-1
    """
    from rehead.reporting.job import report as run_report

    progress = terminal.progress_for(json=False)
    with Interrupt(progress):
        found = run_report(run, out=out, cache=cache, progress=progress)
    finish(progress, None)
    for concern in found.concerns:
        say(f"- {printable(concern)}")
    say(printable(str(found.path)))
