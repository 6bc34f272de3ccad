"""An MLP head learns from features wherever they lie, by whoever takes the steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from rehead import job as jobs
from rehead.bundle import Head
from rehead.errors import ClusterError
from rehead.job import Job, trained_dense
from rehead.progress import Silent
from rehead.tuning import learning_curve
from rehead.tuning.head import fit_head
from rehead.tuning.mlp import train_mlp
from rehead.tuning.recipe import Recipe
from rehead.tuning.solve import solve_linear
from rehead.tuning.train import train_layers

SETTINGS: dict[str, Any] = {
    "hidden": (16,), "epochs": 12, "batch_size": 8, "lr": 1e-2, "activation": "relu", "class_weight": "balanced", "seed": 3,
    "device": "cpu", "progress": Silent(),
}  # fmt: skip


def photos(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Features that float16 holds, of two classes that no plane parts, and one feature that never varies."""
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (n, 6)).astype(np.float16).astype(np.float32)
    features[:, 5] = 7
    return features, ((features[:, 0] > 3) ^ (features[:, 1] > 3)).astype(np.int64)


def same(one: Head, other: Head) -> bool:
    return all(
        np.array_equal(a, b) for x, y in zip(one.layers, other.layers, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_it_parts_what_no_plane_parts_on_features_as_they_are() -> None:
    features, labels = photos(600)
    head, note, watch = train_mlp(features[:400], labels[:400], 2, **SETTINGS | {"epochs": 40})
    right = (head.logits(features[400:]).argmax(1) == labels[400:]).mean()
    assert right > 0.9, note
    assert len(watch) == sum(int(n * 0.1) for n in np.bincount(labels[:400]))


@pytest.mark.parametrize("hidden", [(256,), (1000, 256)])
@pytest.mark.long
def test_where_planes_part_the_classes_wide_layers_do_not_learn_photos_by_heart(hidden: tuple[int, ...]) -> None:
    """From random last weights at a rate of 0.001 the first epoch is the best, and its loss is 1.2 times a linear head's."""
    random = np.random.default_rng(0)
    content = random.normal(0, 1, (2_000, 40))  # of which features are made, as those of a network: many, of little
    shown = content @ random.normal(0, 1, (40, 1280)) / 6 + random.normal(0, 0.6, (2_000, 1280))
    labels = (content[:, :5] * 1.2 + random.gumbel(0, 1, (2_000, 5))).argmax(1)
    x, new, y, wanted = *np.split(shown.astype(np.float32), 2), *np.split(labels, 2)
    dense, _, _ = train_mlp(x, y, 5, **SETTINGS | {"hidden": hidden, "lr": None, "epochs": 40, "batch_size": 64})
    linear = solve_linear(x, y, 5, folds=np.arange(1_000) % 5).head
    assert log_loss(wanted, softmax(dense.logits(new), axis=1)) < 1.08 * log_loss(
        wanted, softmax(linear.logits(new), axis=1)
    )


def test_features_on_a_disk_give_the_same_bits(tmp_path: Path) -> None:
    features, labels = photos()
    mapped = np.memmap(tmp_path / "features", np.float16, "w+", shape=features.shape)
    mapped[:] = features
    assert same(train_mlp(features, labels, 2, **SETTINGS)[0], train_mlp(mapped, labels, 2, **SETTINGS)[0])


def test_the_epoch_of_least_loss_is_kept() -> None:
    features, labels = photos()
    told: list[dict[str, Any]] = []

    def by(training: Any) -> Any:
        training = replace(training, report=lambda facts: told.append(facts))
        return train_layers(training)

    _, note, _ = train_mlp(features, labels, 2, **SETTINGS | {"by": by, "lr": 0.05, "epochs": 30})
    losses = [facts["watch_loss"] for facts in told]
    assert f"epoch {1 + int(np.argmin(losses))} of {len(losses)} kept" in note


def test_weights_of_classes_count_where_the_epoch_is_chosen_too() -> None:
    random = np.random.default_rng(1)
    features = random.normal(0, 1, (1_000, 40)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] + random.normal(0, 0.7, 1_000) > 2.6).astype(np.int64)
    settings = SETTINGS | {"hidden": (64,), "epochs": 40, "batch_size": 64, "lr": 1e-3}
    told: dict[str | None, list[float]] = {}
    for weight in (None, "balanced"):
        losses = told.setdefault(weight, [])

        def by(training: Any, losses: list[float] = losses) -> Any:
            return train_layers(replace(training, report=lambda facts: losses.append(facts["watch_loss"])))

        train_mlp(features, labels, 2, **settings | {"class_weight": weight, "by": by})
    assert told["balanced"][0] > 1.5 * told[None][0]  # the rare class counts as much as the other
    assert len(told["balanced"]) < 40  # it ends where the rare class is learned by heart


def test_random_numbers_are_never_what_is_kept_though_nothing_can_be_learned() -> None:
    features, labels = photos()
    for seed in range(8):
        random = np.random.default_rng(seed).permutation(labels)
        _, note, _ = train_mlp(features, random, 2, **SETTINGS | {"seed": seed, "lr": 0.1, "epochs": 3})
        assert "epoch 0" not in note


def test_a_few_photos_learn_all_epochs() -> None:
    features, labels = photos(20)
    _, note, watch = train_mlp(features, labels, 2, **SETTINGS)
    assert note == "mlp: 16 hidden, Adam, 12 epochs"
    assert not len(watch)


class Machines:
    """A cluster that trains as this machine does, and says so; it may refuse."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.devices = refuses, []

    def check(self, device: str, with_torch: bool) -> None:
        assert with_torch
        if self.refuses:
            raise ClusterError(what="The node 10.0.0.7 has no torch.")

    def train(self, training: Any, start: Any, feeds: Any, begin: Any, device: str) -> Any:
        self.devices.append(device)
        assert start is None
        begin(None)
        return train_layers(replace(training, feed=feeds(device)))


@pytest.mark.parametrize(
    ("machines", "least", "devices", "notes"),
    [
        (Machines(), 0, ["auto"], []),
        (Machines(), 1e12, [], []),
        (Machines(refuses=True), 0, [], ["The head learns here: The node 10.0.0.7 has no torch."]),
        (None, 0, [], []),
    ],
)
def test_other_machines_take_the_steps_where_that_is_worth_it_and_they_can(
    machines: Any, least: float, devices: list[str], notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "WORTH_BEGINNING", least)
    monkeypatch.setattr(jobs, "LEAST_SHARED", 8)
    told: list[str] = []
    progress: Any = SimpleNamespace(note=told.append)
    job = Job(None, tmp_path, progress, machines=machines)  # type: ignore[arg-type]
    features, labels = photos()
    found = train_mlp(features, labels, 2, by=lambda training: trained_dense(job, "auto", training), **SETTINGS)
    assert same(found[0], train_mlp(features, labels, 2, **SETTINGS)[0])
    assert (machines.devices if machines else []) == devices
    assert told == notes


def test_photos_that_are_to_be_watched_are_not_learned_from() -> None:
    features, labels = photos(300)
    watch = np.zeros(300, bool)
    watch[::7] = True
    learned: list[Any] = []

    def by(training: Any) -> Any:
        learned.extend(training.learn)
        return train_layers(training)

    _, _, seen = train_mlp(features, labels, 2, **SETTINGS | {"watch": watch, "by": by, "epochs": 1})
    np.testing.assert_array_equal(seen, np.flatnonzero(watch))
    np.testing.assert_array_equal(learned, np.flatnonzero(~watch))
    few = np.arange(300) < 5
    assert len(train_mlp(features, labels, 2, **SETTINGS | {"watch": few, "epochs": 1})[2]) == 0


def test_parts_of_the_photos_are_learned_by_the_head_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = photos(300)
    asked: list[tuple[str, str]] = []

    def fit(*arguments: Any) -> Any:
        asked.append((arguments[4].head, arguments[5]))
        return fit_head(*arguments[:5])

    monkeypatch.setattr(learning_curve, "fit_head", fit)
    recipe = Recipe(head="auto", epochs=1)
    head = fit_head(features, labels, 2, np.full(300, -1), replace(recipe, head="mlp:7,5")).head
    learning_curve.grown(features, labels, features, labels, 2, recipe, head, None, Silent(), "cuda")
    assert set(asked) == {("mlp:7,5", "cuda")}
    n_weights, shares = sum(weight.size for weight, _ in head.layers), 3 * 0.1 + 3 * 0.2 + 2 * 0.4 + 0.7
    assert learning_curve.multiplied(300, head, recipe) == pytest.approx(3 * n_weights * 300 * shares)
    linear = fit_head(features, labels, 2, np.full(300, -1), Recipe(head="linear")).head
    assert learning_curve.multiplied(300, linear, recipe) == 0
