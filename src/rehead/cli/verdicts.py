"""How verdicts on labels and on numbers look; those on classes are in `answers.py`."""

from __future__ import annotations

import math
from typing import Any

from rehead.cli.tables import console, narrow, printable, show_table
from rehead.errors import counted
from rehead.verdict.bootstrap import Estimate, short
from rehead.verdict.metrics import judged_on
from rehead.verdict.multilabel import MultilabelVerdict
from rehead.verdict.regression import RegressionVerdict

NONE = "(none)"  # what stands where a photo has, or is given, no label
MOST_DECIMALS = 7  # of a number in a table; beyond that it is written with an exponent
MOST_DIGITS = 15  # before the point, likewise
FIGURES = 8  # of a float32, which has seven or eight


def show_labels(verdict: MultilabelVerdict) -> None:
    """The verdict on several labels a photo as a sentence and tables."""
    out = console()
    exact = verdict.exact
    head = "mAP not defined" if verdict.mean_ap is None else f"mAP {short(verdict.mean_ap.value)}"
    out.print(f"\n[bold]{head} on {judged_on(verdict.side, verdict.n)}[/bold]{_interval(verdict.mean_ap)}")
    right = round(exact.value * exact.n)
    facts = [f"exactly the right labels on {right} of {exact.n}: {narrow(exact)} %"]
    facts.append(f"most frequent labels alone {100 * verdict.majority.value:.1f} %")
    facts.append(f"micro F1 {verdict.micro_f1}, macro F1 {verdict.macro_f1}")
    if (alone := verdict.alone) is not None:
        facts.append(f"a linear head alone has mAP {short(alone.first)} (difference {alone.difference})")
    _show_facts(verdict, facts)
    rows = [
        (printable(x.label), str(x.n), _share(x.average_precision), f"{x.threshold:.2f}", narrow(x.precision),
         narrow(x.recall), _share(x.f1))
        for x in verdict.labels
    ]  # fmt: skip
    out.print()
    show_table(
        ["label", "photos", "AP", "from", "precision %", "recall %", "F1"],
        rows,
        right=range(1, 7),
        spare=["from", "F1"],
    )
    if verdict.mistakes:
        out.print()
        wrong = [
            (printable(m.path), _listed(m.labels), _listed(m.predicted), f"{printable(m.wrong)} {m.probability:.3f}")
            for m in verdict.mistakes
        ]
        show_table(["worst mistakes", "is", "named", "most wrong"], wrong)


def show_numbers(verdict: RegressionVerdict) -> None:
    """The verdict on a number a photo as a sentence and a table."""
    out = console()
    mean = short(verdict.mae.value)
    on = judged_on(verdict.side, verdict.n)
    out.print(f"\n[bold]Off by {mean} on average, on {on}[/bold]{_interval(verdict.mae)}")
    r2 = "R2 not defined: the numbers do not differ" if verdict.r2 is None else f"R2 {verdict.r2}"
    facts = [r2, f"root mean square {verdict.rmse}"]
    facts.append(f"always naming {short(verdict.median)}, the median, is off by {short(verdict.baseline.value)}")
    if (alone := verdict.alone) is not None:
        facts.append(f"a linear head alone is off by {short(alone.first)} (difference {alone.difference})")
    _show_facts(verdict, facts)
    if verdict.mistakes:
        out.print()
        form = _form(verdict.mae.value, max(abs(x) for m in verdict.mistakes for x in (m.value, m.predicted)))
        rows = [
            (printable(m.path), f"{m.value:{form}}", f"{m.predicted:{form}}", f"{m.predicted - m.value:+{form}}")
            for m in verdict.mistakes
        ]
        show_table(["furthest off", "is", "predicted", "off"], rows, right=range(1, 4))


def _show_facts(verdict: Any, facts: list[str]) -> None:
    out = console()
    if verdict.n_train:
        facts.append(f"learned from {counted(verdict.n_train, 'photo')}{', a part of them' if verdict.partial else ''}")
    out.print("; ".join(facts), style="dim", markup=False)
    for note in verdict.notes:
        out.print(f"! {printable(note)}", style="yellow", markup=False)


def _form(error: float, largest: float) -> str:
    """How numbers of at most this size are written so that such errors are told apart: with 3 decimals for 0.079, none for 12;
    with an exponent where that takes too many of them, or of figures."""
    places = 1 - math.floor(math.log10(error))
    digits = 1 + math.floor(math.log10(largest))
    if places <= MOST_DECIMALS and digits <= MOST_DIGITS:
        return f".{max(0, places)}f"
    return f".{min(FIGURES, max(2, digits + places)) - 1}e"


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else f" (95 % interval {short(estimate.low)} to {short(estimate.high)})"


def _share(value: Estimate | None) -> str:
    return "–" if value is None else f"{value.value:.3f} ({value.low:.3f}–{value.high:.3f})"


def _listed(names: tuple[str, ...]) -> str:
    return printable(", ".join(names)) or NONE
