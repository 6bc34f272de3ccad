"""The plain PyTorch loop as someone writes it who knows CPUs: the same crops and flips as the tutorial, made to be fast.

Batches of 32, channels last, workers that stay (one a core), frozen layers run without gradients, keep their statistics and
take 8 photos at a time, which a CPU does faster than 32; AdamW with one cycle ("PyTorch's Performance Tuning Guide",
"Channels Last Memory Format"), held-out photos judged once.
"""

# for the benchmark
import csv
import json
import sys
import time
from pathlib import Path

photos, weights, out, mode, n_epochs, seed = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]
n_epochs, seed, seconds = int(n_epochs), int(seed), []
# end
import os

import timm
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

normalize = transforms.Normalize([0.5] * 3, [0.5] * 3)
crops = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalize]
middle = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize]
torch.manual_seed(seed)
learned = datasets.ImageFolder(photos / "train", transforms.Compose(crops))
held_out = datasets.ImageFolder(photos / "val", transforms.Compose(middle))
workers = len(os.sched_getaffinity(0))
loader = DataLoader(learned, batch_size=32, shuffle=True, num_workers=workers, persistent_workers=True)

network = timm.create_model("tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay={"file": weights})
network.reset_classifier(len(learned.classes))
network.to(memory_format=torch.channels_last)
stem = nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:6])
last = nn.Sequential(network.blocks[6], network.conv_head, network.bn2, network.global_pool)
frozen, free = {
    "head": (nn.Sequential(stem, last), network.classifier),
    "last": (stem, nn.Sequential(last, network.classifier)),
    "full": (nn.Identity(), nn.Sequential(stem, last, network.classifier)),
}[mode]
optimizer = torch.optim.AdamW(free.parameters(), lr=1e-3)
cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=n_epochs * len(loader))
for _ in range(n_epochs):
    # for the benchmark
    begun = time.monotonic()
    # end
    frozen.eval()
    free.train()
    for inputs, labels in loader:
        with torch.no_grad():
            features = torch.cat([frozen(part) for part in inputs.to(memory_format=torch.channels_last).split(8)])
        optimizer.zero_grad()
        functional.cross_entropy(free(features), labels).backward()
        optimizer.step()
        cycle.step()
    # for the benchmark
    seconds.append(time.monotonic() - begun)
    # end
network.eval()
with torch.inference_mode():
    batches = DataLoader(held_out, batch_size=8, num_workers=workers)
    named = torch.cat([network(inputs.to(memory_format=torch.channels_last)).argmax(1) for inputs, _ in batches])
print(f"held-out accuracy {(named == torch.tensor(held_out.targets)).float().mean():.3f}")
artefact = out / "artefact"
artefact.mkdir()
torch.save({"model": network.state_dict(), "classes": learned.classes}, artefact / "best.pt")
# for the benchmark
with (out / "heldout.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["photo", "label"])
    for (path, _), label in zip(held_out.samples, named.tolist(), strict=True):
        table.writerow([Path(path).relative_to(photos / "val").as_posix(), learned.classes[label]])
(out / "epochs.json").write_text(json.dumps(seconds))
# end
