"""Claims: an epoch of `--train last:1` is at least 4 times faster than the same training written plainly in PyTorch with the
whole network run each epoch; `--train all` is not slower than that plain loop.

The plain loop: decoding and timm's own transform in a DataLoader with as many workers as cores, the network in training
mode, frozen below what learns, AdamW. One epoch each on the same photos, in turn, three rounds; medians.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from measured import DATA, report
from PIL import Image

import rehead
from rehead.nets.cut import Pooled
from rehead.nets.heads import mlp_module
from rehead.pixels import prepare
from rehead.tuning.feed import PhotoFeed, StoredFeed
from rehead.tuning.layers import Stage, layers_that_learn
from rehead.tuning.recipe import Recipe
from rehead.tuning.train import Training, train_layers

N_ROUNDS, N_PHOTOS, BATCH = 3, 256, 32
NETWORKS = {"tf_efficientnet_lite0": "efficientnet_lite0", "resnet18": "resnet18"}


class Photos(torch.utils.data.Dataset):
    def __init__(self, paths: list[Path], network: Any) -> None:
        self.paths = paths
        config = timm.data.resolve_model_data_config(network)
        self.transform = timm.data.create_transform(**config, is_training=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.open(self.paths[i]).convert("RGB")), int(self.paths[i].parent.name == "dog")


def plain_epoch(name: str, paths: list[Path], learning: tuple[str, ...] | None) -> float:
    """Seconds of one epoch, the way people write it. learning: the modules that learn; None for all."""
    network = timm.create_model(name, num_classes=2)
    for path, parameter in network.named_parameters():
        head = path.startswith(("classifier", "fc"))
        parameter.requires_grad_(head or learning is None or path.startswith(learning))
    loader = torch.utils.data.DataLoader(
        Photos(paths, network), BATCH, shuffle=True, num_workers=len(os.sched_getaffinity(0))
    )
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 1e-3)
    network.train()
    begun = time.monotonic()
    for images, labels in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return time.monotonic() - begun


def our_epoch(name: str, paths: list[Path], train: str) -> float:
    """Seconds of one epoch of what `--train` does, activations being in memory as they are after extraction."""
    backbone = rehead.backbone(NETWORKS[name], pretrained=False)
    stages = [Stage(layer.name, layer.parameters, layer.macs, layer.shape) for layer in backbone.layers]
    learning = layers_that_learn(train, stages)
    labels = np.array([int(path.parent.name == "dog") for path in paths])
    width = backbone.card.shape[0]
    feed: Any
    if train == "all":
        body: Any = Pooled(backbone.network)
        means = (backbone.preprocess.mean, backbone.preprocess.std)
        feed = PhotoFeed(
            lambda asked: [prepare(paths[i].read_bytes(), backbone.preprocess) for i, _ in asked], labels, *means, 0
        )
    else:
        cut = stages[[stage.name for stage in stages].index(learning[0]) - 1]
        maps = np.random.default_rng(0).normal(size=(len(paths), *cut.shape)).astype(np.float16)
        body, feed = backbone.suffix(cut.name), StoredFeed([maps], labels, 0)
    model = torch.nn.Sequential()
    model.add_module("body", body)
    model.add_module("head", mlp_module(width, (), 2, "none", seed=0))
    groups = [list(backbone[layer].parameters()) for layer in learning] + [list(model[1].parameters())]
    everything, nothing = np.arange(len(paths)), np.arange(0)
    course = dataclasses.replace(Recipe(norm="adapt").course, epochs=1, batch_size=BATCH)
    job = Training(
        model=model, groups=groups, feed=feed, course=course, learn=everything, watch=nothing, n_classes=2, device="cpu",
        report=lambda *_: None, save=lambda *_: None, due=lambda: False, progress=lambda *_: None,
        note=lambda *_: None,
    )  # fmt: skip
    begun = time.monotonic()
    train_layers(job)
    return time.monotonic() - begun


def bound(name: str, train: str, gflops: float) -> float:
    """Photos/s if these two cores did nothing but the products of a step, as fast as one large product of matrices.

    Forward, and backward once for the weights and once for the input, but for what needs no gradient: the kept activations.
    """
    backbone = rehead.backbone(NETWORKS[name], pretrained=False)
    stages = [Stage(layer.name, layer.parameters, layer.macs, layer.shape) for layer in backbone.layers]
    first = layers_that_learn(train, stages)[0]
    cut = stages[[stage.name for stage in stages].index(first) - 1]
    maps, macs = torch.zeros(1, *cut.shape), 0

    def count(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal macs
        a_pass = output.numel() * module.weight[0].numel()
        macs += a_pass * (2 if inputs[0].data_ptr() == maps.data_ptr() else 3)

    body = backbone.suffix(cut.name).eval()
    for module in body.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        body(maps)
    return gflops * 1e9 / (2 * macs)


def product_gflops(n: int = 2048) -> float:
    """10^9 operations a second of a product of two n x n matrices in float32, the best of ten."""
    a, b, seconds = torch.rand(n, n), torch.rand(n, n), []
    for _ in range(10):
        begun = time.monotonic()
        a @ b
        seconds.append(time.monotonic() - begun)
    return 2 * n**3 / min(seconds) / 1e9


def main() -> None:
    paths = sorted((DATA / "dogscats").glob("*/*.jpg"))
    paths = paths[:: len(paths) // N_PHOTOS][:N_PHOTOS]
    gflops = product_gflops()
    facts: dict[str, Any] = {"a large product of matrices, GFLOP/s": f"{gflops:.0f}"}
    for name in NETWORKS:
        facts[f"{name}, last:1: bound by products alone, photos/s"] = f"{bound(name, 'last:1', gflops):.0f}"
        last = {"tf_efficientnet_lite0": ("conv_head", "bn2"), "resnet18": ("layer4",)}[name]
        ways: dict[str, Callable[[], float]] = {
            "plain, last": lambda name=name, last=last: plain_epoch(name, paths, last),
            "ours, last:1": lambda name=name: our_epoch(name, paths, "last:1"),
            "plain, all": lambda name=name: plain_epoch(name, paths, None),
            "ours, all": lambda name=name: our_epoch(name, paths, "all"),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(N_ROUNDS):
            for way, run in ways.items():
                seconds[way].append(run())
        for way, values in seconds.items():
            facts[f"{name}, {way}, photos/s"] = f"{N_PHOTOS / statistics.median(values):.0f}"
        for what, ours, plain in (("last:1", "ours, last:1", "plain, last"), ("all", "ours, all", "plain, all")):
            ratios = [p / o for p, o in zip(seconds[plain], seconds[ours], strict=True)]
            facts[f"{name}, {what}: times the plain loop"] = (
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}, {N_ROUNDS} rounds)"
            )
    report("epoch", facts)


if __name__ == "__main__":
    main()
