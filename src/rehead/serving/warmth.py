"""Where a model looks, as a small transparent picture that is laid over the photo."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.heat import CAM, GRAD_CAM, activation, shares
from rehead.pixels import Preprocess, crop_box, opened, upright_size
from rehead.prediction import Prediction
from rehead.serving.models import Loaded

SIDE = 56  # pixels of the longer side, 4 kB: a map has about seven places a side, and browsers smooth between pixels
# Four of matplotlib's "inferno" from dark to bright, so that it looks as `rehead explain` draws it.
COLOURS = np.array([(0, 0, 4), (120, 28, 109), (237, 105, 37), (252, 255, 164)], np.float32)
OPACITY = 0.65  # of the strongest place, as in heat.py


def explained(loaded: Loaded, data: bytes, pixels: NDArray[np.uint8], said: Prediction) -> dict[str, Any]:
    """What speaks for the class that was named. box: the part of the upright picture that the image covers, left, top, right
    and bottom as shares of its width and height, beyond 0..1 where the network sees bars beside it."""
    if loaded.head is None:
        return {"error": _why_none(loaded)}
    target = loaded.model.classes.index(said.label)
    values = activation(loaded.head, loaded.model.map(pixels[None])[0], target)
    return {
        "label": said.label,
        "method": CAM if len(loaded.head.layers) == 1 else GRAD_CAM,
        "image": f"data:image/png;base64,{base64.b64encode(_png(values, loaded.preprocess)).decode()}",
        "box": _box(data, loaded.preprocess),
    }


def _why_none(loaded: Loaded) -> str:
    """Why a bundle has no such map."""
    if loaded.model.task == "regression":
        return "this bundle gives a number, and no class whose places could be shown"
    return "this bundle gives no map: its features are not the mean of one"


def _png(values: NDArray[np.float32], preprocess: Preprocess) -> bytes:
    """values: (rows, columns). An RGBA picture of the network's proportions, transparent where nothing speaks for the class."""
    scale = SIDE / max(preprocess.height, preprocess.width)
    size = max(1, round(preprocess.width * scale)), max(1, round(preprocess.height * scale))
    strength = np.asarray(Image.fromarray(shares(values)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(strength, stops, COLOURS[:, i]) for i in range(3)] + [255 * OPACITY * strength]
    with io.BytesIO() as file:
        Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


def _box(data: bytes, preprocess: Preprocess) -> list[float]:
    with opened(data) as image:
        width, height = upright_size(image)
    if preprocess.fit == "crop":
        left, top, right, bottom = crop_box((width, height), preprocess)
    elif preprocess.fit == "squash":
        left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    else:
        scale = min(preprocess.width / width, preprocess.height / height)
        w, h = preprocess.width / scale, preprocess.height / scale
        left, top, right, bottom = (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2
    return [left / width, top / height, right / width, bottom / height]
