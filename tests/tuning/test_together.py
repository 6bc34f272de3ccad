"""Processes that train one model, here as threads: the weights are those that one process learns, whatever their number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rehead.tuning.feed import StoredFeed
from rehead.tuning.recipe import Recipe
from rehead.tuning.together import Alone, Group, Shared, Together, share
from rehead.tuning.train import Training, train_layers

COURSE = replace(Recipe().course, epochs=3, batch_size=8)
N = 44  # photos: batches of 8, and one of 2, which is fewer than three processes


@dataclass(frozen=True)
class Room:
    """What threads have in common."""

    barrier: threading.Barrier
    told: dict[int, Any]


@dataclass(frozen=True)
class Thread:
    rank: int
    n: int
    room: Room

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        everyone = self._exchanged([tensor.clone() for tensor in tensors])
        for tensor, *others in zip(tensors, *everyone, strict=True):
            tensor.copy_(sum(others))

    def gathered(self, rows: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate(self._exchanged(rows))

    def same(self, tensors: Sequence[torch.Tensor]) -> None:
        for tensor, first in zip(tensors, self._exchanged([tensor.clone() for tensor in tensors])[0], strict=True):
            tensor.copy_(first)

    def first_says(self, what: bool) -> bool:
        return bool(self._exchanged(what)[0])

    def _exchanged(self, what: Any) -> list[Any]:
        self.room.told[self.rank] = what
        self.room.barrier.wait(20)
        found = [self.room.told[rank] for rank in range(self.n)]
        self.room.barrier.wait(20)
        return found


def trained(
    together: Together, course: Any = COURSE, mistaken: bool = False, **changes: Any
) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """mistaken: whether the photos that are watched have each the other's label."""
    random = np.random.default_rng(0)
    labels = np.arange(N + 10) % 2
    maps = (random.normal(size=(N + 10, 3, 6, 6)) + labels[:, None, None, None]).astype(np.float16)
    if mistaken:
        labels[N:] = 1 - labels[N:]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    for i, parameter in enumerate(model.parameters()):
        parameter.data = torch.from_numpy(np.random.default_rng(i).normal(0, 0.3, parameter.shape)).float()
    settings: dict[str, Any] = {
        "model": model, "groups": [list(model[0].parameters()), list(model[4].parameters())],
        "feed": StoredFeed([maps], labels, seed=0), "course": course, "learn": np.arange(N), "watch": np.arange(N, N + 10),
        "n_classes": 2, "device": "cpu", "report": lambda facts: None, "save": lambda state: None, "due": lambda: False,
        "progress": lambda n, text: None, "note": lambda text: None, "together": together,
    }  # fmt: skip
    state = train_layers(Training(**{**settings, **changes}))
    return dict(model.state_dict()), state.history


def by_threads(
    n: int, course: Any = COURSE, of: Callable[[int], dict[str, Any]] = lambda rank: {}, **changes: Any
) -> list[tuple[dict[str, torch.Tensor], list[Any]]]:
    """of: by the rank of a process what it alone has."""
    room = Room(threading.Barrier(n), {})
    with ThreadPoolExecutor(n) as pool:
        running = [pool.submit(trained, Thread(rank, n, room), course, **changes, **of(rank)) for rank in range(n)]
        return [one.result() for one in running]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_and_history_are_those_of_one_process(n: int, accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehead.tuning.step.has_bfloat16", lambda: False)  # whose sums depend more on their order
    course = replace(COURSE, accumulate=accumulate)
    wanted, history = trained(Alone(), course)
    for weights, told in by_threads(n, course):
        for name in wanted:
            torch.testing.assert_close(weights[name], wanted[name], atol=1e-5, rtol=0)
        for facts, other in zip(told, history, strict=True):
            assert facts["watch_right"] == other["watch_right"]
            assert facts["watch_n"] == 10
            assert facts["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_what_one_says_of_stopping_and_saving_holds_for_all() -> None:
    asked = iter(range(100))
    saved: list[int] = []
    told = by_threads(
        2,
        stop=lambda: threading.current_thread().name.endswith("_0") and next(asked) >= 2,
        due=lambda: threading.current_thread().name.endswith("_1"),
        save=lambda state: saved.append(state.step),
    )
    assert [len(history) for _, history in told] == [1, 1]
    assert sorted(saved) == [0, 0, 0, 0, 1, 1, 2, 2]  # the beginning, two steps, and the end of the epoch, by each


def test_the_first_decides_when_patience_is_at_its_end() -> None:
    """The other takes each photo that is watched for one of the other class: what is better is worse for it."""
    course = replace(COURSE, epochs=12, patience=2, lr=0.05)
    n_alone = [len(trained(Alone(), course, mistaken)[1]) for mistaken in (False, True)]
    assert n_alone[1] < n_alone[0]
    told = by_threads(2, course, lambda rank: {"mistaken": rank == 1})
    assert [len(history) for _, history in told] == [n_alone[0]] * 2


def test_shares_of_a_batch_are_the_batch() -> None:
    order = np.random.default_rng(0).permutation(20)
    feed = StoredFeed([np.zeros((20, 1), np.float16)], np.arange(20), seed=0)
    everyone = [Shared(feed, Group(rank, 3)) for rank in range(3)]
    batches = [list(one.batches(order, 0, 8, 1)) for one in everyone]
    for number, whole in enumerate((order[8:16], order[16:])):
        counted = [mine[number][1][: one.n_of(len(whole))] for one, mine in zip(everyone, batches, strict=True)]
        np.testing.assert_array_equal(np.concatenate(counted), whole)
    few = [Shared(feed, Group(rank, 3)) for rank in range(3)]
    assert [one.n_of(2) for one in few] == [1, 1, 0]
    assert [len(next(one.batches(order[:2], 0, 8, 0))[1]) for one in few] == [1, 1, 1]
    assert [len(share(np.arange(7), Group(rank, 3))) for rank in range(3)] == [3, 2, 2]
