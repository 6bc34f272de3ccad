"""What a network asks a device for a number with is seen, and nothing else is taken for it. Recording itself: test_gpu.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch

from rehead.features.cuda_graphs import Numbers

X = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    "work",
    [
        lambda: float(X.sum()),
        lambda: 1 if X.sum() > 3 else 2,
        lambda: X[X > 3],
        lambda: X.nonzero(),
        lambda: X.unique(),
        lambda: X.masked_select(X > 3),
        lambda: X.clone().__setitem__(X > 3, torch.arange(8.0)),
        lambda: torch.equal(X, X + 1),
        lambda: X.to("meta"),
        lambda: torch.empty(3, 4, device="meta").copy_(X),
        lambda: X[0].repeat_interleave(torch.tensor([1, 2, 3, 4])),
    ],
)
def test_what_needs_a_number_is_found(work: Callable[[], object]) -> None:
    with Numbers() as numbers:
        work()
    assert numbers.found


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit_tiny_patch16_224",
        "convnext_atto",
        "swin_tiny_patch4_window7_224",
        "regnety_002",
        "mixer_s32_224",
    ],
)
def test_a_step_of_a_usual_network_needs_none(name: str) -> None:
    network = timm.create_model(name, num_classes=2, drop_rate=0.1).train()
    with Numbers() as numbers:
        out = network(torch.zeros(2, 3, 224, 224))
        torch.nn.functional.cross_entropy(out, torch.tensor([0, 1]), label_smoothing=0.1).backward()
    assert numbers.found is None


def test_a_copy_that_stays_needs_none() -> None:
    with Numbers() as numbers:
        X.to(torch.float16)
        X.clone().copy_(X + 1)
    assert numbers.found is None


def test_a_network_without_gradients_needs_none_either() -> None:
    network = timm.create_model("resnet18").eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), Numbers() as numbers:
        network(torch.zeros(2, 3, 64, 64))
    assert numbers.found is None
