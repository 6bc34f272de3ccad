"""Writes the shared weights as a Keras model: set-up done by the benchmark, not part of what a user would write.

    python convert.py WORK/weights/efficientnet_lite0.safetensors [features.npz]

Keras has its own EfficientNet, with other weights, which would have to be downloaded. So this builds EfficientNet-Lite0 from
Keras layers, without its classifier, copies the weights in and saves efficientnet_lite0.keras beside the file; train.py loads
that. The input is (photos, 224, 224, 3) from -1 to 1, the output (photos, 7, 7, 1280). With features.npz (see
timm_features.py) it compares both first and refuses a difference above 1e-4.
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from keras import layers
from safetensors.numpy import load_file

STAGES = [  # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def conv(x, name, channels, kernel=1, stride=1):
    """A convolution without bias, padded as TensorFlow pads; `channels` None makes it depthwise."""
    options = {"strides": stride, "padding": "same", "use_bias": False, "name": name.replace(".", "_")}
    if channels is None:
        return layers.DepthwiseConv2D(kernel, **options)(x)
    return layers.Conv2D(channels, kernel, **options)(x)


def norm(x, name, relu=True):
    """Batch normalisation, then ReLU6 unless told otherwise."""
    x = layers.BatchNormalization(epsilon=1e-3, name=name.replace(".", "_"))(x)
    return layers.ReLU(6.0)(x) if relu else x


def block(x, name, kernel, stride, expansion, channels):
    """An inverted residual block without squeeze and excitation, its layers named as timm names them."""
    skip = x
    if expansion == 1:
        x = norm(conv(x, f"{name}.conv_dw", None, kernel, stride), f"{name}.bn1")
        x = norm(conv(x, f"{name}.conv_pw", channels), f"{name}.bn2", relu=False)
    else:
        x = norm(conv(x, f"{name}.conv_pw", expansion * skip.shape[-1]), f"{name}.bn1")
        x = norm(conv(x, f"{name}.conv_dw", None, kernel, stride), f"{name}.bn2")
        x = norm(conv(x, f"{name}.conv_pwl", channels), f"{name}.bn3", relu=False)
    return layers.Add()([x, skip]) if stride == 1 and skip.shape[-1] == channels else x


def efficientnet_lite0():
    """EfficientNet-Lite0 up to its last map, with weights as Keras draws them."""
    x = inputs = keras.Input((224, 224, 3))
    x = norm(conv(x, "conv_stem", 32, 3, 2), "bn1")
    for stage, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES):
        for i in range(blocks):
            x = block(x, f"blocks.{stage}.{i}", kernel, stride if i == 0 else 1, expansion, channels)
    x = norm(conv(x, "conv_head", 1280), "bn2")
    return keras.Model(inputs, x, name="efficientnet_lite0")


def fill(model, tensors):
    """Copies `tensors` (timm's names, layout out-in-height-width) into `model`; every layer with weights has its own."""
    names = {name.rpartition(".")[0] for name in tensors} - {"classifier"}
    for name in names:
        layer = model.get_layer(name.replace(".", "_"))
        if "conv" in name.rpartition(".")[2]:
            depthwise = isinstance(layer, layers.DepthwiseConv2D)
            layer.set_weights([tensors[f"{name}.weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))])
        else:
            layer.set_weights([tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])
    assert len(names) == sum(bool(layer.weights) for layer in model.layers)


weights = Path(sys.argv[1])
model = efficientnet_lite0()
fill(model, load_file(weights))
if len(sys.argv) > 2:
    known = np.load(sys.argv[2])
    difference = np.abs(model.predict(known["photos"], verbose=0) - known["features"]).max()
    print(f"largest difference from timm's features: {difference:.1e} (features reach {known['features'].max():.1f})")
    assert difference < 1e-4
model.save(weights.with_suffix(".keras"))
