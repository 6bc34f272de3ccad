"""How the verdict on classes looks: a sentence, how far it can be relied on, class by class, the worst mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehead.cli.tables import GAP, console, narrow, percent, printable, shortened, show_table, table
from rehead.errors import counted
from rehead.verdict.compare import p_value
from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import judged_on

if TYPE_CHECKING:
    from rich.console import Console

    from rehead.verdict.bootstrap import Estimate
    from rehead.verdict.metrics import ClassVerdict, Verdict

NARROWEST = 4  # columns for a class in the table of what was named for what
MAX_CONFUSION = 12  # classes; a larger matrix does not fit a terminal and stands in verdict.json


def show_classes(verdict: Verdict) -> None:
    """The verdict on classes as a sentence, what it is worth, and tables."""
    out = console()
    right = round(verdict.top1.value * verdict.top1.n)
    low, high = 100 * verdict.top1.low, 100 * verdict.top1.high
    out.print(
        f"\n[bold]Right on {right} of {judged_on(verdict.side, verdict.top1.n)}: {100 * verdict.top1.value:.1f} %[/bold]"
        f" (95 % interval {low:.1f} to {high:.1f})"
    )
    facts = [
        f"most frequent class alone {100 * verdict.majority.value:.1f} %",
        f"macro F1 {_decimals(verdict.macro_f1)}",
    ]
    facts.append(f"log-loss {_decimals(verdict.log_loss)}")
    if (alone := verdict.alone) is not None:
        share = percent(wilson(alone.n_first, alone.n))
        apart = f"it alone is right on {alone.only_first}, this model alone on {alone.only_second}"
        facts.insert(1, f"a linear head alone {share}: {apart} (p {p_value(alone.p)})")
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
    _show_tables(verdict, out)
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
        wanted = f"{100 * found.precision:.4g} %"
        if found.threshold is None:
            said.append(f"no threshold makes answers right on {wanted}: all count as unsure")
        elif found.threshold == 0:
            said.append(f"no answer counts as unsure: at least {wanted} are right on {found.n} photos apart")
        else:
            right = "" if found.right is None else f", the others are right on {percent(found.right)}"
            said.append(f"unsure below {found.threshold:.2f}: {100 * (1 - found.coverage.value):.1f} %{right}")
        if found.n * (1 - found.precision) < 1:
            said[-1] += f" ({found.n} photos, on which that was chosen, are too few to show {found.precision:.4g})"
    if verdict.unfamiliar is not None:
        said.append(f"unfamiliar {percent(verdict.unfamiliar)}")
    return said


def _show_tables(verdict: Verdict, out: Console) -> None:
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
    return [narrow(facts.precision), narrow(facts.recall)]


def _show_mistakes(verdict: Verdict, out: Console) -> None:
    if not verdict.mistakes:
        return
    out.print()
    rows = [
        (printable(m.path), printable(m.label), printable(m.predicted), f"{m.probability:.3f}")
        for m in verdict.mistakes
    ]
    show_table(["worst mistakes", "is", "named", "with"], rows, right=[3])
