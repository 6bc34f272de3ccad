"""The tutorial "Transfer Learning with Flux", step for step: cats and dogs told apart by new layers on an old network.

python examples/dogs_vs_cats.py photos/                                   # the default backbone
python examples/dogs_vs_cats.py photos/ resnet50 --weights resnet50.safetensors
python examples/dogs_vs_cats.py photos/ resnet18 --weights resnet18_to_layer3.safetensors --cut layer3
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import rehead

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("photos", help="a folder with one folder of photos for each class")
parser.add_argument("backbone", nargs="?", default="efficientnet_lite0")
parser.add_argument("--weights", help="a local file of weights")
parser.add_argument("--cut", default="pool", help="the last layer whose weights the file has")
parser.add_argument("--device", default="auto")
parser.add_argument("--batches", type=int, default=10)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
torch.manual_seed(arguments.seed)

# A pretrained network, and all of it but its last two layers: the global pooling and the classifier.
network = rehead.backbone(arguments.backbone, weights=arguments.weights, cut=arguments.cut)
names = [layer.name for layer in network.layers]
if arguments.cut not in names:
    parser.error(f"--cut is one of: {', '.join(names)}")
end = -2 if arguments.cut == "pool" else names.index(arguments.cut) + 1
body, width = network[:end], network.layers[:end][-1].shape[0]

# New layers on top.
model = nn.Sequential(
    body,
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(width, 1000),
    nn.ReLU(),
    nn.Linear(1000, 256),
    nn.ReLU(),
    nn.Linear(256, 2),
)


def batch(n: int, side: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n photos, as many of each class, shuffled, with one-hot labels."""
    seed = 1000 * arguments.seed + number
    return rehead.load_batch(arguments.photos, n, preprocess=network.preprocess, side=side, seed=seed)


# Two epochs of Adam on the cross-entropy of the logits; only the new layers learn.
losses = rehead.fit(
    model,
    [batch(10, "train", i) for i in range(arguments.batches)],
    train=model[1:],
    optimizer=torch.optim.Adam,
    epochs=2,
    device=arguments.device,
    on_epoch=lambda epoch, loss: print(f"Epoch {epoch}: loss {loss:.3f}"),
)

# Verified on a fresh batch, of photos that were held out.
images, labels = batch(50, "valid", 999)
with torch.inference_mode():
    right = (model(images).argmax(1) == labels.argmax(1)).sum()
print(f"{right} of 50 held-out photos of a fresh batch are right")
