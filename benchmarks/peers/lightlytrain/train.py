"""LightlyTrain, as its documentation shows it: the pages "Image Classification" and "Train Settings".

A timm network is named by `model`, its weights by `model_args.backbone_weights`; `backbone_freeze` trains the head only.
It counts in steps and validates once, after the last.
"""

# for the benchmark
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

photos, weights, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
epochs, seed = int(sys.argv[5]), int(sys.argv[6])
os.environ |= {"LIGHTLY_TRAIN_EVENTS_DISABLED": "1", "HF_HUB_OFFLINE": "1"}  # no telemetry, no downloads
if mode == "last":
    print("LightlyTrain freezes the whole backbone or nothing of it.")
    sys.exit(3)
# end

import shutil

import lightly_train

# for the benchmark
from lightly_train._task_models.image_classification.train_model import ImageClassificationTrain

starts, named = [], {}
training_step, validation_step = ImageClassificationTrain.training_step, ImageClassificationTrain.validation_step


def timed_step(self, **step):
    starts.append(time.perf_counter())
    return training_step(self, **step)


def kept_step(self, **step):
    """What its own validation saw; asking again would cost it a second pass."""
    if not named:
        starts.append(time.perf_counter())
    result = validation_step(self, **step)
    named.update(zip(step["batch"]["image_path"], result.visualization.logits.argmax(dim=1).tolist(), strict=True))
    return result


ImageClassificationTrain.training_step, ImageClassificationTrain.validation_step = timed_step, kept_step
# end

classes = sorted(folder.name for folder in (photos / "train").iterdir())
steps_per_epoch = sum(1 for _ in photos.glob("train/*/*")) // 16  # 16 is its default batch
lightly_train.train_image_classification(
    out="run",
    model="timm/tf_efficientnet_lite0",
    data={"train": str(photos / "train"), "val": str(photos / "val"), "classes": dict(enumerate(classes))},
    steps=epochs * steps_per_epoch,
    seed=seed,
    precision="32-true",  # its default, bfloat16, is "not supported on all hardware"
    model_args={"backbone_weights": weights.with_suffix(".pth"), "backbone_freeze": mode == "head"},
    transform_args={"normalize": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}},
)
shutil.copytree("run/exported_models", out / "artefact", ignore=shutil.ignore_patterns("exported_last.pt"))

# for the benchmark
with open(out / "heldout.csv", "w") as file:
    print("photo,label", file=file)
    for path, label in named.items():
        print(Path(path).relative_to(photos / "val").as_posix(), classes[label], sep=",", file=file)
marks = starts[::steps_per_epoch]
(out / "epochs.json").write_text(json.dumps([end - start for start, end in pairwise(marks)]))
# end
