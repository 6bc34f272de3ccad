"""Which epoch's weights to keep by a few watched photos: figures behind the tolerance of `tuning/course.py`.

In trainings of the last layers half of the training side is watched, and the loss of each of these photos noted after each
epoch. Some of them are drawn, 200 times: they choose the epoch, and the others say what the choice is worth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from measured import DATA, dogscats_manifest, report

import rehead
from rehead.tuning import train
from rehead.tuning.watching import is_worse

TRAININGS = {  # settings of each, and how many seeds
    "hymenoptera": ([{"train": "last:1", "epochs": 3}, {"train": "last:2", "epochs": 6}, {"recipe": "balanced"}], 3),
    "dogscats": (
        [
            {"train": "last:1", "epochs": 3},
            {"train": "last:2", "epochs": 3},
            {"train": "last:2", "epochs": 8},
            {"recipe": "balanced"},
        ],
        3,
    ),
    "flowers": ([{"train": "last:1", "epochs": 3}, {"train": "last:2", "epochs": 6}, {"recipe": "balanced"}], 1),
}
WATCHED, DRAWS = (8, 13, 25, 50, 80, 120, 200), 200
Epochs = list[tuple[torch.Tensor, torch.Tensor]]  # of each epoch: which watched photos are wrong, and their losses


def main() -> None:
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (jobs, n_seeds) in TRAININGS.items():
            photos = dogscats_manifest(Path(folder)) if name == "dogscats" else DATA / name
            trained = [noted(photos, Path(folder), job, seed) for job in jobs for seed in range(n_seeds)]
            for n in WATCHED:
                if n < 0.7 * len(trained[0][0][0]):
                    facts |= {f"{name}, {n} watched, {way}": worth(trained, n, rule) for way, rule in RULES.items()}
    report("kept_epoch", facts)


def noted(photos: Path, folder: Path, settings: dict[str, Any], seed: int) -> Epochs:
    epochs: Epochs = []
    watched = train.watched

    def told(*arguments: Any) -> Any:
        facts, faults, losses = watched(*arguments)
        epochs.append((faults.clone(), losses.clone()))
        return facts, faults, losses

    with mock.patch.object(train, "watched", told):
        rehead.tune(
            photos,
            seed=seed,
            watch=0.5,
            out=folder / "run",
            force=True,
            report=False,
            cache=folder / "cache",
            **settings,
        )
    print(
        photos.name,
        settings,
        seed,
        [f"{losses.mean():.3f} {int(faults.sum())}" for faults, losses in epochs],
        flush=True,
    )
    return epochs


def last_of_all(losses: list[torch.Tensor]) -> int:
    return len(losses) - 1


def least(losses: list[torch.Tensor]) -> int:
    return int(np.argmin([float(one.mean()) for one in losses]))


def latest_within_one(losses: list[torch.Tensor]) -> int:
    """The one-standard-error rule of Breiman et al. 1984."""
    best = losses[least(losses)]
    return max(epoch for epoch, one in enumerate(losses) if not is_worse(one, best, 1))


def last_within_two(losses: list[torch.Tensor]) -> int:
    """What rehead does."""
    best = least(losses)
    return best if is_worse(losses[-1], losses[best], 2) else len(losses) - 1


RULES: dict[str, Callable[[list[torch.Tensor]], int]] = {
    "the last": last_of_all,
    "the least loss": least,
    "the latest within one standard error": latest_within_one,
    "the last within two, else the least loss": last_within_two,
}


def worth(trained: list[Epochs], n: int, rule: Callable[[list[torch.Tensor]], int]) -> str:
    """'1.59 % wrong, 0.0904 nats': means over draws and trainings of what the photos that did not choose are given."""
    random, found = np.random.default_rng(0), []
    for epochs in trained:
        for _ in range(DRAWS):
            order = random.permutation(len(epochs[0][0]))
            choosing, judging = order[:n], order[n:]
            faults, losses = epochs[rule([losses[choosing] for _, losses in epochs])]
            found.append((100 * float(faults[judging].mean()), float(losses[judging].mean())))
    wrong, loss = np.mean(found, axis=0)
    return f"{wrong:.2f} % wrong, {loss:.4f} nats"


if __name__ == "__main__":
    main()
