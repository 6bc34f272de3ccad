"""What held-out photos say of a model that gives each photo any number of labels: (logits, 0 and 1) in, a verdict out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import sigmoid
from rehead.errors import counted, escaped
from rehead.verdict.average_precision import Weights, average_precisions
from rehead.verdict.bootstrap import Estimate, estimate, estimates
from rehead.verdict.compare import Scored
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.metrics import N_MISTAKES, of_side


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
    alone: Scored | None = None

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
            "alone": None if values.get("alone") is None else Scored.from_dict(values["alone"]),
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
    losses = np.logaddexp(0, np.where(shown, -logits, logits).astype(np.float64)).mean(axis=1)
    _, most = Counter(map(bytes, shown)).most_common(1)[0]
    mean_ap, precisions = average_precisions(logits, shown)
    micro_f1, macro_f1, *f1 = _f1(shown, named)
    return MultilabelVerdict(
        side=side,
        mean_ap=mean_ap,
        exact=wilson(int((shown == named).all(axis=1).sum()), len(p)),
        majority=wilson(most, len(p)),
        micro_f1=micro_f1,
        macro_f1=macro_f1,
        log_loss=_defined(estimate(lambda w: np.asarray(w @ losses / len(p)), len(p))),
        labels=_label_verdicts(shown, named, classes, np.median(np.atleast_2d(thresholds), axis=0), precisions, f1),
        mistakes=_worst(p, shown, named, classes, paths),
        **about,
    )


def _defined(found: Estimate | None) -> Estimate:
    """A number that is defined for any photos."""
    assert found is not None
    return found


def _f1(shown: NDArray[np.bool_], named: NDArray[np.bool_]) -> list[Estimate]:
    """Micro F1, macro F1, and that of each label, 0 where it is neither shown nor named."""
    hits, either = (shown & named).astype(np.float64), shown.astype(np.float64) + named

    def statistics(weights: Weights) -> Weights:
        part, whole = 2 * (weights @ hits), weights @ either
        micro = _share(part.sum(axis=1), whole.sum(axis=1))
        each = _share(part, whole)
        macro = _share(each.sum(axis=1), (whole > 0).sum(axis=1).astype(np.float64))
        return np.concatenate([micro[:, None], macro[:, None], each], axis=1)

    return [_defined(found) for found in estimates(statistics, len(shown), n_columns=2 * shown.shape[1])]


def _share(part: Weights, whole: Weights) -> Weights:
    """part / whole, 0 of nothing."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def _label_verdicts(
    shown: NDArray[np.bool_],
    named: NDArray[np.bool_],
    classes: Sequence[str],
    thresholds: NDArray[np.floating[Any]],
    precisions: Sequence[Estimate | None],
    f1: Sequence[Estimate],
) -> tuple[LabelVerdict, ...]:
    verdicts = []
    for i, label in enumerate(classes):
        hits, n_shown, n_named = (int(part.sum()) for part in (shown[:, i] & named[:, i], shown[:, i], named[:, i]))
        verdicts.append(
            LabelVerdict(
                label=label,
                n=n_shown,
                average_precision=precisions[i],
                threshold=float(thresholds[i]),
                precision=wilson(hits, n_named) if n_named else None,
                recall=wilson(hits, n_shown) if n_shown else None,
                f1=f1[i] if n_shown + n_named else None,
            )
        )
    return tuple(verdicts)


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
            path=escaped(paths[i]),
            labels=tuple(name for name, there in zip(classes, shown[i], strict=True) if there),
            predicted=tuple(name for name, there in zip(classes, named[i], strict=True) if there),
            wrong=classes[int(given[i].argmin())],
            probability=float(p[i, int(given[i].argmin())]),
        )
        for i in worst
    )
