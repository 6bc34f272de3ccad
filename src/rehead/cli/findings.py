"""How it looks what an audit found, the most important first, and what is to be typed next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rehead.cli.tables import console, percent, printable, say, show_table
from rehead.cli.terminal import opening
from rehead.errors import counted

if TYPE_CHECKING:
    from rehead.auditing.apply import Applied
    from rehead.auditing.findings import Audit, CopyGroup, Shortcut
    from rehead.auditing.plan import Line

N_SHOWN = 10  # rows of a table; --json and --fix have all


def show_audit(audit: Audit, photos: str | None = None) -> None:
    """What was found, each kind in a table. photos: what the paths are relative to; they are shown so that they open."""
    counts = {
        "leak": audit.leaks.n,
        "shortcut": sum(s.is_found for s in audit.shortcuts),
        "label that is likely wrong": len(audit.labels),
        "broken file": len(audit.broken),
        "group of copies": len(audit.copies),
        "odd picture": len(audit.pictures),
        "outlier": len(audit.outliers),
    }
    found = [_counted(n, kind) for kind, n in counts.items() if n]
    out = console()
    said = ", ".join(found) or "nothing is wrong"
    if audit.not_looked_for:
        said += f"; {' and '.join(audit.not_looked_for)} were not looked for"
    out.print(f"\n{counted(audit.n, 'photo')} looked at: {said}", style="bold", markup=False)
    _show_leaks(audit)
    for shortcut in audit.shortcuts:
        _show_shortcut(shortcut)
    shown = [printable(opening(x.path, photos)) for x in audit.labels[:N_SHOWN]]
    _section(
        "Labels that are likely wrong, the likeliest first",
        ["photo", "labelled", "with", "is rather", "with "],
        [
            (path, printable(x.label), f"{x.given:.3f}", printable(x.suggested), f"{x.probability:.3f}")
            for path, x in zip(shown, audit.labels, strict=False)
        ],
        len(audit.labels),
        right=[2, 4],
    )
    _section(
        "Files that cannot be used",
        ["file", "why"],
        [(printable(opening(x.path, photos)), printable(x.reason)) for x in audit.broken[:N_SHOWN]],
        len(audit.broken),
    )
    _section(
        "Copies: one picture in several files",
        ["photo", "also", "differ by", "labels", "sides"],
        [_copies(group, photos) for group in audit.copies[:N_SHOWN]],
        len(audit.copies),
        spare=["differ by", "labels"],
    )
    _section(
        "Odd pictures",
        ["photo", "fault", "why"],
        [(printable(opening(x.path, photos)), x.fault, x.why) for x in audit.pictures[:N_SHOWN]],
        len(audit.pictures),
    )
    _section(
        "Unlike all others: far from their nearest neighbours",
        ["photo", "label", "times as far as usual"],
        [
            (printable(opening(x.path, photos)), printable(x.label), f"{x.distance / max(x.usual, 1e-9):.1f}")
            for x in audit.outliers[:N_SHOWN]
        ],
        len(audit.outliers),
        right=[2],
    )
    for note in audit.notes:
        out.print(f"! {printable(note)}", style="yellow", markup=False)


def show_plan(plan: Sequence[Line], target: Path | None, typed: Sequence[str]) -> None:
    """What a plan proposes, or how to have one written. typed: the words of the command that are to be typed again."""
    if not plan:
        return
    n = Counter(line.action for line in plan)
    command = printable(shlex.join(typed))
    out = console()
    print()
    if target is None:
        out.print(f"Go on     {command} --fix plan.csv", markup=False, soft_wrap=True)
        return
    said = f"{n['remove']} to remove, {n['relabel']} to relabel, {n['keep']} to look at"
    out.print(f"Plan      {printable(str(target))}: {said}", markup=False, soft_wrap=True)
    again = printable(shlex.quote(str(target)))
    out.print(f"Go on     edit it, then: {command} --apply {again}", markup=False, soft_wrap=True)


def show_applied(applied: Applied, typed: Sequence[str]) -> None:
    """What is in the new manifest, and which lines of the plan could not be followed. typed: words to be typed again."""
    for skip in applied.skipped[:N_SHOWN]:
        say(f"! {printable(skip.path)} {printable(skip.reason)}")
    if (more := len(applied.skipped) - N_SHOWN) > 0:
        say(f"! and {counted(more, 'more line')} of the plan")
    if applied.new_labels:
        say(f"! New labels, which no photo had: {', '.join(map(printable, applied.new_labels))}")
    done = f"{applied.n_removed} removed, {applied.n_relabelled} relabelled"
    target = printable(str(applied.manifest))
    out = console()
    out.print(f"Manifest  {target}: {counted(applied.n, 'photo')}, {done}", markup=False, soft_wrap=True)
    task = [] if applied.task is None else ["--task", applied.task]
    command = shlex.join(["rehead", "tune", str(applied.manifest), *task, *typed])
    out.print(f"Go on     {printable(command)}", markup=False, soft_wrap=True)


def _show_leaks(audit: Audit) -> None:
    leaks = audit.leaks
    if not leaks.n:
        return
    said = (
        f"{counted(leaks.n, 'held-out photo')} {'is a copy' if leaks.n == 1 else 'are copies'} of photos learned from."
    )
    if leaks.accuracy is not None:
        rest = f"{leaks.without} without" if leaks.without is not None else "and none is left without"
        said += f" Right on {leaks.accuracy} with them, {rest}."
    print()
    console().print(f"! {said}", style="yellow", markup=False)


def _show_shortcut(shortcut: Shortcut) -> None:
    if not shortcut.is_found:
        return
    what = {"file": "The file alone, without the picture,", "border": "The outermost edge of the picture alone"}
    control = {"file": "how much detail the picture has", "border": "a ring further in"}
    said = (
        f"{what[shortcut.source]} tells the label of {shortcut.accuracy}. The most frequent class is that of "
        f"{shortcut.majority}; {control[shortcut.source]} tells {shortcut.control}. "
        "A model may learn this in place of what the photos show."
    )
    print()
    console().print(f"! {said}", style="yellow", markup=False)
    rows = [(f.name, percent(f.accuracy), f"{f.p:.1g}") for f in shortcut.fields[:N_SHOWN]]
    if rows:
        show_table(["what gives it away", "right by itself", "p"], rows, right=[1, 2])


def _section(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    n: int,
    right: Sequence[int] = (),
    spare: Sequence[str] = (),
) -> None:
    if not rows:
        return
    print()
    out = console()
    out.print(f"{title}: {n}" if n > len(rows) else title, style="bold", markup=False)
    show_table(header, rows, right=right, spare=spare)
    if n > len(rows):
        out.print(f"and {n - len(rows):,} more: --json and --fix have all", style="dim", markup=False)


def _copies(group: CopyGroup, photos: str | None) -> tuple[str, str, str, str, str]:
    first, second = (printable(opening(path, photos)) for path in group.paths[:2])
    more = f" and {len(group.paths) - 2} more" if len(group.paths) > 2 else ""
    near = "nothing" if group.is_exact else f"{group.bits} of 64 bits"
    labels = ", ".join(dict.fromkeys(printable(label) for label in group.labels))
    return first, second + more, near, labels, ", ".join(dict.fromkeys(group.sides))


def _counted(n: int, kind: str) -> str:
    """'2 groups of copies', '3 labels that are likely wrong'."""
    noun, _, rest = kind.partition(" of ") if " of " in kind else kind.partition(" that ")
    if not rest:
        return counted(n, kind)
    if " of " in kind:
        return f"{counted(n, noun)} of {rest}"
    return f"{counted(n, noun)} that {'is' if n == 1 else 'are'} likely wrong"
