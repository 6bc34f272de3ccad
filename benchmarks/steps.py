"""What makes steps of a whole network fast on a CPU: photos/s of `--train all` without decoding, in four ways in turn.

float32         as glibc manages memory: large blocks go back to the system at once, which clears their pages for the next batch
kept            the same, what is freed stays with the process
PyTorch's bf16  in bfloat16 besides, where the CPU multiplies in that: autocast alone
ours            the same, two gradients of depthwise convolutions in float32

The default backbone with frozen norms inside its convolutions, batches of 32 that go 8 at a time, random pixels and weights;
five rounds, medians. `--network NAME` takes another one.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
from measured import report

import rehead
from rehead.nets.cut import Pooled
from rehead.nets.heads import mlp_module
from rehead.tuning import step, train
from rehead.tuning.feed import PhotoFeed
from rehead.tuning.recipe import Recipe

WAYS = {  # what is put in place of what rehead does
    "float32": {"kept": lambda _: nullcontext(), "has_bfloat16": lambda: False},
    "kept": {"has_bfloat16": lambda: False},
    "PyTorch's bf16": {"DepthwiseGradients": nullcontext},
    "ours": {},
}
PLACES = {"kept": train, "has_bfloat16": step, "DepthwiseGradients": step}


def photos_per_s(name: str, n: int, replaced: dict[str, Any]) -> float:
    backbone = rehead.backbone(name, pretrained=False)
    preprocess = backbone.preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (n, preprocess.height, preprocess.width, 3), np.uint8)
    feed = PhotoFeed(lambda asked: [pixels[i] for i, _ in asked], np.arange(n) % 2, preprocess.mean, preprocess.std, 0)
    model = torch.nn.Sequential()
    model.add_module("body", Pooled(backbone.network))
    model.add_module("head", mlp_module(backbone.card.shape[0], (), 2, "none", seed=0))
    told: list[dict[str, Any]] = []
    training = train.Training(
        model=model, groups=[list(model.parameters())], feed=feed, course=dataclasses.replace(Recipe().course, epochs=2),
        learn=np.arange(n), watch=np.arange(0), n_classes=2, device="cpu", report=told.append, save=lambda _: None,
        due=lambda: False, progress=lambda *_: None, note=lambda _: None, norms=backbone.chain.normed(),
    )  # fmt: skip
    patches = [mock.patch.object(PLACES[what], what, instead) for what, instead in replaced.items()]
    for patch in patches:
        patch.start()
    try:
        train.train_layers(training)
    finally:
        for patch in patches:
            patch.stop()
    return float(told[-1]["images_per_s"])  # of the second epoch: the first one makes the kernels


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--network", default="efficientnet_lite0")
    asked.add_argument("--photos", type=int, default=128)
    asked.add_argument("--rounds", type=int, default=5)
    options = asked.parse_args()
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, replaced in WAYS.items():
            rates[way].append(photos_per_s(options.network, options.photos, replaced))
    facts: dict[str, Any] = {"network": options.network, "CPU multiplies in bfloat16": step.has_bfloat16()}
    for way, found in rates.items():
        times = [one / plain for one, plain in zip(found, rates["float32"], strict=True)]
        facts[way] = (
            f"{statistics.median(found):.1f} photos/s ({min(found):.1f} to {max(found):.1f}), "
            f"{statistics.median(times):.2f} times ({min(times):.2f} to {max(times):.2f}, {len(times)} rounds)"
        )
    report("steps", facts)


if __name__ == "__main__":
    main()
