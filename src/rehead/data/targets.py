"""The label column as what is learned: one class a photo, several labels a photo, or a number.

Which of them it is the labels tell, unless it is said. Reading labels is left to the readers of `data/`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle_facts import Task
from rehead.data.rows import label_of, quoted

SEPARATOR = ";"
MANY_NUMBERS = 20  # different whole numbers up to which they are taken for names of classes
CLASS_LAYOUTS = ("folders", "split", "flat")  # where a label is the name of a folder or of a file
LARGEST = float(np.finfo(np.float32).max)
MIN_STRATUM = 10  # photos with the same labels that are dealt out by themselves; fewer go by their rarest label
N_BINS = 10  # of numbers, so that folds hold low and high ones alike


def task_of(labels: Iterable[str], layout: str) -> Task:
    """What the labels of a source are.

    Names of folders and files are classes. Elsewhere a ";" in any label makes them several a photo. Numbers are numbers
    when one has a fraction, or when there are more than MANY_NUMBERS different ones with gaps between them: whole numbers
    from 0 or 1 on without a gap are classes, as all whole numbers in shards are. Everything else is a class.
    """
    different = set(labels)
    if layout in CLASS_LAYOUTS:
        return "classification"
    if any(SEPARATOR in label for label in different):
        return "multilabel"
    numbers = {number for label in different if (number := number_in(label)) is not None}
    if not numbers or any(number_in(label) is None for label in different):
        return "classification"
    if not all(number.is_integer() for number in numbers):
        return "regression"
    is_gapless = min(numbers) in (0, 1) and max(numbers) - min(numbers) + 1 == len(numbers)
    is_few = len(numbers) <= MANY_NUMBERS
    return "classification" if is_gapless or is_few or layout == "webdataset" else "regression"


def label_for(task: Task, text: str) -> str:
    """The label as it is kept: several names sorted, each once; a number in one way. Raises ValueError with the reason
    why it is none, which continues the photo's path."""
    if task == "multilabel":
        return SEPARATOR.join(names_in(text))
    text = text.removesuffix(SEPARATOR)  # a list of one
    if not text:
        raise ValueError("has no label")
    if task == "classification":
        return text
    number = number_in(text)
    if number is None:
        why = "is too large a number" if re.fullmatch(r"[-+]?[\d.]+(e\+?\d+)?", text.lower()) else "is no number"
        raise ValueError(f"has the label {quoted(text)}, which {why}")
    return label_of(number)


def names_of(label: str, task: Task) -> list[str]:
    """The class that a label is, or the labels that stand in it."""
    return names_in(label) if task == "multilabel" else [label]


def names_in(label: str) -> list[str]:
    """The names in "red;circle", sorted; none in an empty label."""
    return sorted({name.strip() for name in label.split(SEPARATOR)} - {""})


def number_in(label: str) -> float | None:
    """The number that a label is, None when it is none, or none that float32 holds."""
    try:
        number = float(label)
    except ValueError:
        return None
    return number if abs(number) <= LARGEST and "_" not in label else None  # which NaN is not


def classes_of(labels: Iterable[str], task: Task) -> tuple[str, ...]:
    """All classes or labels that stand there, sorted; none of numbers."""
    if task == "regression":
        return ()
    names = set(labels) if task == "classification" else {name for label in set(labels) for name in names_in(label)}
    return tuple(sorted(names))


def targets_of(labels: Sequence[str], task: Task, classes: Sequence[str]) -> NDArray[Any]:
    """What is learned: places in `classes`, (n,) int64; 0 and 1, (n, k) float32; or numbers, (n,) float32."""
    if task == "regression":
        return np.array([float(label) for label in labels], np.float32)
    place = {name: i for i, name in enumerate(classes)}
    if task == "classification":
        return np.array([place[label] for label in labels], np.int64)
    targets = np.zeros((len(labels), len(classes)), np.float32)
    for row, label in zip(targets, labels, strict=True):
        row[[place[name] for name in names_in(label)]] = 1
    return targets


def strata_of(labels: Sequence[str], task: Task, classes: Sequence[str]) -> NDArray[np.int64]:
    """Which photos are alike, (n,) int64, for orders and folds that hold all kinds in proportion.

    Of classes their places in `classes`. Several labels: photos with the same ones, where they are many, else with the
    same rarest one. Numbers: ten bins of as many photos, fewer of few.
    """
    if task == "classification":
        return np.asarray(targets_of(labels, task, classes), np.int64)
    if task == "multilabel":
        return _alike(labels)
    n_bins = min(N_BINS, max(1, len(labels) // MIN_STRATUM))
    order = np.argsort(targets_of(labels, task, classes), kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels))
    return ranks * n_bins // max(1, len(labels))


def _alike(labels: Sequence[str]) -> NDArray[np.int64]:
    n_alike = Counter(labels)
    n_shown = Counter(name for label in labels for name in names_in(label))
    kinds = [
        label
        if n_alike[label] >= MIN_STRATUM
        else min(names_in(label), key=lambda name: (n_shown[name], name), default="")
        for label in labels
    ]
    sizes = Counter(kinds)
    kinds = [kind if sizes[kind] > 1 else "" for kind in kinds]  # of one photo alone no fold could be made
    place = {kind: i for i, kind in enumerate(sorted(set(kinds)))}
    return np.array([place[kind] for kind in kinds], np.int64)
