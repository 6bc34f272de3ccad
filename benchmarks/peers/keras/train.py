"""Keras 3 on JAX, after https://keras.io/guides/transfer_learning/ (photos read as its section on one's own data says).

Unlike the guide it validates once, after the last epoch. Keras' other backends were not tried. The pretrained base is
efficientnet_lite0.keras beside WEIGHTS: the same weights, written by convert.py.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

# for the benchmark
import csv
import json
import sys
import time
from pathlib import Path

PHOTOS, WEIGHTS, OUT, MODE = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
EPOCHS, SEED = int(sys.argv[5]), int(sys.argv[6])

import jax

# end
import keras
from keras import layers
from tensorflow import data as tf_data

# for the benchmark


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    seconds: list[float]

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, *_):
        self.start = time.perf_counter()

    def on_epoch_end(self, *_):
        # JAX runs behind; the last step must be done.
        jax.block_until_ready([v.value for v in self.model.trainable_variables])
        self.seconds.append(time.perf_counter() - self.start)


clock = Clock()
# end

keras.utils.set_random_seed(SEED)
size = (224, 224)
train_ds = keras.utils.image_dataset_from_directory(PHOTOS / "train", image_size=size, batch_size=64, seed=SEED)
val_ds = keras.utils.image_dataset_from_directory(PHOTOS / "val", image_size=size, batch_size=64, shuffle=False)
classes, files = train_ds.class_names, val_ds.file_paths

flip, rotate = layers.RandomFlip("horizontal", seed=SEED), layers.RandomRotation(0.1, seed=SEED)
train_ds = train_ds.map(lambda x, y: (rotate(flip(x)), y))
# As in the guide: photos are read and varied once, in the first epoch.
train_ds = train_ds.prefetch(tf_data.AUTOTUNE).cache()
val_ds = val_ds.prefetch(tf_data.AUTOTUNE).cache()

base_model = keras.models.load_model(WEIGHTS.with_suffix(".keras"))
base_model.trainable = False
inputs = keras.Input((*size, 3))
x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
x = base_model(x, training=False)  # batch normalisation keeps its statistics, also when the base learns
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
model = keras.Model(inputs, layers.Dense(len(classes))(x))


def fit(optimizer, epochs, callbacks=None):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(train_ds, epochs=epochs, callbacks=callbacks, verbose=2)


if MODE == "head":
    fit(keras.optimizers.Adam(), EPOCHS, [clock])
else:
    fit(keras.optimizers.Adam(), 2)  # the guide trains the top first, for two epochs; these are not in epochs.json
    base_model.trainable = True
    if MODE == "last":  # the last stage: blocks_6_*, conv_head, bn2
        for layer in base_model.layers:
            layer.trainable = layer.name.startswith(("blocks_6", "conv_head", "bn2"))
    fit(keras.optimizers.Adam(1e-5), EPOCHS, [clock])  # the guide's rate for fine-tuning

model.evaluate(val_ds, verbose=2)
named = model.predict(val_ds, verbose=0).argmax(axis=1)
artefact = OUT / "artefact"
artefact.mkdir()
model.save(artefact / "model.keras")
(artefact / "classes.txt").write_text("\n".join(classes))

# for the benchmark
with open(OUT / "heldout.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["photo", "label"])
    rows.writerows(
        (Path(f).relative_to(PHOTOS / "val").as_posix(), classes[i]) for f, i in zip(files, named, strict=True)
    )
(OUT / "epochs.json").write_text(json.dumps(clock.seconds))
# end
