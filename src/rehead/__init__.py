"""rehead gives a pretrained vision network a new head, for someone who has a folder of labelled photos.

    tuned = rehead.tune("photos/")
    model = rehead.load(tuned.bundle)
    model.predict("cat.jpg").label

Each name is loaded on first use: importing rehead imports no torch, and neither does `load(...).predict(...)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rehead.auditing.findings import Audit
    from rehead.auditing.job import audit
    from rehead.auditing.nearest import Neighbour, neighbours
    from rehead.batches import load_batch
    from rehead.bundle import Bundle, Head
    from rehead.classifier import Classifier
    from rehead.cli.showing import Lines
    from rehead.compare_bundles import Compared, compare
    from rehead.errors import ReheadError
    from rehead.folds import cross_validate
    from rehead.heat import Heat, explain
    from rehead.nets.backbone import Backbone, backbone
    from rehead.predict import Model, load
    from rehead.prediction import Prediction
    from rehead.reporting.job import report
    from rehead.run import Tuned, tune
    from rehead.search.heats import Race
    from rehead.search.race import race
    from rehead.tuning.fit import fit
    from rehead.tuning.recipe import Recipe
    from rehead.variants.job import Exported, export
    from rehead.verdict.intervals import Interval
    from rehead.verdict.metrics import Verdict
    from rehead.verify_bundle import verify

__version__ = "0.1.0"

_ROOM_BY_NAME = {
    "tune": "rehead.run",
    "Tuned": "rehead.run",
    "race": "rehead.search.race",
    "Race": "rehead.search.heats",
    "verify": "rehead.verify_bundle",
    "export": "rehead.variants.job",
    "Exported": "rehead.variants.job",
    "audit": "rehead.auditing.job",
    "Audit": "rehead.auditing.findings",
    "report": "rehead.reporting.job",
    "neighbours": "rehead.auditing.nearest",
    "Neighbour": "rehead.auditing.nearest",
    "compare": "rehead.compare_bundles",
    "Compared": "rehead.compare_bundles",
    "cross_validate": "rehead.folds",
    "explain": "rehead.heat",
    "Heat": "rehead.heat",
    "load": "rehead.predict",
    "Model": "rehead.predict",
    "Prediction": "rehead.prediction",
    "Classifier": "rehead.classifier",
    "Lines": "rehead.cli.showing",
    "Backbone": "rehead.nets.backbone",
    "backbone": "rehead.nets.backbone",
    "fit": "rehead.tuning.fit",
    "load_batch": "rehead.batches",
    "Bundle": "rehead.bundle",
    "Head": "rehead.bundle",
    "Recipe": "rehead.tuning.recipe",
    "Verdict": "rehead.verdict.metrics",
    "Interval": "rehead.verdict.metrics",
    "ReheadError": "rehead.errors",
}

__all__ = [
    "Audit",
    "Backbone",
    "Bundle",
    "Classifier",
    "Compared",
    "Exported",
    "Head",
    "Heat",
    "Interval",
    "Lines",
    "Model",
    "Neighbour",
    "Prediction",
    "Race",
    "Recipe",
    "ReheadError",
    "Tuned",
    "Verdict",
    "audit",
    "backbone",
    "compare",
    "cross_validate",
    "explain",
    "export",
    "fit",
    "load",
    "load_batch",
    "neighbours",
    "race",
    "report",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_BY_NAME:
        raise AttributeError(f"module 'rehead' has no attribute {name!r}")
    from rehead.errors import missing_extras

    with missing_extras():
        return getattr(importlib.import_module(_ROOM_BY_NAME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
