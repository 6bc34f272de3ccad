"""Hugging Face Trainer, after https://huggingface.co/docs/transformers/tasks/image_classification, with a timm model
(https://huggingface.co/docs/transformers/model_doc/timm_wrapper).

Unlike the guide it validates once, after the last epoch, and keeps no best checkpoint, since the photos it would choose by are
held out here; it steps after each batch of 16 instead of each four, which would leave 4 steps an epoch with 244 photos; and its
rates are higher than the guide's 5e-5, which is for a transformer and left 129 of 153 right when everything learned.
"""

# for the benchmark
import csv
import json
import os
import sys
import time
from pathlib import Path

PHOTOS, WEIGHTS, OUT, MODE = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
EPOCHS, SEED = int(sys.argv[5]), int(sys.argv[6])
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(Path("cache").resolve())}

import timm

# What the hub would give for "timm/tf_efficientnet_lite0.in1k", with the weights of the benchmark.
checkpoint = Path("checkpoint")
checkpoint.mkdir()
(checkpoint / "model.safetensors").symlink_to(WEIGHTS.resolve())
config = timm.get_pretrained_cfg("tf_efficientnet_lite0").to_dict()
(checkpoint / "config.json").write_text(
    json.dumps({"architecture": config["architecture"], "num_classes": 1000, "pretrained_cfg": config})
)
# end
from datasets import load_dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DefaultDataCollator,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

# for the benchmark


class Clock(TrainerCallback):
    """Seconds of each epoch."""

    seconds = ()

    def on_epoch_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_epoch_end(self, *_, **__):
        self.seconds = (*self.seconds, time.perf_counter() - self.start)


clock = Clock()
# end

set_seed(SEED)
photos = load_dataset("imagefolder", data_dir=str(PHOTOS))
labels = photos["train"].features["label"].names
processor = AutoImageProcessor.from_pretrained(checkpoint)


def transforms(transform):
    def apply(examples):
        pixels = [transform(image.convert("RGB")) for image in examples["image"]]
        return {"pixel_values": pixels, "label": examples["label"]}

    return apply


train = photos["train"].with_transform(transforms(processor.train_transforms))
heldout = photos["validation"].with_transform(transforms(processor.val_transforms))
model = AutoModelForImageClassification.from_pretrained(
    checkpoint,
    num_labels=len(labels),
    id2label=dict(enumerate(labels)),
    label2id={label: i for i, label in enumerate(labels)},
    ignore_mismatched_sizes=True,
)
learning = {"head": ("classifier",), "last": ("blocks.6", "conv_head", "bn2", "classifier"), "full": ("",)}[MODE]
for name, parameter in model.timm_model.named_parameters():
    parameter.requires_grad = name.startswith(learning)

trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="trainer",
        remove_unused_columns=False,
        save_strategy="no",
        learning_rate={"head": 5e-3, "last": 5e-4, "full": 5e-4}[MODE],
        per_device_train_batch_size=16,
        per_device_eval_batch_size=8,
        num_train_epochs=EPOCHS,
        warmup_steps=0.1,
        logging_steps=10,
        report_to="none",
        seed=SEED,
    ),
    data_collator=DefaultDataCollator(),
    train_dataset=train,
    processing_class=processor,
    compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(axis=1) == found.label_ids).mean().item()},
    callbacks=[clock],
)
trainer.train()
found = trainer.predict(heldout)
print(found.metrics)
named = found.predictions.argmax(axis=1)
trainer.save_model(OUT / "artefact")

# for the benchmark
from datasets import Image

paths = [Path(image["path"]) for image in photos["validation"].cast_column("image", Image(decode=False))["image"]]
with open(OUT / "heldout.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["photo", "label"])
    rows.writerows((p.relative_to(PHOTOS / "val").as_posix(), labels[i]) for p, i in zip(paths, named, strict=True))
(OUT / "epochs.json").write_text(json.dumps(clock.seconds))
# end
