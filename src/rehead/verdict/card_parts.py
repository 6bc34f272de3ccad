"""What a model card says of labels or of numbers, where it differs from one of classes; the template is `model_card.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rehead.errors import counted
from rehead.verdict.bootstrap import short

MEASURES = {
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "r2": "R2",
    "baseline": "mean absolute error of the median alone",
}


@dataclass(frozen=True)
class Parts:
    """tag: the pipeline of model hubs. about: what stands behind the name. summary, table, limits: Markdown. answer: what
    a prediction is asked for. outputs: of the graph, besides features."""

    tag: str
    about: str
    summary: str
    answer: str
    outputs: str
    table: str
    limits: str


def card_parts(facts: dict[str, Any]) -> Parts:
    """The parts for what the bundle of these facts learned."""
    return {"classification": _classes, "multilabel": _labels, "regression": _numbers}[facts["task"]](facts)


def _classes(facts: dict[str, Any]) -> Parts:
    verdict = facts["verdict"]
    top1 = verdict["top1"]
    rows = [
        f"| {_cell(c['label'])} | {c['n']} | {_range(c['precision'])} | {_range(c['recall'])} |"
        for c in verdict["classes"]
    ]
    return Parts(
        tag="image-classification",
        about=_listing(facts["classes"]),
        summary=f"""Names one of {len(facts["classes"])} classes for a photo. Right on {top1["value"]:.1%} of {counted(top1["n"], "held-out photo")}
(95 % interval {top1["low"]:.1%} to {top1["high"]:.1%}); always naming the most frequent class gets {verdict["majority"]["value"]:.1%}.""",
        answer="label",
        outputs="`probabilities`, `logits`",
        table=f"""## Held-out photos, class by class

| class | photos | precision | recall |
| --- | ---: | ---: | ---: |
{chr(10).join(rows)}

Macro F1 {_estimate(verdict["macro_f1"])}, log-loss {_estimate(verdict["log_loss"])}.""",
        limits="It always names one of its classes, whatever the photo shows.",
    )


def _labels(facts: dict[str, Any]) -> Parts:
    verdict = facts["verdict"]
    exact, mean_ap = verdict["exact"], verdict["mean_ap"]
    rows = [
        f"| {_cell(x['label'])} | {x['n']} | {_number(x['average_precision'])} | {x['threshold']:.2f} "
        f"| {_range(x['precision'])} | {_range(x['recall'])} | {_number(x['f1'])} |"
        for x in verdict["labels"]
    ]
    return Parts(
        tag="image-classification",
        about=_listing(facts["classes"]),
        summary=f"""Gives a photo any number of {len(facts["classes"])} labels. Mean average precision {_estimate(mean_ap)} on {counted(exact["n"], "held-out photo")};
exactly the right labels on {_range(exact)} of them; always naming the most frequent labels gets {verdict["majority"]["value"]:.1%}.""",
        answer="labels",
        outputs="`probabilities` (each label by itself), `logits`",
        table=f"""## Held-out photos, label by label

A label is named from its threshold on, which was chosen on photos of the training side.

| label | photos | AP | threshold | precision | recall | F1 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

Micro F1 {_estimate(verdict["micro_f1"])}, macro F1 {_estimate(verdict["macro_f1"])},
log-loss {_estimate(verdict["log_loss"])}.""",
        limits="It knows no labels but its own, and a photo without any may mean that it shows something else.",
    )


def _numbers(facts: dict[str, Any]) -> Parts:
    verdict = facts["verdict"]
    return Parts(
        tag="other",
        about="a number",
        summary=f"""Gives a photo a number. Off by {_estimate(verdict["mae"])} on average, on {counted(verdict["mae"]["n"], "held-out photo")}, R2 {_estimate(verdict["r2"])};
always naming {short(verdict["median"])}, the median of the photos learned from, is off by {short(verdict["baseline"]["value"])}.""",
        answer="value",
        outputs="`value`",
        table=f"""## Held-out photos

| | value | 95 % interval |
| --- | ---: | ---: |
{chr(10).join(_measure(name, verdict[key]) for key, name in MEASURES.items())}""",
        limits="It always gives a number, whatever the photo shows, and one outside those it learned from is a guess.",
    )


def _measure(name: str, facts: dict[str, Any] | None) -> str:
    if facts is None:
        return f"| {name} | – | – |"
    return f"| {name} | {short(facts['value'])} | {short(facts['low'])} to {short(facts['high'])} |"


def _estimate(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "not defined"
    return f"{short(facts['value'])} (95 % interval {short(facts['low'])} to {short(facts['high'])})"


def _range(facts: dict[str, Any] | None) -> str:
    return "–" if facts is None else f"{facts['value']:.1%} ({facts['low']:.1%} to {facts['high']:.1%})"


def _number(facts: dict[str, Any] | None) -> str:
    return "–" if facts is None else f"{facts['value']:.3f} ({facts['low']:.3f} to {facts['high']:.3f})"


def _cell(label: str) -> str:
    return label.replace("|", "\\|").replace("\n", " ")


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(" ".join(name.split()) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
