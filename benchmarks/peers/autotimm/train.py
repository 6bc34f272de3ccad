"""AutoTimm, as its documentation shows it.

Pages of its documentation: "ImageClassifier" (freeze backbone, performance), "Transfer learning" (progressive unfreezing: the
last stage, standard fine-tuning: everything, both at the default learning rate), "Image classification
data" (folders), "Classification model inference" (TransformConfig, Trainer.predict, the checkpoint), "Slow training".
"""

# for the benchmark
import json
import os
import sys
import time
from pathlib import Path

photos, weights, out, mode = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
epochs, seed = int(sys.argv[5]), int(sys.argv[6])
os.environ |= {"HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
# end

import torch
from autotimm import AutoTrainer, BackboneConfig, ImageClassifier, ImageDataModule, MetricConfig, TransformConfig

# for the benchmark
from pytorch_lightning import Callback


class Seconds(Callback):
    """Seconds of each training epoch; nothing is validated in between."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, *_):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_):
        self.epochs.append(time.perf_counter() - self.start)


seconds = Seconds()
# end

data = ImageDataModule(
    data_dir=str(photos),
    backbone="tf_efficientnet_lite0",  # its mean, std and crop
    transform_config=TransformConfig(),
    persistent_workers=True,
)
data.setup("fit")
model = ImageClassifier(
    backbone=BackboneConfig("tf_efficientnet_lite0", extra_kwargs={"pretrained_cfg_overlay": {"file": weights}}),
    num_classes=data.num_classes,
    metrics=[MetricConfig("accuracy", "torchmetrics", "Accuracy", {"task": "multiclass"}, ["train", "val"])],
    transform_config=TransformConfig(),
    freeze_backbone=mode != "full",
    lr=1e-2 if mode == "head" else 1e-3,  # "higher for head-only training"; its default
    compile_model=False,  # with it "first training run will be slower", and there is but one
    seed=seed,
    deterministic=False,
)
if mode == "last":
    for part in (model.backbone.blocks[6], model.backbone.conv_head, model.backbone.bn2):
        part.requires_grad_(True)

# Left out, being slower: the search for a learning rate and a batch size, validation after each epoch.
trainer = AutoTrainer(
    max_epochs=epochs,
    tuner_config=False,
    checkpoint_monitor=None,
    enable_checkpointing=False,
    limit_val_batches=0,
    seed=seed,
    callbacks=[seconds],
)
trainer.fit(model, datamodule=data)
predicted = torch.cat(trainer.predict(model, dataloaders=data.val_dataloader())).argmax(dim=1)
artefact = out / "artefact"
artefact.mkdir()
trainer.save_checkpoint(artefact / "model.ckpt", weights_only=True)
(artefact / "classes.txt").write_text("\n".join(data.class_names))

# for the benchmark
with open(out / "heldout.csv", "w") as file:
    print("photo,label", file=file)
    for (path, _), label in zip(data.val_dataset.samples, predicted, strict=True):
        print(Path(path).relative_to(photos / "val").as_posix(), data.class_names[label], sep=",", file=file)
(out / "epochs.json").write_text(json.dumps(seconds.epochs))
# end
