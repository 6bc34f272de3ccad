"""Layers trained by gradient steps: what learns, what a seed decides, and going on from a checkpoint bit for bit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rehead.errors import Diverged, RecipeError, RunError, UnknownLayer
from rehead.tuning import train
from rehead.tuning.checkpoint import FILE, read_checkpoint, write_checkpoint
from rehead.tuning.course import Course, lr_at
from rehead.tuning.feed import PhotoFeed, StoredFeed
from rehead.tuning.layers import Stage, layers_that_learn, names_in
from rehead.tuning.recipe import Recipe
from rehead.tuning.state import State
from rehead.tuning.train import Training, layout_for, order_of, train_layers
from rehead.tuning.watching import is_worse, logits_of

COURSE = replace(Recipe().course, epochs=3, batch_size=8)


class Killed(Exception):
    pass


def feed(n: int = 60) -> StoredFeed:
    random = np.random.default_rng(0)
    labels = np.arange(n) % 2
    maps = random.normal(size=(n, 3, 6, 6)) + labels[:, None, None, None]
    plain = maps.astype(np.float16)
    return StoredFeed([plain, plain[:40, :, :, ::-1]], labels, seed=0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(frozen, body, nn.Flatten(), nn.Linear(8, 2))


def job(model: nn.Sequential, course: Course = COURSE, **changes: Any) -> Training:
    settings: dict[str, Any] = {
        "model": model,
        "groups": [list(model[1].parameters()), list(model[3].parameters())],
        "feed": feed(),
        "course": course,
        "learn": np.arange(36),
        "watch": np.arange(36, 40),
        "n_classes": 2,
        "device": "cpu",
        "report": lambda facts: None,
        "save": lambda state: None,
        "due": lambda: False,
        "progress": lambda n, text: None,
        "note": lambda text: None,
    }
    return Training(**{**settings, **changes})


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def changed_modules(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_frozen_layers_are_bit_identical_and_all_that_should_learn_does() -> None:
    model = network()
    before = tensors(model)
    train_layers(job(model))
    assert changed_modules(before, tensors(model)) == {"1.0", "1.1", "3"}
    assert torch.equal(before["1.1.running_mean"], tensors(model)["1.1.running_mean"])


def test_statistics_of_norms_adapt_when_asked_and_only_where_something_learns() -> None:
    model = network()
    before = tensors(model)
    train_layers(job(model, replace(COURSE, norm="adapt")))
    after = tensors(model)
    assert not torch.equal(before["1.1.running_mean"], after["1.1.running_mean"])
    assert torch.equal(before["0.1.running_mean"], after["0.1.running_mean"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_photos_are_told_apart_after_training(optimizer: str) -> None:
    model = network()
    train_layers(job(model, replace(COURSE, epochs=20, optimizer=optimizer, lr=0.02)))
    logits = logits_of(model, feed(), np.arange(40, 60), "cpu")
    assert (logits.argmax(1) == feed().labels[40:]).mean() >= 0.9


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    one, same_again, other = network(), network(), network()
    train_layers(job(one))
    train_layers(job(same_again))
    train_layers(job(other, replace(COURSE, seed=1)))
    assert same(tensors(one), tensors(same_again))
    assert not same(tensors(one), tensors(other))


@pytest.mark.parametrize(
    "setting", [{}, {"average": 0.9}, {"mixup": 0.4, "accumulate": 2}, {"norm": "adapt", "clip": 1.0}]
)
def test_going_on_from_any_checkpoint_ends_with_the_same_bits(tmp_path: Path, setting: dict[str, Any]) -> None:
    course = replace(COURSE, **setting)
    whole = network()
    train_layers(job(whole, course))
    for batches in range(2, 15, 4):  # of the 15
        learned: list[int] = []

        def told(n: int, text: str, learned: list[int] = learned, batches: int = batches) -> None:
            if len(learned) == batches:
                raise Killed
            learned.append(n)

        save = lambda state: write_checkpoint(tmp_path, state)  # noqa: E731
        with pytest.raises(Killed):
            train_layers(job(network(), course, save=save, due=lambda: True, progress=told))
        resumed, again = network(), []
        train_layers(job(resumed, course, progress=lambda n, _: again.append(n)), read_checkpoint(tmp_path))  # noqa: B023
        assert same(tensors(whole), tensors(resumed)), batches
        n_lost = sum(learned) + sum(again) - 36 * course.epochs
        assert n_lost == (8 if course.accumulate == 2 and batches == 6 else 0), "what was before the last step"
        (tmp_path / FILE).unlink()


def test_a_kill_between_the_last_step_of_an_epoch_and_its_end_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = network()
    train_layers(job(whole))

    def killed(*_: Any) -> Any:
        raise Killed

    save = lambda state: write_checkpoint(tmp_path, state)  # noqa: E731
    with monkeypatch.context() as patched:
        patched.setattr(train, "watched", killed)
        with pytest.raises(Killed):
            train_layers(job(network(), save=save, due=lambda: True))
    resumed = network()
    train_layers(job(resumed), read_checkpoint(tmp_path))
    assert same(tensors(whole), tensors(resumed))


def test_a_training_that_lost_its_patience_is_not_gone_on_with(tmp_path: Path) -> None:
    """Where it is killed before its bundle is written."""
    course = replace(COURSE, epochs=50, lr=1.0, patience=2)
    ended, resumed = network(), network()
    before = train_layers(job(ended, course, save=lambda state: write_checkpoint(tmp_path, state)))
    assert before.epoch < course.epochs
    after = train_layers(job(resumed, course), read_checkpoint(tmp_path))
    assert after.epoch == before.epoch
    assert same(tensors(ended), tensors(resumed))


def test_a_training_that_was_told_to_end_goes_on_when_it_is_taken_up(tmp_path: Path) -> None:
    """Ctrl-C twice: the first ends the training, the second what would have come after it."""
    save = lambda state: write_checkpoint(tmp_path, state)  # noqa: E731
    ended = train_layers(job(network(), save=save, stop=lambda: True))
    assert ended.epoch == 1 < COURSE.epochs
    assert train_layers(job(network()), read_checkpoint(tmp_path)).epoch == COURSE.epochs


def test_the_weights_are_those_of_the_epoch_that_is_said_to_be_kept() -> None:
    model, watch = network(), np.arange(28, 40)
    told: list[dict[str, Any]] = []
    state = train_layers(
        job(model, replace(COURSE, epochs=8, lr=1.0, schedule="constant"), watch=watch, report=told.append)
    )
    losses = [facts["watch_loss"] for facts in told]
    logits = torch.from_numpy(logits_of(model, feed(), watch, "cpu", dtype=job(model).dtype))
    kept = float(nn.functional.cross_entropy(logits, torch.from_numpy(feed().labels[watch])))
    assert kept == pytest.approx(losses[state.best_epoch - 1])
    assert kept < max(losses)


def test_epochs_that_cannot_be_told_apart_count_as_equal() -> None:

    best = torch.rand(400, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(400, generator=torch.Generator().manual_seed(1))
    noise -= noise.mean()
    assert not is_worse(best + noise + 0.02, best)
    assert is_worse(best + noise + 0.1, best)
    assert not is_worse(best - 0.1, best)
    assert not is_worse(torch.empty(0), torch.empty(0))
    assert not is_worse(best, None)


def told_losses(monkeypatch: pytest.MonkeyPatch, means: Sequence[float]) -> None:
    """Losses of 200 watched photos with about these means, one an epoch; a difference of two has a standard error of 0.025."""
    random = torch.Generator().manual_seed(0)
    steady = torch.rand(200, generator=random)
    noises = [0.25 * torch.randn(200, generator=random) for _ in means]
    epochs = iter([steady + mean + noise - noise.mean() for mean, noise in zip(means, noises, strict=True)])
    monkeypatch.setattr("rehead.tuning.train.judged", lambda training: (torch.zeros(200), torch.zeros(200)))

    def told(*_: object) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        losses = next(epochs)
        return {"watch_loss": float(losses.mean())}, torch.zeros(200), losses

    monkeypatch.setattr("rehead.tuning.train.watched", told)


@pytest.mark.parametrize(
    ("means", "changes", "kept"),
    [
        ((0.2, 0.1, 0.3, 0.14), {}, 4),  # the last, 1.6 standard errors above the least
        ((0.2, 0.1, 0.12, 0.2), {}, 2),  # clearly worse at the end; epochs in between are kept only as the least
        ((0.2, 0.1, 0.14), {"epochs": 4, "patience": 1}, 2),  # it ended before the rate had fallen
        ((0.2, 0.1, 0.11, 0.11), {"tolerance": 0.0}, 2),
    ],
)
def test_the_last_epoch_is_kept_unless_another_is_clearly_better(
    means: Sequence[float], changes: dict[str, Any], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_losses(monkeypatch, means)
    state = train_layers(job(network(), replace(COURSE, **{"epochs": len(means), **changes})))
    assert (state.epoch, state.best_epoch, state.least_epoch) == (len(means), kept, 2)


def test_a_slowly_rising_loss_ends_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    told_losses(monkeypatch, [0.01 * n for n in range(30)])
    patient = train_layers(job(network(), replace(COURSE, epochs=30, patience=4)))
    assert (patient.epoch, patient.best_epoch, patient.least_epoch) == (5, 1, 1)


def test_no_photos_are_no_reason_to_try_smaller_batches() -> None:
    with pytest.raises(ValueError, match="at least one"):
        logits_of(network(), feed(), np.arange(0), "cpu")


def test_training_ends_early_without_a_gain_and_when_it_is_stopped() -> None:
    patient = train_layers(job(network(), replace(COURSE, epochs=50, lr=1.0, patience=2)))
    assert patient.epoch == patient.least_epoch + 2
    stopped = train_layers(job(network(), stop=lambda: True))
    assert stopped.epoch == 1
    n_batches = math.ceil(len(job(network()).learn) / COURSE.batch_size)
    assert stopped.history[0]["part"] == round(1 / n_batches, 3)
    assert not any("part" in facts for facts in patient.history)


def test_where_every_epoch_makes_it_worse_what_was_there_before_is_kept() -> None:
    model = network()
    train_layers(job(model, replace(COURSE, epochs=40, lr=0.03)))
    before, wrong = tensors(model), feed()
    wrong.labels[:36] = 1 - wrong.labels[:36]
    state = train_layers(job(model, replace(COURSE, epochs=4, lr=0.1), feed=wrong, watch=np.arange(40, 60)))
    assert (state.epoch, state.best_epoch) == (4, 0)
    assert same(before, tensors(model))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    broken = feed()
    broken._views[0][:] = np.nan
    with pytest.raises(Diverged, match="The loss is nan in epoch 1, batch 1"):
        train_layers(job(network(), feed=broken, save=lambda state: write_checkpoint(tmp_path, state)))
    kept = read_checkpoint(tmp_path)
    assert kept is not None
    assert (kept.epoch, kept.step) == (0, 0)
    resumed, whole = network(), network()
    train_layers(job(resumed), kept)
    train_layers(job(whole))
    assert same(tensors(resumed), tensors(whole))


@pytest.mark.parametrize("watch", [np.arange(36, 40), np.arange(0)])
def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, watch: np.ndarray[Any, Any]) -> None:
    """The last loss of an epoch was fine, and the step that it led to was not."""

    class Breaking(StoredFeed):
        def batches(self, order: Any, epoch: int, size: int, first: int) -> Any:
            for number, (x, y) in enumerate(super().batches(order, epoch, size, first), first):
                last = epoch == 1 and number == 4
                if last:
                    model[3].bias.register_hook(lambda gradient: gradient * np.nan)
                yield x, y

    model, plain = network(), feed()
    breaking = Breaking(plain._views, plain.labels, seed=0)
    with pytest.raises(Diverged, match="after epoch 2") as error:
        train_layers(job(model, feed=breaking, watch=watch, save=lambda state: write_checkpoint(tmp_path, state)))
    assert "The learning rate there was" in error.value.why
    kept = read_checkpoint(tmp_path)
    assert kept is not None
    assert kept.epoch == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept.tensors.values() if tensor.is_floating_point())


def interrupted(folder: Path, course: Course, **changes: Any) -> State:
    """A checkpoint of the middle of the second epoch."""
    counter = itertools.count(1)

    def told(n: int, text: str) -> None:
        if next(counter) > 8:
            raise Killed

    save = lambda state: write_checkpoint(folder, state)  # noqa: E731
    with pytest.raises(Killed):
        train_layers(job(network(), course, save=save, due=lambda: True, progress=told, **changes))
    state = read_checkpoint(folder)
    assert state is not None
    return state


@pytest.mark.parametrize(
    "setting",
    [{"lr": 1e-4}, {"optimizer": "sgd"}, {"average": 0.9}, {"batch_size": 32}, {"epochs": 1}, {"epochs": 5}],
)
def test_a_checkpoint_can_be_gone_on_from_with_another_course(tmp_path: Path, setting: dict[str, Any]) -> None:
    course = replace(COURSE, **setting)
    state = train_layers(job(network(), course), interrupted(tmp_path, COURSE))
    assert state.epoch == max(1, course.epochs)
    back = train_layers(job(network(), COURSE), interrupted(tmp_path, replace(COURSE, optimizer="sgd", average=0.9)))
    assert back.epoch == COURSE.epochs


def test_a_checkpoint_can_be_gone_on_from_with_other_photos(tmp_path: Path) -> None:
    watch = np.arange(28, 40)
    state = interrupted(tmp_path, COURSE, learn=np.arange(28), watch=watch)
    assert train_layers(job(network(), learn=np.arange(20), watch=np.arange(20, 25)), state).best_epoch == COURSE.epochs


def test_a_checkpoint_of_another_head_is_refused(tmp_path: Path) -> None:
    state, model = interrupted(tmp_path, COURSE), network()
    model[3] = nn.Linear(8, 3)
    with pytest.raises(RunError) as error:
        train_layers(job(model, n_classes=3), state)
    assert error.value.what == "The checkpoint is of another model."
    assert error.value.why == "3.bias is (2,) in it and (3,) here."


def test_a_checkpoint_of_other_layers_is_refused() -> None:
    with pytest.raises(RunError, match="other layers learned"):
        train_layers(job(network()), State(learning=["3.weight"]))


def test_a_damaged_or_newer_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, State())
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match="is damaged"):
        read_checkpoint(tmp_path)
    (tmp_path / FILE).write_bytes(data.replace(b'"format":"1"', b'"format":"9"'))
    with pytest.raises(RunError, match="has format 9"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_learning_rates_rise_once_and_then_fall(schedule: str) -> None:
    course = replace(COURSE, schedule=schedule, lr=0.5)
    rates = [lr_at(course, step, 100) for step in range(100)]
    top = int(np.argmax(rates))
    assert max(rates) == pytest.approx(0.5)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if schedule != "constant":
        assert rates[-1] <= 1e-4


def test_layers_further_from_the_head_learn_more_slowly_and_norms_do_not_decay() -> None:
    from rehead.tuning.step import optimizer_of

    model = network()
    groups = optimizer_of(job(model).groups, replace(COURSE, layer_decay=0.5, weight_decay=0.1)).param_groups
    by_id = {id(p): group for group in groups for p in group["params"]}
    assert by_id[id(model[3].weight)]["scale"] == 1.0
    assert by_id[id(model[1][0].weight)]["scale"] == 0.5
    assert by_id[id(model[1][1].weight)]["weight_decay"] == 0.0
    assert by_id[id(model[1][0].weight)]["weight_decay"] == 0.1


def test_balanced_sampling_shows_each_class_as_often() -> None:
    from rehead.tuning.train import order_of

    learn = np.array([i for i in range(36) if i % 2 == 0 or i < 6])
    order = order_of(job(network(), replace(COURSE, sampling="balanced"), learn=learn), 0)
    assert 0.25 < feed().labels[order].mean() < 0.75
    assert feed().labels[learn].mean() < 0.2


def test_batches_are_the_same_from_wherever_they_are_asked_for() -> None:
    def pixels(requests: Any) -> Any:
        return [np.full((2, 2, 3), (place + sum(drawn or ())) % 256, np.uint8) for place, drawn in requests]

    photos = PhotoFeed(pixels, np.arange(40) % 2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), seed=0)
    order = np.random.default_rng(0).permutation(40)
    for fed in (feed(), photos):
        whole = list(fed.batches(order, 1, 8, 0))
        later = list(fed.batches(order, 1, 8, 3))
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[3:], later, strict=True))
        assert len(whole) == 5


STAGES = [Stage(name, 10 * (name != "pool"), macs, (8, 7, 7)) for name, macs in
          [("stem", 10), ("layer1", 30), ("layer2", 30), ("layer3", 20), ("layer4", 10), ("pool", 0), ("head", 1)]]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("head", ()),
        ("last:1", ("layer4",)),
        ("last:2", ("layer3", "layer4")),
        ("last:30%", ("layer3", "layer4")),
        ("last:1%", ("layer4",)),
        ("layer4,head", ("layer4",)),
        ("layer2-layer4", ("layer2", "layer3", "layer4")),
        ("layer2-4,head", ("layer2", "layer3", "layer4")),
        ("all", ("stem", "layer1", "layer2", "layer3", "layer4")),
    ],
)
def test_what_learns_is_read_as_a_person_means_it(spec: str, wanted: tuple[str, ...]) -> None:
    assert layers_that_learn(spec, STAGES) == wanted


def test_a_layer_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownLayer) as error:
        layers_that_learn("layr4,head", STAGES)
    assert "'layr4'" in error.value.what
    assert "layer4" in error.value.fix
    with pytest.raises(RecipeError, match="out of range"):
        layers_that_learn("last:9", STAGES)
    with pytest.raises(RecipeError, match="names no layer"):
        layers_that_learn(",", STAGES)


def test_layers_without_parameters_leave_nothing_to_train() -> None:
    with pytest.raises(RecipeError, match="Nothing is left to train: pool has no parameters"):
        layers_that_learn("pool", STAGES)
    assert layers_that_learn("pool,head", STAGES) == ()


def test_norms_adapted_to_inputs_have_their_mean_and_stay_out_of_training() -> None:
    from rehead.tuning.modes import adapt_norms

    model = network()
    x = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    adapt_norms(model, [model[0][:2]], x.split(16))
    with torch.no_grad():
        below = model[0][0](x)
    torch.testing.assert_close(model[0][1].running_mean, below.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    assert not any(module.training for module in model.modules())
    assert model[0][1].momentum == 0.1


def test_a_soft_head_is_right_but_not_sure() -> None:
    from rehead.tuning.head import soft_head
    from rehead.tuning.solve import solve_linear

    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = (random.normal(size=(300, 40)) + 2 * np.eye(3)[labels] @ random.normal(size=(3, 40))).astype(np.float32)
    folds = np.arange(300) % 5
    soft, _ = soft_head(features, labels, 3, folds, None)
    sure = solve_linear(features, labels, 3, folds=folds).head
    assert (soft.logits(features).argmax(1) == labels).mean() > 0.95
    assert np.abs(soft.logits(features)).mean() < np.abs(sure.logits(features)).mean()


def test_what_was_to_learn_but_does_not_reach_the_loss_is_named() -> None:
    class Idle(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    for has_bias, said in (
        (True, "2 parameters that were to learn do not reach the loss: 2.0.0.bias, 2.0.0.weight"),
        (False, "1 parameter that was to learn does not reach the loss: 2.0.0.weight"),
    ):
        model = network()
        model[2] = nn.Sequential(Idle(nn.Linear(2, 2, bias=has_bias)), nn.Flatten())
        told: list[str] = []
        groups = [list(model[2].parameters()), list(model[3].parameters())]
        train_layers(job(model, replace(COURSE, epochs=1), groups=groups, note=told.append))
        assert told == [said]


def test_as_many_epochs_as_views_show_each_view_once() -> None:
    views = [np.full((10, 1), view, np.float16) for view in range(4)]
    stored, order = StoredFeed(views, np.zeros(10, np.int64), seed=0), np.arange(10)
    shown = np.array(
        [torch.cat([x for x, _ in stored.batches(order, epoch, 3, 0)])[:, 0].numpy() for epoch in range(8)]
    )
    for eras in (shown[:4], shown[4:]):
        assert (np.sort(eras, axis=0) == np.arange(4)[:, None]).all()
    assert len(np.unique(shown[0])) > 1, "not all photos begin with the same"


VGG = [
    Stage("stem", 10, 10, (8, 8, 8)),
    Stage("last", 10, 10, (8, 4, 4)),
    Stage("pool", 100, 100, (8,)),
    Stage("head", 5, 5, (2,)),
]
ALL, LAST = ("stem", "last", "pool"), ("last", "pool")


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("all", ALL),
        ("all,head", ALL),
        ("last:1", LAST),
        ("last:1,head", LAST),
        ("stem", ("stem",)),
        ("pool", ("pool",)),
        ("head", ()),
    ],
)
def test_weights_between_the_last_layer_and_the_head_learn_where_that_does(spec: str, wanted: tuple[str, ...]) -> None:
    assert layers_that_learn(spec, VGG) == wanted


@pytest.mark.parametrize(
    "spec", ["last:150%", "last:0%", "last:0", "last:-1", "last:40.5%", "lora", "lora:0", "Last:2", "", ","]
)
def test_what_names_no_layers_of_any_network_is_refused_before_one_is_loaded(spec: str) -> None:
    with pytest.raises(RecipeError):
        Recipe(train=spec)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("layer4.1-2,head", {"layer4.1-2", "layer4.1", "layer4.2"}),
        ("lora:8@blocks.3.attn", {"blocks.3.attn"}),
        ("last:40%", set()),
        ("all", set()),
    ],
)
def test_names_that_may_be_of_parts_are_found_in_what_was_typed(spec: str, names: set[str]) -> None:
    assert names_in(spec) == names


def test_a_range_that_runs_backwards_and_a_part_of_a_layer_are_named() -> None:
    with pytest.raises(RecipeError, match="last-stem runs backwards"):
        layers_that_learn("last-stem", VGG)
    with pytest.raises(UnknownLayer, match="cannot be trained apart from the rest of last"):
        layers_that_learn("last.3", VGG)


def test_norms_that_adapt_see_no_batch_of_one_photo() -> None:
    """Behind the last pooling such a norm has one value a channel, and no variance: PyTorch refuses it."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))
    model = nn.Sequential(nn.Identity(), body, nn.Flatten(), nn.Linear(8, 2))
    course = replace(COURSE, epochs=2, norm="adapt", batch_size=8)
    adapting = job(model, course, learn=np.arange(33))
    assert [len(order_of(one, 0)) for one in (adapting, replace(adapting, course=replace(course, norm="frozen")))] == [
        32,
        33,
    ]
    assert len({*order_of(adapting, 0).tolist(), *order_of(adapting, 1).tolist()}) == 33
    assert train_layers(adapting).epoch == 2


def test_a_gradient_that_no_step_took_is_gone_when_training_ends() -> None:
    model, asked = network(), iter([False, True])
    state = train_layers(job(model, replace(COURSE, accumulate=4, batch_size=4), stop=lambda: next(asked, True)))
    assert state.has_ended
    assert all(p.grad is None for p in model.parameters())


def test_a_network_with_weights_of_five_dimensions_is_not_laid_out_by_pixel() -> None:
    device, volumes = torch.device("cpu"), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(1, 2, 3))
    assert layout_for(device, volumes[0]) is torch.channels_last
    volumes.to(device, memory_format=layout_for(device, volumes))
    with pytest.raises(RuntimeError, match="rank 4"):
        volumes.to(device, memory_format=torch.channels_last)
