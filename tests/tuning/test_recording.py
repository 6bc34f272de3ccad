"""When a batch's gradient is recorded, asked for again, and let go of. The record is CUDA's; here it is computed each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rehead.tuning import step as steps
from rehead.tuning.course import Course
from rehead.tuning.recipe import Recipe
from rehead.tuning.step import WARM, Stepper

HERE = torch.device("cpu")
COURSE = replace(Recipe(train="all").course, batch_size=4, label_smoothing=0.1)
SIZES = [(4, 6)] * 6 + [(3, 6)] + [(4, 6)] * 2 + [(4, 8)] * 6  # photos of a batch, and their side


class Record:
    """made: the shapes of which there were records. fails: a reason why there can be none."""

    made: list[torch.Size]
    fails: str | None

    def __init__(self, gradient: Any, parameters: Any, x: torch.Tensor, labels: Any, kept: torch.Tensor | None) -> None:
        if self.fails:
            raise RuntimeError(self.fails)
        self._gradient, self._parameters, self._kept = gradient, parameters, kept
        self.made.append(x.shape)

    def __call__(self, x: torch.Tensor, labels: Any, kept: float) -> Any:
        loss = self._gradient(x, labels, 1.0 if self._kept is None else torch.tensor(kept))
        found = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return loss, found


@pytest.fixture(autouse=True)
def record(monkeypatch: pytest.MonkeyPatch) -> type[Record]:
    kind = type("Kind", (Record,), {"made": [], "fails": None})
    monkeypatch.setattr(steps, "Recorded", kind)
    monkeypatch.setattr(steps, "is_roomy", lambda: True)
    return kind


class Net(torch.nn.Module):
    def __init__(self, *, asks: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.asks = asks
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)) * (2.0 if self.asks and float(x.sum()) > 1e9 else 1.0)


def learned(course: Course, *, records: bool, asks: bool = False) -> tuple[list[torch.Tensor], list[str], Stepper]:
    model, notes = Net(asks=asks), []
    stepper = Stepper(model, [[*model.parameters()]], course, None, HERE, notes.append, dtype=torch.float32)
    stepper._records = records
    random = torch.Generator().manual_seed(1)
    for number, (n, side) in enumerate(SIZES):
        x, y = torch.randn(n, 3, side, side, generator=random), torch.randint(0, 2, (n,), generator=random)
        torch.manual_seed(number)
        stepper.backward(x, y, n / course.batch_size)
        stepper.step(0.05)
    return [p.detach() for p in model.parameters()], notes, stepper


@pytest.mark.parametrize("changed", [{}, {"mixup": 0.4}, {"cutmix": 1.0, "clip": 0.1}])
def test_weights_are_those_that_are_learned_without(changed: dict[str, Any], record: type[Record]) -> None:
    course = replace(COURSE, **changed)
    (ours, notes, stepper), (theirs, _, _) = (learned(course, records=records) for records in (True, False))
    assert record.made == [(4, 3, 6, 6), (4, 3, 8, 8)]
    assert stepper._recorded is not None
    assert not notes
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_it_is_let_go_of_where_memory_is_short(record: type[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "is_roomy", lambda: False)
    _, _, stepper = learned(COURSE, records=True)
    assert record.made == [(4, 3, 6, 6), (4, 3, 8, 8)]  # not again before the next WARM whole batches
    stepper.make_room()
    assert stepper._recorded is None


def test_what_needs_a_number_of_the_device_is_never_recorded(record: type[Record]) -> None:
    _, notes, _ = learned(COURSE, records=True, asks=True)
    assert not record.made
    assert len(notes) == 1
    assert "needs a number of the device on the way" in notes[0]


def test_what_cannot_be_recorded_is_said_once_and_learned_from(record: type[Record]) -> None:
    record.fails = "CUDA error:\n operation not permitted"
    ours, notes, _ = learned(COURSE, records=True)
    theirs, _, _ = learned(COURSE, records=False)
    assert notes == [
        "Batches are not recorded as a CUDA graph, as the network cannot be: CUDA error: operation not permitted."
    ]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_first_batches_choose_their_kernels(record: type[Record]) -> None:
    model = Net()
    stepper = Stepper(model, [[*model.parameters()]], COURSE, None, HERE, print, dtype=torch.float32)
    stepper._records = True
    for number in range(WARM + 1):
        assert len(record.made) == 0
        stepper.backward(torch.ones(4, 3, 6, 6), torch.tensor([0, 1, 0, 1]), 1.0)
        stepper.step(0.1)
        assert len(record.made) == (number == WARM)


def test_memory_that_is_missing_beside_a_record_is_taken_from_it(
    record: type[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, notes = Net(), []
    stepper = Stepper(model, [[*model.parameters()]], COURSE, None, HERE, notes.append, dtype=torch.float32)
    stepper._records = True
    for _ in range(WARM + 1):
        stepper.backward(torch.ones(4, 3, 6, 6), torch.tensor([0, 1, 0, 1]), 1.0)
        stepper.step(0.1)
    assert len(record.made) == 1
    forward = Net.forward

    def short(self: Net, x: torch.Tensor) -> torch.Tensor:
        if stepper._recorded is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x)

    monkeypatch.setattr(Net, "forward", short)
    stepper.backward(torch.ones(3, 3, 6, 6), torch.tensor([0, 1, 0]), 0.75)
    assert not notes, "the batch went whole"
    assert stepper._recorded is None
