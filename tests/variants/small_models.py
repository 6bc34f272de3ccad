"""Bundles of a network of nine small convolutions, for each task; exporting one takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from rehead import bundle as bundles
from rehead.bundle import Familiar, Head
from rehead.exporting.graph import export_prefix, with_head
from rehead.pixels import Preprocess, prepare
from rehead.runners import open_session

SIZE = 32
PREPROCESS = Preprocess(height=SIZE, width=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
COLOURS = {"red": (200, 60, 60), "blue": (60, 60, 200), "green": (60, 200, 60)}


def write_photos(folder: Path, n: int = 40, classes: tuple[str, ...] = ("blue", "red"), *, noise: float = 60) -> Path:
    """`n` noisy pictures of each colour, in a folder each."""
    random = np.random.default_rng(5)
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            pixels = np.clip(np.array(COLOURS[label]) + random.normal(0, noise, (SIZE, SIZE, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


def pixels_of(folder: Path) -> np.ndarray:
    """The pictures below a folder as a network sees them, by path."""
    return np.stack([prepare(path.read_bytes(), PREPROCESS) for path in sorted(folder.rglob("*.png"))])


def small_bundle(folder: Path, photos: Path, task: str = "classification", *, brittle: bool = False) -> Path:
    """A bundle whose head is fitted to the photos of the folders blue and red.

    brittle: one feature is a thousand times the others, which are all that tells classes apart: 8 bits have no room for both.
    """
    prefix, seen = folder.with_suffix(".prefix.onnx"), pixels_of(photos)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    export_prefix(_network(brittle), PREPROCESS, prefix)
    features = open_session(prefix).run(["features"], {"pixels": seen})[0]
    is_red = np.repeat([0.0, 1.0], len(seen) // 2)
    bank = features / np.linalg.norm(features, axis=1, keepdims=True)
    familiar = Familiar(bank.astype(np.float16), 3, 0.05, 0.98)
    head = _fitted(features, is_red, task)
    graph = with_head(prefix, head, task, temperature=2.0 if task == "classification" else 1.0, familiar=familiar)  # type: ignore[arg-type]
    prefix.unlink()
    bundles.write(folder, model=graph, head=head, card="# small\n", facts=_facts(task, len(seen)))
    return folder


def _network(brittle: bool) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU(),
        *(nn.Conv2d(16, 16, 1) for _ in range(5)), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(24, 24, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    for convolution in net[4:9]:
        nn.init.dirac_(convolution.weight)  # they only pass on, so that the last ones are beyond those left in float32
    if brittle:
        with torch.no_grad():
            net[-4].weight[0] *= 1e-3
            net[-4].bias[0] = 1_000.0
    return net.eval()


def _fitted(features: np.ndarray, is_red: np.ndarray, task: str) -> Head:
    """Least squares on centred features; the features' own offset goes into the bias."""
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    x = (features - centre) / scale
    wanted = {
        "classification": np.stack([1 - is_red, is_red], axis=1) * 8 - 4,
        "multilabel": np.stack([1 - is_red, is_red], axis=1) * 8 - 4,
        "regression": 10 + 5 * is_red[:, None],
    }[task]
    weight = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (wanted - wanted.mean(axis=0)))
    rows = (weight / scale[:, None]).T.astype(np.float32)
    return Head("linear", ((rows, (wanted.mean(axis=0) - rows @ centre).astype(np.float32)),))


def _facts(task: str, n_train: int) -> dict[str, Any]:
    classes = [] if task == "regression" else ["blue", "red"]
    is_one = task == "classification"
    return {
        "classes": classes,
        "task": task,
        "thresholds": [0.5, 0.5] if task == "multilabel" else [],
        "preprocess": PREPROCESS.to_dict(),
        "backbone": {"name": "small", "learned": []},
        "recipe": {"seed": 0, "valid_fraction": 0.3},
        "verdict": {"n_train": n_train},
        "versions": {"rehead": "0.1.0"},
        "calibration": {"temperature": 2.0, "n": 40} if is_one else None,
        "unsure": {"precision": 0.95, "threshold": 0.6, "n": 40} if is_one else None,
        "unfamiliar": {"k": 3, "threshold": 0.05, "kept": 0.98, "photos": n_train},
    }
