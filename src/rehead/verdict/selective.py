"""When to say "unsure": the probability below which answers are wrong too often, and how many photos that costs.

Selective classification with the most probable class's probability as the score (Geifman and El-Yaniv 2017). The threshold
is chosen on photos the model did not learn from and no verdict is drawn from. Arrays in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.verdict.intervals import Interval, wilson

MIN_CHOSEN_ON = 20  # photos, below which a threshold would say nothing
N_POINTS = 60  # of a curve: more cannot be told apart on a screen


@dataclass(frozen=True)
class CoveragePoint:
    """coverage: the share of photos whose answer is at least this sure; right: the share of those that is right."""

    threshold: float
    coverage: float
    right: Interval


@dataclass(frozen=True)
class Selective:
    """precision: what was asked for of answers that are not unsure. threshold: the probability from which on they are not;
    None where no threshold reaches it, and all are unsure. n: photos it was chosen on. coverage, right: on the photos of
    the verdict, the share that is not unsure, and of those the share that is right (None: there is none).
    curve: the same at other thresholds, from low to high.
    """

    precision: float
    threshold: float | None
    n: int
    coverage: Interval
    right: Interval | None
    curve: tuple[CoveragePoint, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Selective:
        """The opposite of `dataclasses.asdict`."""
        curve = tuple(CoveragePoint(**{**p, "right": Interval(**p["right"])}) for p in values["curve"])
        right = None if values["right"] is None else Interval(**values["right"])
        return cls(**{**values, "coverage": Interval(**values["coverage"]), "right": right, "curve": curve})


def threshold_for(sure: NDArray[np.floating[Any]], right: NDArray[np.bool_], precision: float) -> float | None:
    """The least probability from which on at least `precision` of the answers are right; None where there is none.

    sure: (n,), what the most probable class was given. right: (n,). Where all answers together are right often enough it
    is 0. Between two photos the middle is taken.
    """
    order = np.argsort(-sure, kind="stable")
    ranked = sure[order].astype(np.float64)
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ends = np.append(ranked[1:] < ranked[:-1], True)  # equal ones are kept or left out together
    kept = np.flatnonzero(ends & (share >= precision))
    if not len(kept):
        return None
    last = int(kept[-1])
    return 0.0 if last == len(order) - 1 else float((ranked[last] + ranked[last + 1]) / 2)


def judge_selective(
    sure: NDArray[np.floating[Any]],
    right: NDArray[np.bool_],
    *,
    precision: float,
    threshold: float | None,
    n_chosen: int,
) -> Selective:
    """What a threshold does on n photos it was not chosen on. sure, right: (n,), as in `threshold_for`."""
    kept = sure >= threshold if threshold is not None else np.zeros(len(sure), bool)
    return Selective(
        precision,
        threshold,
        n_chosen,
        wilson(int(kept.sum()), len(sure)),
        wilson(int(right[kept].sum()), int(kept.sum())) if kept.any() else None,
        tuple(_curve(sure, right)),
    )


def _curve(sure: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> Sequence[CoveragePoint]:
    order = np.argsort(sure, kind="stable")
    ranked, hits = sure[order], np.cumsum(right[order][::-1])[::-1]
    starts = np.flatnonzero(np.append(True, ranked[1:] > ranked[:-1]))
    if len(starts) > N_POINTS:
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, N_POINTS).round().astype(int))]
    n = len(order)
    return [CoveragePoint(float(ranked[i]), (n - i) / n, wilson(int(hits[i]), n - i)) for i in starts.tolist()]
