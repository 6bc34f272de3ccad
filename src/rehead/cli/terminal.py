"""How things look: tables and errors. Nothing here decides anything. Progress is shown by `showing.py`.

With --json nothing but JSON goes to standard output, and errors go to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rehead.cli.showing import Bars, Lines
from rehead.cli.tables import console, narrow, printable, say, show_table
from rehead.errors import ReheadError, command

if TYPE_CHECKING:
    from rehead.run import Tuned
    from rehead.verdict.judging import AnyVerdict
    from rehead.verdict.metrics import Verdict
    from rehead.verdict.multilabel import MultilabelVerdict
    from rehead.verdict.regression import RegressionVerdict


def progress_for(*, json: bool) -> Lines | Bars:
    """A bar where a person looks on, else lines on standard error."""
    if not json and sys.stdout.isatty():
        return Bars(console())
    return Lines(steady=True)


def progress_beside(out: str | None) -> Lines | Bars:
    """The same beside rows that go to the file `out` or to standard output; rows on a screen are all the progress there is."""
    if out is None and sys.stdout.isatty():
        return Lines(write=lambda _: None)
    return progress_for(json=out is None)


def show_error(error: ReheadError) -> None:
    """What happened, why, and what to do, on standard error."""
    parts = [printable(part) for part in (error.what, error.why, error.fix) if part]
    say("Error: " + "\n  ".join(parts), sys.stderr)


def show_verdict(verdict: AnyVerdict, photos: str | None = None) -> None:
    """The verdict as a sentence and tables. photos: what its paths are relative to; they are shown so that they open."""
    mistakes: Any = tuple(replace(m, path=opening(m.path, photos)) for m in verdict.mistakes)
    verdict = replace(verdict, mistakes=mistakes)
    from rehead.cli.answers import show_classes
    from rehead.cli.verdicts import show_labels, show_numbers

    if verdict.task == "classification":
        show_classes(cast("Verdict", verdict))
        return
    if verdict.task == "multilabel":
        show_labels(cast("MultilabelVerdict", verdict))
    else:
        show_numbers(cast("RegressionVerdict", verdict))


def opening(path: str, photos: str | None) -> str:
    """A photo's path from the current folder where it leads to a file, else as it is. photos: a folder, or a manifest."""
    if photos is None:
        return path
    place = Path(os.path.expanduser(photos))
    shown = os.path.normpath((place if place.is_dir() else place.parent) / path)
    return shown if os.path.isfile(shown) else path


def show_tuned(tuned: Tuned) -> None:
    """What to look at, how a model was made, where it is, and what to type next."""
    out, seconds, images, bundle = console(), tuned.seconds, tuned.images, str(tuned.bundle)
    if tuned.concerns:
        out.print("\nTo look at", style="bold")
        for concern in tuned.concerns:
            say(f"- {printable(concern)}")
    phases = ", ".join(f"{name} {took:.1f}" for name, took in seconds.items() if name != "total" and took >= 0.05)
    out.print(f"\nHead      {printable(tuned.head_note)}", markup=False)
    stored = f", {images['from_store']} from the store" if images["from_store"] else ""
    skipped = f", {images['skipped']} skipped (see skipped.csv)" if images["skipped"] else ""
    out.print(f"Photos    {images['used']}{stored}{skipped}")
    out.print(f"Time      {seconds['total']:.1f} s ({phases})")
    out.print(f"Run       {printable(str(tuned.run))}", markup=False, soft_wrap=True)
    if tuned.report is not None:
        out.print(f"Report    {printable(str(tuned.report))}", markup=False, soft_wrap=True)
    out.print(f"Bundle    {printable(bundle)}", markup=False, soft_wrap=True)
    out.print(f"Try it    {printable(command('predict', bundle))} PHOTO", markup=False, soft_wrap=True)


def show_skipped(skipped: Sequence[Any]) -> None:
    """What was left out, at most ten lines of it."""
    for skip in skipped[:10]:
        say(f"Skipped {printable(skip.path)}: {printable(skip.reason)}", sys.stderr)
    if len(skipped) > 10:
        say(f"... and {len(skipped) - 10} more", sys.stderr)


def show_backbones(rows: Sequence[Any], others: int, pattern: str | None) -> None:
    """Backbones, one a line; `others` do not match `pattern`, or have no weights here where there is none."""
    cells = [
        (r.name, f"{r.parameters / 1e6:.1f} M", f"{r.macs / 1e9:.2f} G", str(r.input_size), str(r.width), r.licence,
         "here" if r.here else "hub")
        for r in rows
    ]  # fmt: skip
    header = ["backbone", "parameters", "MACs", "pixels", "features", "licence", "from"]
    show_table(header, cells, right=[1, 2, 3, 4], spare=["features", "pixels", "licence"])
    first = ""
    if pattern is not None:
        first = f"{len(rows)} of {len(rows) + others} backbones match{'es' * (len(rows) == 1)}; "
    elif others:
        first = f"{others} more: rehead backbones 'resnet*'; "
    say(f"{first}weights that are not here come from the hub or --weights FILE.")


def show_runs(runs: Sequence[Any], folder: str) -> None:
    """Runs, one a line."""
    if not runs:
        say(f"There are no runs in {printable(folder)}. Make one with: rehead tune photos/")
        return
    cells = [(printable(r.path.name), r.recipe.train, r.recipe.head, _state(r)) for r in runs]
    show_table(["run", "learned", "head", "right %"], cells, right=[3], spare=["head", "learned"])


def _state(run: Any) -> str:
    if run.is_running:
        return "running"
    if run.verdict is None:
        return "interrupted" if run.can_resume else "unfinished"
    verdict = run.verdict
    if verdict.task == "multilabel":
        return f"mAP {verdict.mean_ap or '–'}"
    if verdict.task == "regression":
        return f"off by {verdict.mae}"
    return narrow(verdict.top1)


def show_run(run: Any) -> None:
    """A run: recipe and verdict, or how to go on with it."""
    out = console()
    out.print(f"Run       {printable(str(run.path))}", markup=False, soft_wrap=True)
    for name, value in run.settings().items():
        out.print(f"  {name:<16} {printable(str(value))}", markup=False)
    if run.is_running:
        out.print("A job is writing it now.")
        return
    if run.verdict is None:
        go_on = f" Go on: {printable(command('tune', '--resume', run.path))}" if run.can_resume else ""
        out.print(f"It is not finished.{go_on}", markup=False, soft_wrap=True)
        return
    out.print(f"Head      {printable(run.head_note)}", markup=False)
    out.print(f"Time      {run.seconds['total']:.1f} s")
    if run.machines is not None:
        out.print(f"Ray       {printable(run.machines)}", markup=False, soft_wrap=True)
    show_verdict(run.verdict, run.photos)


def show_layers(rows: Sequence[Any]) -> None:
    """A backbone's layers, one a line."""
    from rehead.cli.arguments import as_bytes
    from rehead.features.room import on_disk

    cells = [
        (
            r.name,
            " x ".join(map(str, r.shape)),
            f"{r.parameters:,}",
            f"{r.macs / 1e6:,.0f} M",
            as_bytes(1000 * on_disk(r.size_bytes)),
        )
        for r in rows
    ]
    show_table(["layer", "output", "parameters", "MACs", "1,000 photos"], cells, right=[1, 2, 3, 4])
    total = sum(r.parameters for r in rows)
    say(f"{total:,} parameters, {sum(r.macs for r in rows) / 1e9:.2f} G multiply-adds for one photo.")
    say("A cut behind a layer keeps its output for each photo: the last column is what that takes on disk.")


def show_cache(folder: Any, stores: Sequence[Any], other: int) -> None:
    """What is kept, by backbone."""
    from rehead.cli.arguments import as_bytes

    if not folder.is_dir():
        say(f"There is no cache in {printable(str(folder))} yet.")
        return
    cells = [
        (
            s.backbone,
            s.cut,
            s.fit,
            s.view,
            s.identity[:8],
            str(s.photos),
            as_bytes(s.size_bytes),
            time.strftime("%Y-%m-%d", time.localtime(s.last_used)),
        )
        for s in stores
    ]
    if cells:
        header = ["backbone", "cut", "fit", "view", "prefix", "photos", "size", "last used"]
        show_table(header, cells, right=[5, 6], spare=["prefix", "last used", "fit", "view"])
    total = sum(s.size_bytes for s in stores) + other
    first = "" if cells else "No features are kept. "
    said = f"{first}{as_bytes(total)} in {printable(str(folder))}, "
    say(f"{said}{as_bytes(other)} of it exported networks, unpacked archives and what is known of files")


def show_cleared(cleared: Any) -> None:
    """What was freed, or why nothing was."""
    from rehead.cli.arguments import as_bytes

    said = f"Freed {as_bytes(cleared.freed_bytes)}"
    if not cleared.matched:
        say(f"{said}: nothing that is kept matches. `rehead cache` lists what is.")
        return
    say(f"{said}." + (" Some is in use and was kept." if cleared.kept_in_use else ""))
