"""Names one photo with the best epoch's weights, as the tutorial's inference on custom images does."""

import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from torchvision import transforms

kept = torch.load(Path(sys.argv[1]) / "best.pt", weights_only=True)
model = timm.create_model("tf_efficientnet_lite0", num_classes=len(kept["classes"]))
model.load_state_dict(kept["model"])
normalize = transforms.Normalize([0.5] * 3, [0.5] * 3)
prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize])
with torch.no_grad():
    logits = model.eval()(prepare(Image.open(sys.argv[2]).convert("RGB"))[None])
print(kept["classes"][logits.argmax()])
