"""fastai, after https://docs.fast.ai/tutorial.vision.html, with a timm backbone by its name (https://docs.fast.ai/vision.learner.html).

vision_learner normalises with the mean and standard deviation of timm's configuration of the backbone, here 0.5 and 0.5.
"""

# for the benchmark
import csv
import json
import sys
import time
from pathlib import Path

PHOTOS, WEIGHTS, OUT, MODE = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
EPOCHS, SEED = int(sys.argv[5]), int(sys.argv[6])
# end
from fastai.vision.all import Callback, ImageDataLoaders, L, Resize, accuracy, params, set_seed, vision_learner

# for the benchmark


class Clock(Callback):
    """Seconds of each epoch without its validation."""

    seconds = ()

    def before_train(self):
        self.start = time.perf_counter()

    def after_train(self):
        self.seconds = (*self.seconds, time.perf_counter() - self.start)


clock = Clock()
# end


def three_groups(model):
    """The backbone, its last stage (blocks.6, conv_head, bn2) and the classifier, to be unfrozen from the end."""
    net = model[0].model
    last = L(net.blocks[6], net.conv_head, net.bn2)
    return [L(net.conv_stem, net.bn1, net.blocks[:6]).map(params).concat(), last.map(params).concat(), params(model[1])]


set_seed(SEED)
dls = ImageDataLoaders.from_folder(PHOTOS, train="train", valid="val", item_tfms=Resize(224))
learn = vision_learner(
    dls,
    "tf_efficientnet_lite0",
    metrics=accuracy,
    splitter=three_groups if MODE == "last" else None,
    cbs=clock,
    pretrained_cfg_overlay={"file": str(WEIGHTS)},  # timm reads this file instead of downloading
)
if MODE == "head":
    # The backbone is frozen, but for its batch normalisation, which fastai lets learn by default.
    learn.fit_one_cycle(EPOCHS)
elif MODE == "last":
    # Gradual unfreezing, as in https://docs.fast.ai/tutorial.text.html, with the rates of fine_tune.
    learn.fit_one_cycle(1)
    learn.freeze_to(-2)
    learn.fit_one_cycle(EPOCHS, slice(1e-5, 1e-3))
else:
    learn.fine_tune(EPOCHS)  # one frozen epoch, then EPOCHS of everything

scores, _ = learn.get_preds()
named = [dls.vocab[i] for i in scores.argmax(dim=1)]
(OUT / "artefact").mkdir()
learn.remove_cb(clock)
learn.export(OUT / "artefact" / "export.pkl")

# for the benchmark
with open(OUT / "heldout.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["photo", "label"])
    rows.writerows(
        (f.relative_to(PHOTOS / "val").as_posix(), name) for f, name in zip(dls.valid.items, named, strict=True)
    )
# Without the frozen epoch before `last` and `full`.
(OUT / "epochs.json").write_text(json.dumps(clock.seconds[-EPOCHS:]))
# end
