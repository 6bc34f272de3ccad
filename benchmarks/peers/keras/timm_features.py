"""Writes what timm computes with the shared weights, for convert.py to compare with.

    python timm_features.py WORK/weights/efficientnet_lite0.safetensors features.npz

Needs timm and torch, so it runs in any environment of the benchmark that has them, not in that of Keras. The file holds
`photos` (4, 224, 224, 3), noise from -1 to 1, and `features` (4, 7, 7, 1280).
"""

import sys

import numpy as np
import timm
import torch
from safetensors.torch import load_file

model = timm.create_model("tf_efficientnet_lite0").eval()
model.load_state_dict(load_file(sys.argv[1]))
photos = np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)).astype("float32")
with torch.inference_mode():
    features = model.forward_features(torch.from_numpy(photos).permute(0, 3, 1, 2))
np.savez(sys.argv[2], photos=photos, features=features.permute(0, 2, 3, 1).numpy())
