"""Names one photo: the network's features, then the pipeline that was kept."""

import sys
from pathlib import Path

import joblib
import timm
import torch
from PIL import Image

artefact = Path(sys.argv[1])
network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
network.load_state_dict(torch.load(artefact / "network.pth", weights_only=True))
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
head = joblib.load(artefact / "head.joblib")
with torch.inference_mode():
    features = network.eval()(transform(Image.open(sys.argv[2]).convert("RGB"))[None])
print(head["classes"][head["classifier"].predict(features.numpy())[0]])
