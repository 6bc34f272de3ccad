"""Bundles that load in milliseconds: a picture's mean colour decides, and its map is the picture itself, in a few places."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from rehead.bundle import Head, write

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = 16  # pixels a side
PLACES = 4  # of the map, a side


def bundle(folder: Path, classes: Sequence[str] = ("red", "green", "blue"), scale: float = 8.0) -> Path:
    """A bundle that names the strongest channel, surer with a larger scale; written to `folder` as rehead writes one."""
    facts = json.loads((GOLDEN / "bundle-3" / "rehead.json").read_text())
    about = {key: value for key, value in facts.items() if key not in ("format", "head", "files")}
    about |= {"classes": list(classes), "calibration": None, "unsure": None, "unfamiliar": None}
    weight, bias = np.eye(3, dtype=np.float32) * np.float32(scale), np.zeros(3, np.float32)
    head = Head("linear", ((weight, bias),))
    write(folder, model=_graph(weight, bias), head=head, card="# little", facts=about)
    return folder


def _graph(weight: np.ndarray, bias: np.ndarray) -> bytes:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "most"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["first"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = {"most": np.float32(255), "weight": weight, "bias": bias}
    shapes = {"map": ["n", 3, PLACES, PLACES], "features": ["n", 3], "logits": ["n", 3], "probabilities": ["n", 3]}
    graph = helper.make_graph(
        nodes,
        "little",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def picture(
    colour: tuple[int, int, int] = (200, 60, 60), form: str = "PNG", size: int = 32, **options: object
) -> bytes:
    """One colour, as an encoded file."""
    with io.BytesIO() as file:
        Image.new("RGB", (size, size), colour).save(file, form, **options)
        return file.getvalue()


def heavy(megapixels: float) -> bytes:
    """A few kilobytes that take long to decode."""
    side = int(megapixels**0.5 * 1000)
    with io.BytesIO() as file:
        Image.new("L", (side, side), 7).save(file, "PNG")
        return file.getvalue()
