"""How far answers can be trusted: a temperature, a threshold, a distance; chosen on photos apart from the verdict's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle, Familiar, softmax
from rehead.bundle_facts import ABOVE_ALL, Task
from rehead.errors import counted
from rehead.verdict.calibrate import calibration, fit_temperature
from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import Verdict
from rehead.verdict.selective import MIN_CHOSEN_ON, judge_selective, threshold_for


@dataclass(frozen=True)
class Trust:
    """temperature: what logits are divided by, fitted on n photos (0: it was not fitted). precision: what was asked for of
    answers that are not unsure, None where that was not looked at. threshold: as in `selective.Selective`.
    """

    temperature: float = 1.0
    n: int = 0
    precision: float | None = None
    threshold: float | None = None

    def facts(self, familiar: Familiar | None) -> dict[str, Any]:
        """What a bundle says of itself."""
        far = None if familiar is None else {
            "k": familiar.k, "threshold": familiar.threshold, "kept": familiar.kept, "photos": len(familiar.bank),
        }  # fmt: skip
        unsure = {"precision": self.precision, "threshold": self.threshold, "n": self.n}
        return {
            "calibration": {"temperature": self.temperature, "n": self.n} if self.n else None,
            "unsure": None if self.precision is None else unsure,
            "unfamiliar": far,
        }

    def on(
        self,
        verdict: Verdict,
        logits: NDArray[np.floating[Any]],
        labels: NDArray[np.int64],
        is_far: NDArray[np.bool_] | None = None,
    ) -> Verdict:
        """The verdict with what it means for the same n photos. logits: (n, n_classes), not divided yet. is_far: (n,)."""
        known: dict[str, Any] = {}
        if self.n:
            known["calibration"] = calibration(logits, labels, self.temperature, self.n)
        if self.precision is not None:
            p = softmax(np.asarray(logits, np.float32) / np.float32(self.temperature))
            known["selective"] = judge_selective(p.max(axis=1), p.argmax(axis=1) == labels, precision=self.precision,
                                                 threshold=self.threshold, n_chosen=self.n)  # fmt: skip
        if is_far is not None:
            known["unfamiliar"] = wilson(int(is_far.sum()), len(is_far))
        return replace(verdict, **known)


def chosen_trust(logits: NDArray[np.float32], labels: NDArray[np.int64], precision: float) -> Trust:
    """From logits (m, n_classes) of photos that were not learned from. With too few of them nothing is chosen."""
    if len(labels) < MIN_CHOSEN_ON:
        return Trust()
    temperature = fit_temperature(logits, labels)
    p = softmax(np.asarray(logits, np.float32) / np.float32(temperature))
    threshold = threshold_for(p.max(axis=1), p.argmax(axis=1) == labels, precision)
    return Trust(temperature, len(labels), precision, threshold)


def notes_on_trust(task: Task, apart: tuple[Sequence[int], NDArray[np.float32]] | None) -> tuple[str, ...]:
    """Why nothing was chosen, where that is so. apart: photos that were not learned from, with their logits."""
    n = 0 if apart is None else len(apart[0])
    if task != "classification" or n >= MIN_CHOSEN_ON:
        return ()
    return (
        f"Probabilities are not calibrated, and no answer counts as unsure: {counted(n, 'photo')} that the model did not "
        f"learn from {'is' if n == 1 else 'are'} too few to choose by, which takes {MIN_CHOSEN_ON}.",
    )


def trust_of(bundle: Bundle) -> Trust:
    """What a bundle says of itself."""
    known: Mapping[str, Any] = bundle.facts["calibration"] or {}
    unsure: Mapping[str, Any] = bundle.facts["unsure"] or {}
    below = bundle.unsure_below
    threshold = None if below is None or below == ABOVE_ALL else below
    return Trust(bundle.temperature, int(known.get("n", 0)), unsure.get("precision"), threshold)
