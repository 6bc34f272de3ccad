"""AutoGluon MultiModal, as its documentation shows it.

Tutorials "AutoMM for Image Classification - Quick Start" (a table with a column of paths) and "Customize AutoMM"
(`model.names`, `model.timm_image.checkpoint_name`: a timm name or a local folder with weights and config, `optim.*`).
"""

# for the benchmark
import json
import os
import sys
from pathlib import Path

photos, weights, out, mode = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
epochs, seed = int(sys.argv[5]), int(sys.argv[6])
os.environ["HF_HUB_OFFLINE"] = "1"
if mode != "full":
    print("AutoGluon's optim.peft trains biases, norms or LoRA along with the head; no option trains a part alone.")
    sys.exit(3)

import timm
import torch
from safetensors.torch import load_file

network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
backbone = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith("classifier.")}
network.load_state_dict(backbone)
folder = out / "backbone"  # which a saved predictor looks for again; as AutoGluon saves a timm network itself
folder.mkdir()
torch.save(backbone, folder / "pytorch_model.bin")
config = {"architecture": "tf_efficientnet_lite0", "num_features": network.num_features}
(folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": network.default_cfg}))
# end

import pandas as pd
from autogluon.multimodal import MultiModalPredictor


def table(part):
    files = sorted((photos / part).glob("*/*"))
    return pd.DataFrame({"image": [str(file) for file in files], "label": [file.parent.name for file in files]})


predictor = MultiModalPredictor(label="label", path=out / "artefact")
predictor.fit(
    train_data=table("train"),  # it holds out a part of these itself, to choose the checkpoints that it averages
    hyperparameters={
        "model.names": ["timm_image"],
        "model.timm_image.checkpoint_name": str(out / "backbone"),
        "model.timm_image.image_norm": "inception",  # mean and std of 0.5
        "optim.max_epochs": epochs,
        "env.num_workers": 2,
    },
    seed=seed,
)
val = table("val")
predicted = predictor.predict(val)

# for the benchmark
with open(out / "heldout.csv", "w") as file:
    print("photo,label", file=file)
    for path, label in zip(val["image"], predicted, strict=True):
        print(Path(path).relative_to(photos / "val").as_posix(), label, sep=",", file=file)
(out / "epochs.json").write_text("[]")  # it validates within an epoch, so that no time of training alone can be told
# end
