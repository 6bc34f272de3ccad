"""Claims: on the flowers, `balanced` is right on at least 84 % in at most a third of the time of plain full fine-tuning, and
`thorough` not on fewer; on cats and dogs and on ants and bees no preset is below the linear head by more than its interval.

Every preset on three data sets, three seeds each (another seed is another split where the photos bring none), each run from
an empty cache. Beside them plain full fine-tuning of the same network on the flowers, seed 0's split, as people write it:
a DataLoader with as many workers as cores, random crops and mirror images, AdamW with one cycle to 0.001, label smoothing,
4 epochs. A run that is in the results file already, of this version of the presets, is not done again:
`presets.py flowers balanced` does a part, `presets.py plain` the plain loop, `presets.py busy dogscats` one beside other work,
whose times are then not in the table.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import DATA, dogscats_manifest, earlier, report, timed
from PIL import Image
from torchvision.transforms import v2

import rehead
from rehead.data.scan import scan
from rehead.data.sources import open_source
from rehead.pixels import prepare
from rehead.tuning.presets import PRESETS

SETS, SEEDS = ("hymenoptera", "dogscats", "flowers"), (0, 1, 2)
BUSY = "busy"
PLAIN, PLAIN_EPOCHS, BATCH = "plain loop, flowers, seed 0", 4, 32


def main(wanted: list[str]) -> None:
    facts = earlier("presets")
    for preset, settings in PRESETS.items():
        for name in SETS:
            for seed in SEEDS:
                key = f"{name}, {preset}, seed {seed}"
                known = facts.get(key, {}).get("settings") == settings
                if known or not all(word in (name, preset, str(seed), BUSY) for word in wanted):
                    continue
                facts[key] = {"settings": settings, BUSY: BUSY in wanted, **one_run(name, preset, seed)}
                report("presets", facts)
    if PLAIN not in facts and (not wanted or "plain" in wanted):
        facts[PLAIN] = plain_loop()
    report("presets", facts)
    print(table(facts))


def one_run(name: str, preset: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        photos = dogscats_manifest(Path(folder)) if name == "dogscats" else DATA / name
        command = ["tune", str(photos), "--recipe", preset, "--seed", str(seed), "--json", "--no-report"]
        run = timed(command, cache=Path(folder) / "cache", cwd=Path(folder))
    verdict = json.loads(run["output"])["verdict"]
    cost = {"seconds": round(run["seconds"], 1), "cpu_s": round(run["cpu_s"], 1), "peak_mb": round(run["peak_mb"])}
    return {**cost, "n_train": verdict["n_train"], **verdict["top1"]}


class Photos(torch.utils.data.Dataset):
    def __init__(self, photos: list[tuple[Path, int]]) -> None:
        self.photos = photos
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(224, scale=(0.35, 1)),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path, label = self.photos[i]
        return self.transform(Image.open(path).convert("RGB")), label


def plain_loop() -> dict[str, Any]:
    """Seconds of training, and how many of the held-out photos are right after each epoch."""
    backbone = rehead.backbone("efficientnet_lite0")
    with tempfile.TemporaryDirectory() as folder:
        catalog = scan(open_source(DATA / "flowers", cache=Path(folder)), seed=0, valid_fraction=0.2)
    photos = [(DATA / "flowers" / p.path, catalog.classes.index(p.label), p.side) for p in catalog.photos]
    learned = [(path, label) for path, label, side in photos if side == "train"]
    held_out = [(path, label) for path, label, side in photos if side != "train"]
    pixels = np.stack([prepare(path.read_bytes(), backbone.preprocess) for path, _ in held_out])
    truth = torch.tensor([label for _, label in held_out])
    torch.manual_seed(0)
    network: Any = backbone.network
    network.reset_classifier(len(catalog.classes))
    network.requires_grad_(True)
    loader = torch.utils.data.DataLoader(Photos(learned), BATCH, shuffle=True, num_workers=len(os.sched_getaffinity(0)))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=PLAIN_EPOCHS * len(loader))
    seconds, right = 0.0, []
    for _ in range(PLAIN_EPOCHS):
        network.train()
        begun = time.monotonic()
        for images, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1).backward()
            optimizer.step()
            cycle.step()
        seconds += time.monotonic() - begun
        network.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(64)
            named = torch.cat([network(part.float() / 127.5 - 1).argmax(1) for part in parts])
        right.append(float((named == truth).float().mean()))
        print(f"plain loop: {100 * right[-1]:.1f} % right after {seconds:.0f} s", flush=True)
    return {"seconds": round(seconds, 1), "right after each epoch": right, "n_train": len(learned), "n": len(held_out)}


def table(facts: dict[str, Any]) -> str:
    """The runs as Markdown: for each data set and preset the mean and range over the seeds, and the median time."""
    lines = [
        "| photos | preset | right, mean (range) of 3 seeds | seconds, median | CPU seconds |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for name in SETS:
        for preset in PRESETS:
            runs = [facts[key] for seed in SEEDS if (key := f"{name}, {preset}, seed {seed}") in facts]
            if runs:
                right = [100 * run["value"] for run in runs]
                quiet = [run["seconds"] for run in runs if not run.get(BUSY)]
                seconds = f"{statistics.median(quiet):.0f}" if quiet else "–"
                cpu_s = statistics.median(run["cpu_s"] for run in runs)
                spread = f"{statistics.mean(right):.1f} % ({min(right):.1f} to {max(right):.1f})"
                lines.append(f"| {name} | `{preset}` | {spread} | {seconds} | {cpu_s:.0f} |")
    if plain := facts.get(PLAIN):
        right = 100 * plain["right after each epoch"][-1]
        lines.append(f"| flowers | plain loop, all layers, seed 0 | {right:.1f} % | {plain['seconds']:.0f} | – |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
