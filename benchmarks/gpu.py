"""Claims, on a CUDA device, for ResNet-50 and ViT-B/16 in one run: extraction from JPEG files runs at >= 0.9 of what device and
decoder allow, and full fine-tuning from JPEG files at >= 0.9 of what they allow.

The network alone is measured on input that lies on the device, bfloat16 autocast, channels last; for training, SGD on
cross-entropy: as timm's own benchmark script does it. That script is not part of timm's package; with --timm-script
PATH (benchmark.py of its repository) it runs too, in the same run. The decoder: all cores, by processes. What they allow:
the lower of the two rates, as they do not share a processor. Beside it stands what the cores decode when nothing is handed
over. Weights are random, photos are dogs and cats, each many times under other bytes. Medians of the rounds.

Networks are measured one after the other, and the results of each are written, beside those of earlier runs, once they are
there. On another machine: --device cpu --photos 32 --rounds 1 shows that it runs, and writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from machine import RESULTS, slug
from measured import REHEAD, copies, earlier, report
from safetensors.torch import save_file

from rehead.data.catalog import Catalog
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.features.decoders import Processes, bytes_or_file, executor
from rehead.features.engines import Prefix, open_torch
from rehead.features.extract import by_engine, extract
from rehead.features.store import Store
from rehead.features.views import PLAIN, stored_views
from rehead.nets.backbone import load_backbone
from rehead.parallel import batched, n_cores, ordered_map
from rehead.pixels import Preprocess, prepare
from rehead.progress import Silent

NETWORKS = ("resnet50", "vit_base_patch16_224")
BEGUN = time.perf_counter()
LONGEST_S = 240  # of fine-tuning: a run that hangs ends the script


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--device", default="cuda")
    asked.add_argument("--photos", type=int, default=11_200)
    asked.add_argument("--batch", type=int, default=128)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--networks", default=",".join(NETWORKS))
    asked.add_argument("--augment", default="crop")
    asked.add_argument("--parts", default="alone,extraction,tuning,timm")
    asked.add_argument("--timm-script", type=Path)
    options = asked.parse_args()
    facts = earlier("gpu", results_of_device()) if options.device == "cuda" else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = copies(folder / "photos", options.photos)
        catalog = scan(open_source(photos, cache=folder), seed=0, valid_fraction=0.2)
        told(f"{len(catalog.photos)} photos are there")
        for network in options.networks.split(","):
            for what, value in measured(network, catalog, photos, folder, options):
                facts[f"{network}: {what}"] = value
                told(f"{network}: {what}: {value}")
            if options.device == "cuda":
                facts[f"{network}: device"] = torch.cuda.get_device_name()
                report("gpu", facts, results_of_device())
    executor().shutdown(wait=True, kill_workers=True)


def results_of_device() -> Path:
    """The folder of a device's results, such as results/nvidia-h200."""
    return RESULTS / slug(torch.cuda.get_device_name())


def told(what: str) -> None:
    print(f"{time.perf_counter() - BEGUN:6.1f} s  {what}", flush=True)


def measured(name: str, catalog: Catalog, photos: Path, folder: Path, options: argparse.Namespace) -> Any:
    """Facts, each as soon as it is there."""
    parts = options.parts.split(",")
    weights = folder / f"{name}.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(name).state_dict(), weights)
    alone = trained = decoder = None
    if "alone" in parts:
        alone, trained = synthetic(name, options)
        yield "network alone, images/s", round(alone)
        yield "training of the network alone, images/s", round(trained)
    if "extraction" in parts:
        prefix = prefix_of(name, weights, folder)
        raw = by_themselves(catalog, prefix.card.preprocess, options)
        yield f"{n_cores()} processes decode, nothing handed over, images/s", round(raw)
        decoder, extraction = extracted(name, prefix, catalog, folder, options)
        yield "decoder alone, images/s", round(decoder)
        yield "extraction, images/s", round(extraction)
        if alone:
            yield "extraction of what both allow", round(extraction / min(alone, decoder), 3)
            yield "extraction of the network alone", round(extraction / alone, 3)
    if "tuning" in parts:
        tuning = fine_tuned(name, weights, photos, folder, options)
        yield "full fine-tuning from files, images/s", round(tuning)
        if trained:
            yield "full fine-tuning of the network alone", round(tuning / trained, 3)
        if trained and decoder:
            yield "full fine-tuning of what both allow", round(tuning / min(trained, decoder), 3)
    if "timm" in parts and options.timm_script:
        for key, value in by_timm(name, options):
            yield f"timm's script, {key}", value
            if "tuning" in parts and key == "train_samples_per_sec":
                yield "full fine-tuning of timm's script", round(tuning / value, 3)


def prefix_of(name: str, weights: Path, folder: Path) -> Prefix:
    """The prefix without its graph, which the engine of PyTorch does not need: writing one takes tens of seconds."""
    backbone = load_backbone(name, weights=weights, arguments={}, cut="pool")
    network, card = backbone.cut_at("pool", pooled=True)
    return Prefix(card, folder, lambda: network)


def by_themselves(catalog: Catalog, preprocess: Preprocess, options: argparse.Namespace) -> float:
    """Images/s of all cores at decoding, each on files of its own, with nothing given back."""
    n = min(len(catalog.photos) // n_cores(), 64 if options.device == "cuda" else 8)
    paths = [str(catalog.file(photo)) for photo in catalog.photos[: n * n_cores()]]
    pool, found = executor(), []
    for _ in range(1 + options.rounds):
        begun = time.perf_counter()
        running = [pool.submit(decode_all, part, preprocess) for part in batched(paths, n)]
        assert sum(one.result() for one in running) == len(paths)
        found.append(len(paths) / (time.perf_counter() - begun))
    return statistics.median(found[1:])  # the first waits for the processes


def decode_all(paths: list[str], preprocess: Preprocess) -> int:
    return sum(prepare(Path(path).read_bytes(), preprocess).shape[2] == 3 for path in paths)


def extracted(
    name: str, prefix: Prefix, catalog: Catalog, folder: Path, options: argparse.Namespace
) -> tuple[float, float]:
    """Images/s of the decoder alone, pixels in this process, and of extraction into the store, in turn."""
    engine, rounds = open_torch(prefix, options.device), ([], [])
    decode: Processes[Any] = Processes(partial(stored_views, PLAIN, prefix.card.preprocess))
    jobs = [(bytes_or_file(decode, catalog, photo), photo.digest) for photo in catalog.photos]
    lies_in: Any = decode(jobs[:1])[0]
    while isinstance(lies_in, np.ndarray):
        lies_in = lies_in.base
    told(f"{name}: pixels come from processes in {type(getattr(lies_in, 'obj', lies_in))}; mmap is the fast way")
    positions = range(len(catalog.photos))
    for number in range(1 + options.rounds):
        begun, n = time.perf_counter(), 0
        for pixels in ordered_map(decode, batched(jobs, 128), workers=n_cores() + 4, ahead=2 * n_cores()):
            n += len(pixels)
        rounds[0].append(n / (time.perf_counter() - begun))
        with Store.open(folder, f"{name}{number}", shape=prefix.card.shape, about={}) as store:
            begun = time.perf_counter()
            done = extract(
                catalog, positions, by_engine(catalog, positions, engine, decode), store=store, progress=Silent(),
                max_bad=0.2, stop=lambda: False, on_features=lambda *_: None,
            ).done  # fmt: skip
            rounds[1].append(done / (time.perf_counter() - begun))
        shutil.rmtree(folder / "features")
        told(f"{name}: round {number}: decoder {rounds[0][-1]:.0f}, extraction {rounds[1][-1]:.0f} images/s")
    return statistics.median(rounds[0][1:]), statistics.median(rounds[1][1:])


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

    network.eval()
    forwards = rate(forward, options)
    network.train()
    return forwards, rate(step, options)


def rate(step: Callable[[], None], options: argparse.Namespace) -> float:
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
    """Images/s of the epochs behind the first of `rehead tune --train all`, their median.

    The program is ended when it has learned: judging and exporting a model on the CPU takes minutes and is not measured.
    """
    run, n_epochs = folder / f"run-{name}", 1 + options.rounds
    command = [
        *REHEAD, "tune", str(photos), "--backbone", name, "--weights", str(weights), "--train", "all", "--epochs",
        str(n_epochs), "--batch-size", str(options.batch), "--optimizer", "sgd", "--lr", "1e-3", "--augment",
        options.augment, "--no-warm-head", "--no-tie-copies", "--device", options.device, "--out", str(run), "--no-report",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env={**os.environ, "REHEAD_CACHE": str(folder)}, start_new_session=True, stdout=subprocess.DEVNULL
    )
    begun, lines = time.perf_counter(), []
    try:
        while len(lines) < n_epochs:
            n_before, path = len(lines), run / "metrics.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            for line in lines[n_before:]:
                told(f"{name}: epoch {json.loads(line)['epoch']}: {json.loads(line)['images_per_s']} images/s")
            if process.poll() is not None and len(lines) < n_epochs:
                raise SystemExit(f"rehead tune ended with {process.returncode} after {len(lines)} epochs")
            if options.device == "cuda" and time.perf_counter() - begun > LONGEST_S:
                raise SystemExit(f"rehead tune took longer than {LONGEST_S} s")
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return statistics.median([json.loads(line)["images_per_s"] for line in lines][1:])


def by_timm(name: str, options: argparse.Namespace) -> Any:
    """What timm's own script says of the same network, batch, precision and layout."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        subprocess.run(
            [
                sys.executable, str(options.timm_script), "--model", name, "--bench", "both", "--device", options.device,
                "-b", str(options.batch), "--img-size", "224", "--channels-last", "--amp", "--amp-dtype", "bfloat16",
                "--no-retry", "--results-file", str(results), "--results-format", "json",
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        found = json.loads(results.read_text())
    for one in found if isinstance(found, list) else [found]:
        for key in ("infer_samples_per_sec", "train_samples_per_sec"):
            if key in one:
                yield key, round(one[key])


if __name__ == "__main__":
    main()
