"""One step: against plain loops, in parts when memory is short, and adding up what is accumulated."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rehead.tuning.convex import standard
from rehead.tuning.course import lr_at
from rehead.tuning.feed import PhotoFeed, StoredFeed
from rehead.tuning.mlp import FeatureFeed
from rehead.tuning.recipe import Recipe
from rehead.tuning.state import Average
from rehead.tuning.step import Stepper, precision
from rehead.tuning.train import Training, train_layers

COURSE = replace(Recipe().course, epochs=2, batch_size=8, label_smoothing=0.1, lr=0.05)
DEVICE = torch.device("cpu")


def network(most: int = 1000) -> nn.Sequential:
    """most: inputs that fit into the memory of a device that is made up."""
    torch.manual_seed(0)

    class Narrow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > most:
                raise torch.OutOfMemoryError("out of memory")
            return x

    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), Narrow(), nn.Linear(7, 3))


def batch(n: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), torch.randint(3, (n,), generator=generator)


def stepper(
    model: nn.Sequential, notes: list[str] | None = None, weights: Any = None, most: int | None = None, **changes: Any
) -> Stepper:
    groups = [list(model[0].parameters()), list(model[3].parameters())]
    note = (lambda text: None) if notes is None else notes.append
    return Stepper(model, groups, replace(COURSE, **changes), weights, DEVICE, note, most=most, dtype=torch.float32)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def close(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4}, {"weights": torch.tensor([0.5, 1.0, 3.0])}])
def test_a_batch_that_does_not_fit_goes_in_parts_with_the_same_gradient(changes: dict[str, Any]) -> None:
    notes: list[str] = []
    found = []
    for most in (1000, 3):
        model = network(most)
        torch.manual_seed(5)
        step = stepper(model, notes, **changes)
        losses = [float(step.backward(*batch(), 1.0)), float(step.backward(*batch(3, seed=1), 1.0))]
        found.append((losses, gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert close(found[0][1], found[1][1])
    assert [note.split(" in ")[1] for note in notes] == ["2 parts from now on.", "4 parts from now on."]


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4}, {"weights": torch.tensor([0.5, 1.0, 3.0])}])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(changes: dict[str, Any]) -> None:
    found = []
    for most in (None, 3):
        model = network()
        torch.manual_seed(5)
        step = stepper(model, most=most, **changes)
        seen: list[int] = []
        handle = model.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        losses = [float(step.backward(*batch(), 1.0)), float(step.backward(*batch(2, seed=1), 1.0))]
        handle.remove()
        found.append((losses, gradients(model), seen))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert close(found[0][1], found[1][1])
    assert [found[0][2], found[1][2]] == [[8, 2], [3, 3, 2, 2]]


def test_what_was_accumulated_before_a_batch_did_not_fit_is_kept() -> None:
    roomy, narrow = network(), network(most=4)
    for model in (roomy, narrow):
        step = stepper(model)
        step.backward(*batch(4, seed=1), 0.5)
        step.backward(*batch(8), 0.5)
    assert close(gradients(roomy), gradients(narrow))


def test_a_photo_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        stepper(network(most=0)).backward(*batch(), 1.0)


def plain_loop(model: nn.Module, feed: StoredFeed, learn: np.ndarray, course: Any, size: int) -> None:
    """What `train_layers` promises, written plainly: no mixing, one group, every batch a step."""
    from rehead.data.split import seed_for

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    n_steps = -(-len(learn) // size)
    for epoch in range(course.epochs):
        order = np.random.default_rng(seed_for(course.seed, "shuffle", epoch)).permutation(learn)
        for number, (x, y) in enumerate(feed.batches(order, epoch, size, 0)):
            optimizer.param_groups[0]["lr"] = lr_at(course, epoch * n_steps + number, n_steps * course.epochs)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y, label_smoothing=course.label_smoothing)
            loss.backward()
            if course.clip:
                nn.utils.clip_grad_norm_(model.parameters(), course.clip)
            optimizer.step()


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_accumulated_and_clipped_steps_are_those_of_a_plain_loop(
    clip: float | None, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehead.tuning.step.has_bfloat16", lambda: False)  # as the plain loop
    random = np.random.default_rng(0)
    feed = StoredFeed([random.normal(size=(32, 5)).astype(np.float16)], np.arange(32) % 3, seed=0)
    course = replace(
        COURSE, optimizer="sgd", weight_decay=0.0, clip=clip, accumulate=accumulate, batch_size=16 // accumulate
    )
    ours, plain = network(), network()
    train_layers(
        Training(model=ours, groups=[list(ours[0].parameters()), list(ours[3].parameters())], feed=feed, course=course,
            learn=np.arange(32), watch=np.arange(0), n_classes=3, device="cpu", report=lambda facts: None,
            save=lambda state: None, due=lambda: False, progress=lambda n, text: None, note=lambda text: None)
    )  # fmt: skip
    plain_loop(plain, feed, np.arange(32), course, 16)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    from rehead.tuning.train import class_weights

    labels = np.array([0] * 20 + [1] * 5 + [2] * 7)
    feed = StoredFeed([np.zeros((32, 5), np.float16)], labels, seed=0)
    job: Any = type("Like", (), {"course": replace(COURSE, class_weight="balanced"), "feed": feed,
                                 "learn": np.arange(32), "n_classes": 3, "task": "classification"})  # fmt: skip
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(job, DEVICE), expected, rtol=1e-6)


def test_weighted_losses_add_up_to_the_mean_of_single_photos() -> None:
    model, weights = network(), torch.tensor([0.5, 1.0, 3.0])
    x, y = batch()
    loss = stepper(model, weights=weights, label_smoothing=0.0).backward(x, y, 1.0)
    single = nn.functional.cross_entropy(model(x), y, reduction="none") * weights[y]
    assert loss == pytest.approx(float(single.mean().detach()), rel=1e-5)


def test_the_moving_average_is_the_sum_by_hand_and_is_put_back() -> None:
    model = nn.Linear(2, 1)
    average = Average(model, {"weight", "bias"}, 0.5)
    by_hand = copy.deepcopy(model.weight.detach())
    for n in range(1, 21):
        with torch.no_grad():
            model.weight += 1.0
        average.update()
        keep = min(0.5, n / (n + 9))
        by_hand = keep * by_hand + (1 - keep) * model.weight.detach()
    live = model.weight.detach().clone()
    with average.used():
        torch.testing.assert_close(model.weight.detach(), by_hand)
    assert torch.equal(model.weight.detach(), live)


def test_layers_move_at_their_share_of_the_rate() -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    step = stepper(model, optimizer="adam", layer_decay=0.25, weight_decay=0.0)
    step.backward(*batch(), 1.0)
    step.step(0.01)
    moved = [float((p.detach() - b).abs().max()) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.0025, 0.0025, 0.01, 0.01], rel=1e-3)  # Adam's first step is the rate itself


def test_a_model_that_cannot_be_compiled_runs_as_it_is_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_model: nn.Module) -> Any:
        def run(x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no compiler here")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    notes: list[str] = []
    model, plain = network(), network()
    compiled = stepper(model, notes, compile=True)
    losses = [compiled.backward(*batch(), 1.0) for _ in range(2)]
    assert losses == [stepper(plain).backward(*batch(), 1.0)] * 2
    assert notes == ["The model cannot be compiled and runs as it is: ValueError: no compiler here"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_steps_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "")  # the compiler sets it and leaves it behind
    notes: list[str] = []
    model, plain = network(), network()
    compiled, usual = stepper(model, notes, compile=True), stepper(plain)
    for step in (compiled, usual):
        step.backward(*batch(), 1.0)
    assert notes == []
    assert close(gradients(model), gradients(plain))


@pytest.mark.parametrize(("is_native", "n"), [(True, 1), (False, 1), (True, 2), (False, 2)])
def test_a_card_that_only_emulates_bfloat16_learns_alone_in_float16_with_a_loss_scale(
    is_native: bool, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return is_native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    card, model = torch.device("cuda"), network()
    dtype = precision(card, n)
    step = Stepper(model, [list(model.parameters())], COURSE, None, card, lambda text: None, dtype=dtype)
    is_alike = is_native or n > 1  # gradients of a card beside it may be added, which has no scale
    assert dtype == (torch.bfloat16 if is_alike else torch.float16)
    assert ("scale.scale" in step.tensors()) != is_alike


@pytest.mark.parametrize("is_native", [True, False])
def test_layers_learn_in_bfloat16_on_a_cpu_that_has_it_and_dense_ones_alone_in_float32(
    is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rehead.tuning.step.has_bfloat16", lambda: is_native)
    rows = np.zeros((4, 5), np.float32)
    photos = PhotoFeed(lambda requests: [], np.zeros(4, np.int64), (0.5,) * 3, (0.5,) * 3, 0, 1, None)
    stored = StoredFeed([rows.astype(np.float16)], np.zeros(4, np.int64), seed=0)
    dense = FeatureFeed(rows, np.zeros(4, np.int64), standard(rows))
    learns = {"model": network(), "groups": [], "learn": np.arange(4), "watch": np.arange(0), "n_classes": 2,
              "report": print, "save": print, "due": bool, "progress": print, "note": print}  # fmt: skip
    for feed, compile_, expected in [
        (photos, False, is_native), (stored, False, is_native), (dense, False, False), (stored, True, False)
    ]:  # fmt: skip
        training = Training(**learns, feed=feed, course=replace(COURSE, compile=compile_), device="cpu")  # type: ignore[arg-type]
        assert training.dtype == (torch.bfloat16 if expected else torch.float32)
    assert precision(torch.device("mps"), is_of_layers=True) == torch.float32
