"""What held-out photos say of a model that gives each photo any number of labels: (logits, 0 and 1) in, a verdict out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import sigmoid
from rehead.errors import counted
from rehead.verdict.bootstrap import Estimate, estimate
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.metrics import N_MISTAKES, of_side, readable


@dataclass(frozen=True)
class LabelVerdict:
    """How one label fares. n: photos that show it. average_precision, recall: None when none does. threshold: the
    probability from which on it is named. precision: None when it was never named. f1: None when neither."""

    label: str
    n: int
    average_precision: Estimate | None
    threshold: float
    precision: Interval | None
    recall: Interval | None
    f1: Estimate | None


@dataclass(frozen=True)
class LabelMistake:
    """A photo with a wrong set of labels. wrong: the label it is most wrong about, with the probability it was given."""

    path: str
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    wrong: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class MultilabelVerdict:
    """mean_ap: mean average precision over the labels that are shown. exact: share with exactly the right labels.
    majority: the same of always naming the set of labels most frequent here. micro_f1: of all labels of all photos
    together; macro_f1: mean over the labels that are shown or named. log_loss: mean over photos and labels, nats. The
    rest is as in `metrics.Verdict`.
    """

    task: ClassVar[str] = "multilabel"
    side: str
    mean_ap: Estimate | None
    exact: Interval
    majority: Interval
    micro_f1: Estimate
    macro_f1: Estimate
    log_loss: Estimate
    labels: tuple[LabelVerdict, ...]
    mistakes: tuple[LabelMistake, ...]
    n_train: int = 0
    partial: bool = False
    leaks: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def n(self) -> int:
        """How many photos were looked at."""
        return self.exact.n

    @property
    def headline(self) -> str:
        return f"{of_side(self.side)}mAP {self.mean_ap or 'not defined'} on {counted(self.n, 'photo')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"task": self.task, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MultilabelVerdict:
        """The opposite of `to_dict`. Raises KeyError or TypeError for what is no verdict."""

        def interval(facts: dict[str, Any] | None) -> Interval | None:
            return None if facts is None else Interval(**facts)

        def estimated(facts: dict[str, Any] | None) -> Estimate | None:
            return None if facts is None else Estimate(**facts)

        read: dict[str, Callable[[Any], Any]] = {
            "precision": interval,
            "recall": interval,
            "average_precision": estimated,
            "f1": estimated,
        }
        facts: list[dict[str, Any]] = [
            {name: read[name](value) if name in read else value for name, value in x.items()} for x in values["labels"]
        ]
        labels = [LabelVerdict(**own) for own in facts]
        mistakes = [
            LabelMistake(**{**m, "labels": tuple(m["labels"]), "predicted": tuple(m["predicted"])})
            for m in values["mistakes"]
        ]
        known = {
            "mean_ap": estimated(values["mean_ap"]),
            **{name: estimated(values[name]) for name in ("micro_f1", "macro_f1", "log_loss")},
            "exact": Interval(**values["exact"]),
            "majority": Interval(**values["majority"]),
            "labels": tuple(labels),
            "mistakes": tuple(mistakes),
            "leaks": tuple(values["leaks"]),
            "notes": tuple(values["notes"]),
        }
        return cls(**{name: value for name, value in values.items() if name != "task"} | known)


def judge_labels(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.floating[Any]],
    *,
    classes: Sequence[str],
    thresholds: Sequence[float] | NDArray[np.floating[Any]],
    paths: Sequence[str],
    side: str,
    **about: Any,
) -> MultilabelVerdict:
    """The verdict on n photos. logits: (n, k). targets: (n, k) of 0 and 1. thresholds: (k,), or (n, k) where photos were judged
    by several heads: their medians stand in the verdict. about: the verdict's own facts."""
    shown = targets > 0.5
    p = sigmoid(logits.astype(np.float32))
    named = p >= np.asarray(thresholds, np.float32)
    hits, either = (shown & named).astype(np.float64), shown.astype(np.float64) + named
    losses = np.logaddexp(0, np.where(shown, -logits, logits).astype(np.float64)).mean(axis=1)
    _, most = Counter(map(bytes, shown)).most_common(1)[0]
    return MultilabelVerdict(
        side=side,
        mean_ap=mean_average_precision(logits, targets),
        exact=wilson(int((shown == named).all(axis=1).sum()), len(p)),
        majority=wilson(most, len(p)),
        micro_f1=_estimated(lambda w: _share(2 * (w @ hits).sum(axis=1), (w @ either).sum(axis=1)), len(p)),
        macro_f1=_estimated(lambda w: _mean_f1(w @ hits, w @ either), len(p), n_columns=2 * len(classes)),
        log_loss=_estimated(lambda w: np.asarray(w @ losses / len(p)), len(p)),
        labels=_label_verdicts(logits, shown, named, classes, np.median(np.atleast_2d(thresholds), axis=0)),
        mistakes=_worst(p, shown, named, classes, paths),
        **about,
    )


def mean_average_precision(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]], *, seed: int = 0
) -> Estimate | None:
    """The mean over the labels that are shown, with an interval by resampling; None when none is. Shapes as in judge_labels."""
    statistic = mean_ap_of(logits, targets)
    if statistic is None:
        return None
    return estimate(statistic, len(logits), n_columns=int(targets.any(axis=0).sum()), seed=seed)


def mean_ap_of(
    logits: NDArray[np.floating[Any]], targets: NDArray[np.floating[Any]]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
    """The same as a statistic of weighted photos, see `bootstrap.estimate`."""
    ranked = [_ranked(logits[:, i], targets[:, i] > 0.5) for i in range(logits.shape[1]) if targets[:, i].any()]
    if not ranked:
        return None

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.stack([_average_precision(weights, *label) for label in ranked])
        known = np.isfinite(values)
        total = np.where(known, values, 0).sum(axis=0)
        count = known.sum(axis=0)
        return np.asarray(np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0))

    return statistic


def average_precision(scores: NDArray[np.floating[Any]], shown: NDArray[np.bool_]) -> Estimate | None:
    """The sum of the precisions at each score, each weighed by the recall gained there, with an interval by resampling; None
    when no photo shows the label. scores, shown: (n,).

    As scikit-learn's average_precision_score: photos of equal score are named together.
    """
    if not shown.any():
        return None
    ranked = _ranked(scores, shown)
    return estimate(lambda weights: _average_precision(weights, *ranked), len(scores))


def _ranked(
    scores: NDArray[np.floating[Any]], shown: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """The photos from high score to low, whether each shows the label, and the places where a run of equal scores ends."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, shown[order], ends


def _average_precision(
    weights: NDArray[np.float64], order: NDArray[np.intp], shown: NDArray[np.bool_], ends: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(m,), of photos counted as often as `weights` (m, n) says; NaN where none shows the label."""
    drawn = weights[:, order]
    hits = np.cumsum(drawn * shown, axis=1)[:, ends]
    named = np.cumsum(drawn, axis=1)[:, ends]
    precision = np.divide(hits, named, out=np.zeros_like(hits), where=named > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    total = hits[:, -1]
    mean = np.divide((precision * gained).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    return np.asarray(mean)


Weights = NDArray[np.float64]


def _estimated(statistic: Callable[[Weights], Weights], n: int, n_columns: int = 1) -> Estimate:
    """A number that is defined for any photos, with an interval by resampling."""
    found = estimate(statistic, n, n_columns=n_columns)
    assert found is not None
    return found


def _share(part: Weights, whole: Weights) -> Weights:
    """part / whole, 0 of nothing."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def _mean_f1(hits: Weights, either: Weights) -> Weights:
    """(m,), over the labels that are shown or named, from counts (m, k); 0 where none is."""
    return _share(_share(2 * hits, either).sum(axis=1), (either > 0).sum(axis=1).astype(np.float64))


def _label_verdicts(
    logits: NDArray[np.floating[Any]],
    shown: NDArray[np.bool_],
    named: NDArray[np.bool_],
    classes: Sequence[str],
    thresholds: NDArray[np.floating[Any]],
) -> tuple[LabelVerdict, ...]:
    verdicts = []
    for i, label in enumerate(classes):
        hits, n_shown, n_named = (int(part.sum()) for part in (shown[:, i] & named[:, i], shown[:, i], named[:, i]))
        verdicts.append(
            LabelVerdict(
                label=label,
                n=n_shown,
                average_precision=average_precision(logits[:, i], shown[:, i]),
                threshold=float(thresholds[i]),
                precision=wilson(hits, n_named) if n_named else None,
                recall=wilson(hits, n_shown) if n_shown else None,
                f1=_label_f1(shown[:, i], named[:, i]) if n_shown + n_named else None,
            )
        )
    return tuple(verdicts)


def _label_f1(shown: NDArray[np.bool_], named: NDArray[np.bool_]) -> Estimate:
    hits, either = (shown & named).astype(np.float64), shown.astype(np.float64) + named
    return _estimated(lambda w: _share(2 * (w @ hits), w @ either), len(shown))


def _worst(
    p: NDArray[np.float32],
    shown: NDArray[np.bool_],
    named: NDArray[np.bool_],
    classes: Sequence[str],
    paths: Sequence[str],
) -> tuple[LabelMistake, ...]:
    """The wrong sets with the label that was given the least probability of being right, least first."""
    given = np.where(shown == named, np.inf, np.where(shown, p, 1 - p))
    least = given.min(axis=1)
    worst = [int(i) for i in np.argsort(least, kind="stable")[:N_MISTAKES] if np.isfinite(least[i])]
    return tuple(
        LabelMistake(
            path=readable(paths[i]),
            labels=tuple(name for name, there in zip(classes, shown[i], strict=True) if there),
            predicted=tuple(name for name, there in zip(classes, named[i], strict=True) if there),
            wrong=classes[int(given[i].argmin())],
            probability=float(p[i, int(given[i].argmin())]),
        )
        for i in worst
    )
