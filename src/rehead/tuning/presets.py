"""The presets: settings of a recipe that were tried together. What each costs and gives stands in docs/tuning.md."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"train": "head"},
    "balanced": {
        "train": "last:40%",
        "norm": "adapt",
        "augment": "crop",
        "views": 4,
        "ema": 0.99,
        "lr": 2e-3,
        "watch": 0.05,
    },
    "thorough": {
        "train": "all",
        "first": "balanced",
        "epochs": 3,
        "lr": 3e-4,
        "layer_decay": 0.85,
        "augment": "crop",
        "start_scale": 0.7,
        "ema": 0.99,
        "watch": 0.05,
    },
}
