"""What a model says of one photo: classes or a number, and how far it can be relied on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle
from rehead.bundle_facts import Task


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo.

    top: (label, probability) of every class, the most probable first. labels: those that are named, the most probable
    first: one class, or any number of labels. value: a number, where that is what the model was tuned for; then there are
    no labels. unsure: whether the answer is less probable than those that are right often enough. unfamiliar: whether
    the photo is unlike all that the model knows; distance: its cosine distance to those. None where the bundle does not say.
    """

    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] = ()
    value: float | None = None
    unsure: bool | None = None
    unfamiliar: bool | None = None
    distance: float | None = None

    @property
    def doubts(self) -> str:
        """What stands beside an answer that is not to be relied on: "unsure", "unfamiliar", both or nothing."""
        return ", ".join(name for name in ("unsure", "unfamiliar") if getattr(self, name))

    @property
    def label(self) -> str:
        """The most probable, whether or not it is named. Raises AttributeError where the answer is a number."""
        return self._first[0]

    @property
    def probability(self) -> float:
        """Of `label`, in 0..1. Raises AttributeError where the answer is a number."""
        return self._first[1]

    @property
    def _first(self) -> tuple[str, float]:
        if self.value is not None:
            raise AttributeError(
                "This model gives a photo a number, no label: read its value, not label or probability."
            )
        return self.top[0]

    def to_dict(self, task: Task, top: int | None = None) -> dict[str, Any]:
        """The plain values of a row of JSON, by `rehead predict --format jsonl` and by the service. task: of the model that
        said it. top: how many classes are listed, all by default; several labels are listed in any case. What the bundle does
        not know of doubts is left out."""
        doubts = {"unsure": self.unsure, "unfamiliar": self.unfamiliar, "distance": self.distance}
        known = {name: value for name, value in doubts.items() if value is not None}
        if task == "regression":
            return {"value": self.value, **known}
        if task == "multilabel":
            return {"labels": list(self.labels), "probabilities": dict(self.top), **known}
        listed = [{"label": label, "probability": probability} for label, probability in self.top[:top]]
        return {"label": self.label, "probability": self.probability, "top": listed, **known}

    def __repr__(self) -> str:
        doubts = f", {self.doubts}" if self.doubts else ""
        if self.value is not None:
            return f"Prediction({self.value:.4g}{doubts})"
        if self.labels != (self.label,):
            return f"Prediction({list(self.labels)!r}{doubts})"
        return f"Prediction({self.label!r}, {self.probability:.3f}{doubts})"


def prediction_of(bundle: Bundle, row: NDArray[np.float32]) -> Prediction:
    """row: probabilities (n_classes,), or a number, and behind them the distance, NaN where there is none."""
    row, distance = row[:-1], float(row[-1])
    familiar: dict[str, Any] = {}
    if bundle.unfamiliar_above is not None and math.isfinite(distance):
        familiar = {"unfamiliar": distance > bundle.unfamiliar_above, "distance": distance}
    if bundle.task == "regression":
        return Prediction(value=float(row[0]), **familiar)
    order = np.argsort(-row, kind="stable")
    top = tuple((bundle.classes[i], float(row[i])) for i in order)
    if bundle.task == "classification":
        unsure = None if bundle.unsure_below is None else top[0][1] < bundle.unsure_below
        return Prediction(top, (top[0][0],), unsure=unsure, **familiar)
    named = row >= np.asarray(bundle.thresholds, np.float32)
    return Prediction(top, tuple(bundle.classes[i] for i in order if named[i]), **familiar)
