"""The way of PyTorch's "Transfer Learning for Computer Vision Tutorial", with timm's network in place of ResNet-18.

head: "ConvNet as fixed feature extractor", last: the same with the last stage free too, full: "Finetuning the ConvNet". As
there: batches of 4, four workers, crops and flips, SGD at 0.001 with momentum 0.9, StepLR, and the best epoch is kept.
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
import timm
import torch
from torch import nn, optim
from torchvision import datasets, transforms

normalize = transforms.Normalize([0.5] * 3, [0.5] * 3)
crops = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalize]
middle = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize]
torch.manual_seed(seed)
images = {
    "train": datasets.ImageFolder(photos / "train", transforms.Compose(crops)),
    "val": datasets.ImageFolder(photos / "val", transforms.Compose(middle)),
}
loaders = {
    side: torch.utils.data.DataLoader(images[side], batch_size=4, shuffle=side == "train", num_workers=4)
    for side in ("train", "val")
}

model = timm.create_model("tf_efficientnet_lite0", pretrained=True, pretrained_cfg_overlay={"file": weights})
if mode != "full":
    for parameter in model.parameters():
        parameter.requires_grad = False
if mode == "last":
    for part in (model.blocks[6], model.conv_head, model.bn2):
        for parameter in part.parameters():
            parameter.requires_grad = True
model.classifier = nn.Linear(model.classifier.in_features, len(images["train"].classes))
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)

artefact = out / "artefact"
artefact.mkdir()
best = -1
for epoch in range(n_epochs):
    # for the benchmark
    begun = time.monotonic()
    # end
    model.train()
    for inputs, labels in loaders["train"]:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
    scheduler.step()
    # for the benchmark
    seconds.append(time.monotonic() - begun)
    # end
    model.eval()
    with torch.no_grad():
        named = torch.cat([model(inputs).argmax(1) for inputs, _ in loaders["val"]])
    right = int((named == torch.tensor(images["val"].targets)).sum())
    print(f"epoch {epoch}: held-out accuracy {right / len(named):.3f}", flush=True)
    if right > best:
        best, named_by_best = right, named.tolist()
        torch.save({"model": model.state_dict(), "classes": images["train"].classes}, artefact / "best.pt")
# for the benchmark
with (out / "heldout.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["photo", "label"])
    for (path, _), label in zip(images["val"].samples, named_by_best, strict=True):
        table.writerow([Path(path).relative_to(photos / "val").as_posix(), images["train"].classes[label]])
(out / "epochs.json").write_text(json.dumps(seconds))
# end
