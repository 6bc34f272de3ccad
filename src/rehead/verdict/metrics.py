"""What held-out photos say of a model: (logits, labels) in, a verdict with intervals out. No torch, no features, no files.

The shape of `Verdict.to_dict` is what `verdict.json` and the bundle hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rehead.errors import counted

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
TOP5_FROM = 10  # classes; with fewer, the right one is among five nearly by chance
N_MISTAKES = 10
DRAWN = "drawn"  # the side of held-out photos that were drawn here; of a source's own it is "valid" or "test"
GIVEN = "given"  # of photos that a finished bundle is verified on


@dataclass(frozen=True)
class Interval:
    """A share of `n` photos, in 0..1, and the 95 % interval around it."""

    value: float
    low: float
    high: float
    n: int

    def __repr__(self) -> str:
        return f"Interval({self.value:.3f}, low={self.low:.3f}, high={self.high:.3f})"

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def wilson(right: int, n: int) -> Interval:
    """`right` of `n` with its 95 % score interval (E. B. Wilson, 1927). Of nothing nothing is known: 0 to 1."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    share, z2 = right / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)), n)  # of rounding


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
    confusion: row = true class, column = predicted class, in the order of `classes`. mistakes: the ten it was surest of.
    n_train: photos learned from. partial: whether extraction was cut short. notes: what a reader must know.
    """

    task: ClassVar[str] = "classification"
    side: str
    top1: Interval
    top5: Interval | None
    majority: Interval
    macro_f1: float
    log_loss: float
    classes: tuple[ClassVerdict, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    n_train: int = 0
    partial: bool = False
    leaks: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def n(self) -> int:
        """How many photos were looked at."""
        return self.top1.n

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
            "confusion": tuple(tuple(row) for row in values["confusion"]),
            "mistakes": tuple(Mistake(**mistake) for mistake in values["mistakes"]),
            "leaks": tuple(values["leaks"]),
            "notes": tuple(values["notes"]),
        }
        return cls(**{**values, **known})


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
    confusion = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    top5 = None
    if n_classes >= TOP5_FROM:
        rank = (log_p > log_p[np.arange(n), labels][:, None]).sum(axis=1)
        top5 = wilson(int((rank < 5).sum()), n)
    return Verdict(
        side=side,
        top1=wilson(int(right.sum()), n),
        top5=top5,
        majority=wilson(int(np.bincount(labels, minlength=1).max()), n),
        macro_f1=_macro_f1(confusion),
        log_loss=max(0.0, float(-log_p[np.arange(n), labels].mean())),  # never -0.0
        classes=tuple(_class_verdict(confusion, i, label) for i, label in enumerate(classes)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        mistakes=_worst(log_p, labels, predicted, classes, paths),
        **about,
    )


def judged_on(side: str, n: int) -> str:
    """'153 held-out photos'; of a bundle that is verified '153 photos', since it may have learned from them."""
    return counted(n, f"{of_side(side)}photo")


def of_side(side: str) -> str:
    """'held-out ', or nothing where photos are given to verify a bundle."""
    return "" if side == GIVEN else "held-out "


def readable(path: str) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 are escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Natural logarithms of the probabilities, (n, n_classes) float64."""
    raised = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(raised - np.log(np.exp(raised).sum(axis=1, keepdims=True)))


def _class_verdict(confusion: NDArray[np.int64], i: int, label: str) -> ClassVerdict:
    hits, shown, named = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
    return ClassVerdict(label, shown, wilson(hits, named) if named else None, wilson(hits, shown) if shown else None)


def _macro_f1(confusion: NDArray[np.int64]) -> float:
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    there = either > 0
    return float((2 * confusion.diagonal()[there] / either[there]).mean())


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
            path=readable(paths[i]),
            label=classes[labels[i]],
            predicted=classes[predicted[i]],
            probability=float(np.exp(log_p[i, predicted[i]])),
            given=float(np.exp(given[i])),
        )
        for i in worst
    )
