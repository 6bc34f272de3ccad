"""How things look: tables and errors. Nothing here decides anything. Progress is shown by `showing.py`.

With --json nothing but JSON goes to standard output, and errors go to standard error.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rehead.cli.showing import Bars, Lines
from rehead.cli.tables import GAP, console, printable, say, shortened, show_table, table
from rehead.errors import ReheadError, counted

if TYPE_CHECKING:
    from rich.console import Console

    from rehead.run import Tuned
    from rehead.verdict.bootstrap import Estimate
    from rehead.verdict.intervals import Interval
    from rehead.verdict.judging import AnyVerdict
    from rehead.verdict.metrics import ClassVerdict, Verdict
    from rehead.verdict.multilabel import MultilabelVerdict
    from rehead.verdict.regression import RegressionVerdict

NARROWEST = 4  # columns for a class in the table of what was named for what
MAX_CONFUSION = 12  # classes; a larger matrix does not fit a terminal and stands in verdict.json


def progress_for(*, json: bool) -> Lines | Bars:
    """A bar where a person looks on, else lines on standard error."""
    if not json and sys.stdout.isatty():
        return Bars(console())
    return Lines()


def show_error(error: ReheadError) -> None:
    """What happened, why, and what to do, on standard error."""
    parts = [printable(part) for part in (error.what, error.why, error.fix) if part]
    say("Error: " + "\n  ".join(parts), sys.stderr)


def percent(interval: Interval | None) -> str:
    """'98.5 %  (96.7 to 99.3)'."""
    if interval is None:
        return "–"
    return f"{100 * interval.value:.1f} %  ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def show_verdict(verdict: AnyVerdict, photos: str | None = None) -> None:
    """The verdict as a sentence and tables. photos: what its paths are relative to; they are shown so that they open."""
    mistakes: Any = tuple(replace(m, path=opening(m.path, photos)) for m in verdict.mistakes)
    verdict = replace(verdict, mistakes=mistakes)
    if verdict.task == "classification":
        _show_classification(cast("Verdict", verdict))
        return
    from rehead.cli.verdicts import show_labels, show_numbers

    if verdict.task == "multilabel":
        show_labels(cast("MultilabelVerdict", verdict))
    else:
        show_numbers(cast("RegressionVerdict", verdict))


def opening(path: str, photos: str | None) -> str:
    """A photo's path from the current folder where it leads to a file, else as it is. photos: a folder, or a manifest."""
    if photos is None:
        return path
    place = Path(photos).expanduser()
    shown = os.path.normpath((place if place.is_dir() else place.parent) / path)
    return shown if os.path.isfile(shown) else path


def _show_classification(verdict: Verdict) -> None:
    out = console()
    right = round(verdict.top1.value * verdict.top1.n)
    low, high = 100 * verdict.top1.low, 100 * verdict.top1.high
    from rehead.verdict.metrics import judged_on

    out.print(
        f"\n[bold]Right on {right} of {judged_on(verdict.side, verdict.top1.n)}: {100 * verdict.top1.value:.1f} %[/bold]"
        f" (95 % interval {low:.1f} to {high:.1f})"
    )
    facts = [
        f"most frequent class alone {100 * verdict.majority.value:.1f} %",
        f"macro F1 {_decimals(verdict.macro_f1)}",
    ]
    facts.append(f"log-loss {_decimals(verdict.log_loss)}")
    if verdict.top5 is not None:
        facts.insert(0, f"top-5 {percent(verdict.top5)}")
    if verdict.n_train:
        facts.append(f"learned from {counted(verdict.n_train, 'photo')}{', a part of them' if verdict.partial else ''}")
    out.print("; ".join(facts), style="dim", markup=False)
    if doubts := _doubts(verdict):
        out.print("; ".join(doubts), style="dim", markup=False)
    if verdict.growth is not None:
        out.print(verdict.growth.sentence, style="dim", markup=False)
    for note in verdict.notes:
        out.print(f"! {printable(note)}", style="yellow", markup=False)
    _show_classes(verdict, out)
    _show_mistakes(verdict, out)


def _decimals(number: Estimate) -> str:
    """'0.985 (0.967 to 0.993)'."""
    return f"{number.value:.3f} ({number.low:.3f} to {number.high:.3f})"


def _doubts(verdict: Verdict) -> list[str]:
    """How far the answers can be relied on."""
    said = []
    if verdict.calibration is not None:
        error = verdict.calibration.after.error
        said.append(
            f"probabilities are off by {100 * error.value:.1f} points ({100 * error.low:.1f} to {100 * error.high:.1f})"
        )
    if (found := verdict.selective) is not None:
        if found.threshold is None:
            said.append(f"no threshold makes answers right on {found.precision:.0%}: all count as unsure")
        elif found.threshold == 0:
            said.append(
                f"no answer counts as unsure: at least {found.precision:.0%} are right on {found.n} photos apart"
            )
        else:
            right = "" if found.right is None else f", the others are right on {percent(found.right)}"
            said.append(f"unsure below {found.threshold:.2f}: {100 * (1 - found.coverage.value):.1f} %{right}")
        if found.n * (1 - found.precision) < 1:
            said[-1] += f" ({found.n} photos, on which that was chosen, are too few to show {found.precision:.4g})"
    if verdict.unfamiliar is not None:
        said.append(f"unfamiliar {100 * verdict.unfamiliar.value:.1f} %")
    return said


def _show_classes(verdict: Verdict, out: Console) -> None:
    from rich.text import Text

    out.print()
    rows = [(printable(facts.label), str(facts.n), *_shares(facts)) for facts in verdict.classes]
    show_table(["class", "photos", "precision %", "recall %"], rows, right=range(1, 4))
    if len(verdict.classes) > MAX_CONFUSION:
        return
    out.print()
    names = [printable(facts.label) for facts in verdict.classes]
    first = min(max(10, *map(len, names)), out.width // 3)
    longest = (out.width - first) // len(names) - GAP  # so that all columns fit
    if longest < NARROWEST:
        out.print("What was named for what needs a wider terminal; --json has it.", style="dim")
        return
    made = table(["is / named", *(shortened(name, longest) for name in names)], range(1, 1 + len(names)))
    for name, row in zip(names, verdict.confusion, strict=True):
        made.add_row(Text(name, overflow="fold"), *(str(count) if count else "·" for count in row))
    out.print(made)


def _shares(facts: ClassVerdict) -> list[str]:
    return [_narrow(facts.precision), _narrow(facts.recall)]


def _narrow(interval: Interval | None) -> str:
    """'98.5 (96.7–99.3)', in percent."""
    if interval is None:
        return "–"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def _show_mistakes(verdict: Verdict, out: Console) -> None:
    if not verdict.mistakes:
        return
    out.print()
    rows = [
        (printable(m.path), printable(m.label), printable(m.predicted), f"{m.probability:.3f}")
        for m in verdict.mistakes
    ]
    show_table(["worst mistakes", "is", "named", "with"], rows, right=[3])


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
    out.print(f"Try it    rehead predict {printable(shlex.quote(bundle))} PHOTO", markup=False, soft_wrap=True)


def show_skipped(skipped: Sequence[Any]) -> None:
    """What was left out, at most ten lines of it."""
    for skip in skipped[:10]:
        say(f"Skipped {printable(skip.path)}: {printable(skip.reason)}", sys.stderr)
    if len(skipped) > 10:
        print(f"... and {len(skipped) - 10} more", file=sys.stderr)


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
    return _narrow(verdict.top1)


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
        go_on = f" Go on: rehead tune --resume {printable(shlex.quote(str(run.path)))}" if run.can_resume else ""
        out.print(f"It is not finished.{go_on}", markup=False, soft_wrap=True)
        return
    out.print(f"Head      {printable(run.head_note)}", markup=False)
    out.print(f"Time      {run.seconds['total']:.1f} s")
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
    say(f"{said}{as_bytes(other)} of it exported networks and unpacked archives")


def show_cleared(cleared: Any) -> None:
    """What was freed, or why nothing was."""
    from rehead.cli.arguments import as_bytes

    said = f"Freed {as_bytes(cleared.freed_bytes)}"
    if not cleared.matched:
        say(f"{said}: nothing that is kept matches. `rehead cache` lists what is.")
        return
    say(f"{said}." + (" Some is in use and was kept." if cleared.kept_in_use else ""))
