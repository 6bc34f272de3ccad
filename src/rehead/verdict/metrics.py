"""What held-out photos say of a model: (logits, labels) in, a verdict with intervals out. No torch, no features, no files.

The shape of `Verdict.to_dict` is what `verdict.json` and the bundle hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rehead.errors import counted, escaped
from rehead.verdict.bootstrap import Estimate, estimate
from rehead.verdict.calibrate import Calibration, log_softmax
from rehead.verdict.compare import Paired
from rehead.verdict.growth import Growth
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.selective import Selective

TOP5_FROM = 10  # classes; with fewer, the right one is among five nearly by chance
N_MISTAKES = 10
DRAWN = "drawn"  # the side of held-out photos that were drawn here; of a source's own it is "valid" or "test"
GIVEN = "given"  # of photos that a finished bundle is verified on
FOLDS = "folds"  # of photos that are each judged by a head that did not learn from them


@dataclass(frozen=True)
class ClassVerdict:
    """How one class fares. precision: None when it was never predicted. recall: None when no photo shows it."""

    label: str
    n: int
    precision: Interval | None
    recall: Interval | None


@dataclass(frozen=True)
class Mistake:
    """A photo the model is wrong about. probability: what it gives the wrong class; given: what it gives the right one."""

    path: str
    label: str
    predicted: str
    probability: float
    given: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """side: of the held-out photos: "drawn" by rehead, "valid" or "test" of the source, or "given" to verify a bundle.

    top1, top5: share right (top5 from 10 classes on). majority: of always naming the class most frequent here.

    macro_f1: mean F1 over the classes that are shown or named. log_loss: mean of -ln(probability of the right class).
    calibration, selective, unfamiliar, growth: whether probabilities hold, what is unsure, the share of photos unlike those
    learned from, what more photos would bring; None where that was not looked at. alone: where layers learned, a head
    alone on the frozen network beside this model, on the same photos.
    cells: (class, named class, photos) by places in `classes`, in their order, without those of no photos; as a matrix
    they are `confusion`. mistakes: the ten it was surest of.
    n_train: photos learned from. partial: whether that is a part of those there, for a
    limit or as extraction was cut short. notes: what a reader must know.
    """

    task: ClassVar[str] = "classification"
    side: str
    top1: Interval
    top5: Interval | None
    majority: Interval
    macro_f1: Estimate
    log_loss: Estimate
    classes: tuple[ClassVerdict, ...]
    cells: tuple[tuple[int, int, int], ...]
    mistakes: tuple[Mistake, ...]
    n_train: int = 0
    partial: bool = False
    leaks: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    calibration: Calibration | None = None
    selective: Selective | None = None
    unfamiliar: Interval | None = None
    growth: Growth | None = None
    alone: Paired | None = None

    @property
    def n(self) -> int:
        """How many photos were looked at."""
        return self.top1.n

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(n_classes, n_classes): how many photos of each class were named each, rows being what they are."""
        matrix = np.zeros((len(self.classes), len(self.classes)), np.int64)
        for row, column, n in self.cells:
            matrix[row, column] = n
        return matrix

    @property
    def headline(self) -> str:
        return f"{of_side(self.side)}accuracy {self.top1} on {counted(self.n, 'photo')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Verdict:
        """The opposite of `to_dict`. Raises KeyError or TypeError for what is no verdict."""

        def interval(facts: dict[str, Any] | None) -> Interval | None:
            return None if facts is None else Interval(**facts)

        classes = [
            ClassVerdict(c["label"], c["n"], interval(c["precision"]), interval(c["recall"])) for c in values["classes"]
        ]
        known = {
            "top1": Interval(**values["top1"]),
            "top5": interval(values["top5"]),
            "majority": Interval(**values["majority"]),
            "classes": tuple(classes),
            "cells": tuple((row, column, n) for row, column, n in values["cells"]),
            "mistakes": tuple(Mistake(**mistake) for mistake in values["mistakes"]),
            "leaks": tuple(values["leaks"]),
            "notes": tuple(values["notes"]),
            "macro_f1": Estimate(**values["macro_f1"]),
            "log_loss": Estimate(**values["log_loss"]),
            "unfamiliar": interval(values.get("unfamiliar")),
        }
        parts: dict[str, Any] = {"calibration": Calibration, "selective": Selective, "growth": Growth, "alone": Paired}
        looked_at = {name: part.from_dict(values[name]) for name, part in parts.items() if values.get(name) is not None}
        return cls(**{**values, **known, **looked_at})


def judge(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    *,
    classes: Sequence[str],
    paths: Sequence[str],
    side: str,
    **about: Any,
) -> Verdict:
    """The verdict on n photos. logits: (n, n_classes). labels: (n,) places in `classes`. about: Verdict's own facts."""
    n, n_classes = logits.shape
    log_p = log_softmax(logits)
    predicted = log_p.argmax(axis=1)
    right = predicted == labels
    filled, counts = np.unique(labels * n_classes + predicted, return_counts=True)
    top5 = None
    if n_classes >= TOP5_FROM:
        rank = (log_p > log_p[np.arange(n), labels][:, None]).sum(axis=1)
        top5 = wilson(int((rank < 5).sum()), n)
    return Verdict(
        side=side,
        top1=wilson(int(right.sum()), n),
        top5=top5,
        majority=wilson(int(np.bincount(labels, minlength=1).max()), n),
        macro_f1=_macro_f1(labels, predicted, n_classes),
        log_loss=_mean(np.maximum(0.0, -log_p[np.arange(n), labels]), labels),  # never -0.0
        classes=_class_verdicts(labels, predicted, classes),
        cells=tuple((*divmod(int(at), n_classes), int(count)) for at, count in zip(filled, counts, strict=True)),
        mistakes=_worst(log_p, labels, predicted, classes, paths),
        **about,
    )


def judged_on(side: str, n: int) -> str:
    """'153 held-out photos'; of a bundle that is verified '153 photos', since it may have learned from them."""
    return counted(n, f"{of_side(side)}photo")


def of_side(side: str) -> str:
    """'held-out ', or nothing where photos are given to verify a bundle."""
    return {GIVEN: "", FOLDS: "cross-validated "}.get(side, "held-out ")


def _class_verdicts(
    labels: NDArray[np.int64], predicted: NDArray[np.intp], classes: Sequence[str]
) -> tuple[ClassVerdict, ...]:
    hits, shown, named = (
        np.bincount(places, minlength=len(classes)).tolist()
        for places in (labels[labels == predicted], labels, predicted)
    )
    return tuple(
        ClassVerdict(
            label,
            shown[i],
            wilson(hits[i], named[i]) if named[i] else None,
            wilson(hits[i], shown[i]) if shown[i] else None,
        )
        for i, label in enumerate(classes)
    )


def _macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.intp], n_classes: int) -> Estimate:
    """The mean over the classes that are shown or named, with an interval by resampling within classes."""
    right = labels == predicted

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        either = _by_class(weights, labels, n_classes) + _by_class(weights, predicted, n_classes)
        hits = _by_class(weights[:, right], labels[right], n_classes)
        f1 = np.divide(2 * hits, either, out=np.zeros_like(either), where=either > 0)
        return np.asarray(f1.sum(axis=1) / (either > 0).sum(axis=1))

    found = estimate(statistic, len(labels), n_columns=3, strata=labels)
    assert found is not None  # a photo is of a class
    return found


def _by_class(weights: NDArray[np.float64], places: NDArray[np.integer[Any]], n_classes: int) -> NDArray[np.float64]:
    """What the photos of each class weigh together, (m, n_classes). weights: (m, n). places: (n,).

    By counting, since a column of zeros and ones a class is 0.4 GB for 50,000 photos of 1,000 classes.
    """
    m = len(weights)
    cells = places + n_classes * np.arange(m)[:, None]
    return np.asarray(np.bincount(cells.ravel(), weights.ravel(), m * n_classes).reshape(m, n_classes), np.float64)


def _mean(numbers: NDArray[np.float64], labels: NDArray[np.int64]) -> Estimate:
    """The mean over photos, with an interval by resampling within classes."""
    found = estimate(lambda weights: np.asarray(weights @ numbers / len(numbers)), len(numbers), strata=labels)
    assert found is not None  # logits are finite
    return found


def _worst(
    log_p: NDArray[np.float64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.intp],
    classes: Sequence[str],
    paths: Sequence[str],
) -> tuple[Mistake, ...]:
    """The wrong ones that it was surest of, surest first."""
    given = log_p[np.arange(len(labels)), labels]
    sure = log_p.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.lexsort((given[wrong], -sure[wrong]))][:N_MISTAKES]
    return tuple(
        Mistake(
            path=escaped(paths[i]),
            label=classes[labels[i]],
            predicted=classes[predicted[i]],
            probability=float(np.exp(log_p[i, predicted[i]])),
            given=float(np.exp(given[i])),
        )
        for i in worst
    )
