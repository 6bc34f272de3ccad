"""One verdict for whatever was learned: made, and read back from JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rehead.bundle_facts import Task
from rehead.errors import counted
from rehead.verdict.average_precision import mean_average_precision
from rehead.verdict.bootstrap import MIN_RESAMPLES
from rehead.verdict.compare import Paired, Scored, paired, scored_labels, scored_numbers
from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import Verdict, judge
from rehead.verdict.multilabel import MultilabelVerdict, judge_labels
from rehead.verdict.regression import RegressionVerdict, judge_numbers, r_squared

AnyVerdict: TypeAlias = Verdict | MultilabelVerdict | RegressionVerdict


def judge_task(
    task: Task,
    outputs: NDArray[np.floating[Any]],
    targets: NDArray[Any],
    *,
    classes: Sequence[str],
    thresholds: Sequence[float] | NDArray[np.floating[Any]],
    median: float,
    paths: Sequence[str],
    side: str,
    **about: Any,
) -> AnyVerdict:
    """The verdict on n photos. outputs: (n, k) logits, or (n, 1) numbers. targets: see `data/targets.py`. thresholds: of
    several labels a photo, see `judge_labels`. median: of the numbers learned from. about: the verdict's own facts."""
    if task == "regression":
        return judge_numbers(outputs[:, 0], targets, median=median, paths=paths, side=side, **about)
    if task == "multilabel":
        return judge_labels(outputs, targets, classes=classes, thresholds=thresholds, paths=paths, side=side, **about)
    return judge(outputs, targets, classes=classes, paths=paths, side=side, **about)


def read_verdict(values: dict[str, Any]) -> AnyVerdict:
    """The opposite of a verdict's `to_dict`. Raises KeyError or TypeError for what is none."""
    kinds: dict[str, type[AnyVerdict]] = {kind.task: kind for kind in (Verdict, MultilabelVerdict, RegressionVerdict)}
    return kinds[values.get("task", Verdict.task)].from_dict(values)


def set_beside(
    task: Task, alone: NDArray[Any], outputs: NDArray[np.floating[Any]], targets: NDArray[Any]
) -> Paired | Scored | None:
    """A head alone and the model on the same n photos; None where no label is shown. alone: (n, 1) places of the classes that
    it names, or its outputs. outputs: the model's, (n, k). targets: see `data/targets.py`."""
    if task == "regression":
        return scored_numbers(alone[:, 0], outputs[:, 0], targets)
    if task == "multilabel":
        return scored_labels(alone, outputs, targets)
    return paired(alone[:, 0] == targets, outputs.argmax(axis=1) == targets, targets)


def first_number(task: Task, outputs: NDArray[np.floating[Any]], targets: NDArray[Any]) -> str:
    """A line on photos that are held out, for a display while more come; the interval of a mAP rests on few resamples."""
    on = f"on {counted(len(targets), 'photo')}"
    if task == "classification":
        return f"held-out accuracy {wilson(int((outputs.argmax(axis=1) == targets).sum()), len(targets))} {on}"
    if task == "multilabel":
        found, name = mean_average_precision(outputs, targets, n_resamples=MIN_RESAMPLES), "mAP"
    else:
        found, name = r_squared(outputs[:, 0], targets), "R2"
    return "" if found is None else f"held-out {name} {found} {on}"
