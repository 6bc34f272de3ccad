"""Claims, on a CUDA device, for ResNet-50 and ViT-B/16 in one run: extraction from JPEG files runs at >= 0.9 of what device and
decoder allow, and full fine-tuning from JPEG files at >= 0.9 of what the network alone does on made-up input.

The network alone is measured as timm's own benchmark script does it: input that lies on the device, bfloat16 autocast,
channels last; for training, SGD on cross-entropy. The decoder: all cores, by processes. What they allow: the lower
of the two rates, as they do not share a processor. Weights are random, photos are dogs and cats, each many times under
other bytes. Medians of the rounds. On another machine: --device cpu --photos 32 shows that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from measured import DATA, report
from safetensors.torch import save_file

import rehead
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.exporting.prefixes import ready_prefix
from rehead.features.decoders import beside
from rehead.features.engines import open_torch
from rehead.features.extract import extract
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.parallel import batched, n_cores, ordered_map
from rehead.progress import Silent

NETWORKS = ("resnet50", "vit_base_patch16_224")


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--device", default="cuda")
    asked.add_argument("--photos", type=int, default=11_200)
    asked.add_argument("--tuned", type=int, default=5_600, help="of them, for fine-tuning")
    asked.add_argument("--batch", type=int, default=128)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--networks", default=",".join(NETWORKS))
    asked.add_argument("--augment", default="crop")
    options = asked.parse_args()
    facts: dict[str, Any] = {}
    if options.device == "cuda":
        facts["device"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = copies(folder / "photos", options.photos)
        few = copies(folder / "few", options.tuned)
        for network in options.networks.split(","):
            facts |= {
                f"{network}: {what}": value for what, value in measured(network, photos, few, folder, options).items()
            }
            report("gpu", facts)


def copies(folder: Path, n: int) -> Path:
    """`n` photos in class folders, no two of the same bytes: a JPEG file may have bytes behind its end."""
    files = sorted((DATA / "dogscats").glob("*/*.jpg"), key=lambda file: (file.name.split(".")[1], file))
    for i in range(n):
        file = files[i % len(files)]
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / f"{i}.jpg").write_bytes(file.read_bytes() + i.to_bytes(4, "big"))
    return folder


def measured(name: str, photos: Path, few: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    weights = folder / f"{name}.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(name).state_dict(), weights)
    alone, trained = synthetic(name, options)
    rounds: dict[str, list[float]] = {"decoder": [], "extraction": []}
    catalog = scan(open_source(photos, cache=folder), seed=0, valid_fraction=0.2)
    prefix = ready_prefix(name, weights=weights, arguments={}, cut="pool", cache=folder, progress=Silent())
    engine, card = open_torch(prefix, options.device), prefix.card
    data = [catalog.read(photo) for photo in catalog.photos[: 64 * n_cores()]]
    decode = beside(options.device, len(catalog.photos), partial(stored_views, PLAIN, card.preprocess))
    for _ in ordered_map(decode, batched(((one, b"") for one in data), 8), workers=n_cores(), ahead=2 * n_cores()):
        pass  # processes are there from here on
    for number in range(options.rounds):
        begun = time.perf_counter()
        parts = batched(((one, b"") for one in data), 32)
        for _ in ordered_map(decode, parts, workers=n_cores(), ahead=2 * n_cores()):
            pass
        rounds["decoder"].append(len(data) / (time.perf_counter() - begun))
        with Store.open(folder, f"{name}{number}", shape=card.shape, about={}) as store:
            begun = time.perf_counter()
            extract(
                catalog, range(len(catalog.photos)), engine=engine, store=store, progress=Silent(), max_bad=0.2,
                decode=decode, stop=lambda: False,
                on_features=lambda *_: None,
            )  # fmt: skip
            rounds["extraction"].append(len(catalog.photos) / (time.perf_counter() - begun))
        shutil.rmtree(folder / "features")
    decoder, extraction = (statistics.median(rounds[what]) for what in ("decoder", "extraction"))
    tuning = fine_tuned(name, weights, few, folder, options)
    return {
        "network alone, images/s": round(alone),
        "decoder alone, images/s": round(decoder),
        "extraction, images/s": round(extraction),
        "extraction of what both allow": round(extraction / min(alone, decoder), 3),
        "extraction of the network alone": round(extraction / alone, 3),
        "training of the network alone, images/s": round(trained),
        "full fine-tuning from files, images/s": round(tuning),
        "full fine-tuning of the network alone": round(tuning / trained, 3),
    }


def synthetic(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """Images/s forward, and forward, backward and step."""
    network = timm.create_model(name, num_classes=2).to(options.device, memory_format=torch.channels_last)
    x = torch.randn(options.batch, 3, 224, 224, device=options.device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 2, (options.batch,), device=options.device)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

    def forward() -> None:
        with torch.inference_mode(), autocast(options.device):
            network(x)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(options.device):
            loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()

    forwards = rate(network.eval(), forward, options)
    return forwards, rate(network.train(), step, options)


def rate(_: Any, step: Callable[[], None], options: argparse.Namespace) -> float:
    n_steps = 40 if options.device == "cuda" else 1
    found = []
    for _ in range(options.rounds + 1):  # the first warms up
        begun = time.perf_counter()
        for _ in range(n_steps):
            step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        found.append(n_steps * options.batch / (time.perf_counter() - begun))
    return statistics.median(found[1:])


def autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def fine_tuned(name: str, weights: Path, photos: Path, folder: Path, options: argparse.Namespace) -> float:
    """Images/s of the epochs behind the first of `rehead tune --train all`, their median."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    tuned = rehead.tune(
        photos, backbone=name, weights=str(weights), train="all", epochs=1 + options.rounds, batch_size=options.batch,
        optimizer="sgd", lr=1e-3, augment=options.augment, warm_head=False, tie_copies=False, device=options.device,
        cache=folder, out=folder / "run", report=False,
    )  # fmt: skip
    lines = (tuned.run / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["images_per_s"] for line in lines]
    return statistics.median(rates[1:])


if __name__ == "__main__":
    main()
