"""AutoTimm names one photo: "Classification model inference", single image prediction (recommended)."""

import sys
from pathlib import Path

import torch
from autotimm import BackboneConfig, ImageClassifier, TransformConfig
from PIL import Image

artefact, photo = Path(sys.argv[1]), sys.argv[2]
classes = (artefact / "classes.txt").read_text().splitlines()
model = ImageClassifier.load_from_checkpoint(
    artefact / "model.ckpt",
    backbone=BackboneConfig("tf_efficientnet_lite0", pretrained=False),
    num_classes=len(classes),
    compile_model=False,
    seed=None,
    deterministic=False,
    transform_config=TransformConfig(),
    weights_only=False,  # its checkpoint holds more than tensors: PyTorch refuses it otherwise
)
model.eval()
with torch.inference_mode():
    label = model(model.preprocess(Image.open(photo))).argmax(dim=1).item()
print(classes[label])
