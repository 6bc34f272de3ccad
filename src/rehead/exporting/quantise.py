"""A graph with 8-bit weights and activations, by ONNX Runtime's static quantisation.

Convolutions and dense layers of the network compute in 8 bits; the first six convolutions and all behind the features stay
in float32. Ranges are the least and greatest value that photos show. Weights use 7 of their 8 bits: without VNNI a
CPU adds products of 8 bits in 16, which would overflow (flowers: 78 % instead of 87 % the same answers).

A frozen network is quantised before its features are computed, so that a head is learned on, and judged by, what the
8-bit network gives. Its ranges come from two photographs that scikit-learn brings, cut in many ways, so that they are the same
whatever photos a job has: three folders of photos gave features no nearer to float32 when their own photos were taken.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehead.errors import MissingExtra
from rehead.parallel import n_cores
from rehead.pixels import Preprocess
from rehead.runners import open_session, runtime

N_FLOAT = 6  # convolutions: on 300 flowers 95 % the same answers with 6 or 8, 94 % with 3, 89 % with 1, 87 % with none
ACTIVATIONS = ("Clip", "Relu")  # taken into the layer before them
KINDS = ("Conv", *ACTIVATIONS, "Gemm", "MatMul")
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
N_STEPS = 64  # to either side of zero, of 7 bits
# Views of the two photographs: with 8, 32 or 64, features of 720 photos of three folders were no nearer to float32.
N_VIEWS = 16
NEAREST, FURTHEST = 0.3, 1.0  # side of a view, as a share of a photograph's shorter one


def quantise(graph: Path, quantised: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes the float32 graph at `graph` in 8 bits to `quantised`, with ranges of `pixels` (n, h, w, 3). Raises
    MissingExtra."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtra("onnx", "head", "Quantising")
    runtime()
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    with _quiet():
        model = onnx.shape_inference.infer_shapes(onnx.load(str(graph)))
        kept = in_float(model.graph)
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=_ranges(model, kept, pixels),
            nodes_to_quantize=[],
            nodes_to_exclude=kept,
            op_types_to_quantize=list(KINDS),
            extra_options={"TensorQuantOverrides": _scales(model.graph, kept)},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(quantised), False)


def in_float(graph: Any) -> list[str]:
    """The names of the nodes that stay in float32: the first N_FLOAT convolutions with their activations, and all that follows
    the features. Nodes without a name are given one."""
    behind, early, names = {"features"}, set[str](), list[str]()
    n_convolutions = 0
    for i, node in enumerate(graph.node):
        node.name = node.name or f"node_{i}"
        n_convolutions += node.op_type == "Conv"
        if behind.intersection(node.input):
            behind.update(node.output)
            names.append(node.name)
        elif node.op_type == "Conv" and n_convolutions <= N_FLOAT:
            early.update(node.output)
            names.append(node.name)
        elif node.op_type in ACTIVATIONS and early.intersection(node.input):
            names.append(node.name)
    return names


def _ranges(model: Any, kept: list[str], pixels: NDArray[np.uint8]) -> Any:
    """The least and greatest value of each tensor at a layer that is to be in 8 bits, as ONNX Runtime's `TensorsData`.

    ONNX Runtime's own calibration runs the graph without fusing its layers, in three times the time.
    """
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    constants = {tensor.name for tensor in model.graph.initializer}
    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in constants
    }
    layers = [node for node in model.graph.node if node.op_type in KINDS and node.name not in kept]
    names = list(dict.fromkeys(name for node in layers for name in (*node.input, *node.output) if name in floats))
    if not names:  # all layers stay in float32
        return TensorsData(CalibrationMethod.MinMax, {})
    session = open_session(_watched(model, names), n_cores())
    asked = [end for name in names for end in _ends(name)]
    values = np.array([session.run(asked, {"pixels": pixels[i : i + 1]}) for i in range(len(pixels))], np.float32)
    least, greatest = values[:, ::2].min(axis=0), values[:, 1::2].max(axis=0)
    return TensorsData(CalibrationMethod.MinMax, dict(zip(names, zip(least, greatest, strict=True), strict=True)))


def _watched(model: Any, names: list[str]) -> bytes:
    """The graph, with the least and greatest value of each of these tensors as outputs."""
    import onnx
    from onnx import helper

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in names:
        for kind, end in zip(("ReduceMin", "ReduceMax"), _ends(name), strict=True):
            watched.graph.node.append(helper.make_node(kind, [name], [end], keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, []))
    return bytes(watched.SerializeToString())


def _ends(name: str) -> tuple[str, str]:
    return f"{name}.least", f"{name}.greatest"


def _scales(graph: Any, kept: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The scale of each output channel of each convolution in 8 bits. ONNX Runtime finds the same, one channel at a time."""
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType

    weights = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.name not in kept and node.input[1] in weights:
            values = numpy_helper.to_array(weights[node.input[1]])
            scales = np.abs(values).max(axis=tuple(range(1, values.ndim))).astype(np.float32) / np.float32(N_STEPS)
            scales[scales < np.finfo(np.float32).tiny] = 1
            found[node.input[1]] = [
                {"axis": 0, "scale": scale, "zero_point": 0, "quant_type": QuantType.QInt8} for scale in scales
            ]
    return found


def views(preprocess: Preprocess, n: int = N_VIEWS) -> NDArray[np.uint8]:
    """(n, h, w, 3): squares of two photographs, a temple and a flower, near and far, some of them mirrored; always the same."""
    photographs = _photographs()
    dice, found = np.random.default_rng(0), []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        side = int(dice.uniform(NEAREST, FURTHEST) * min(photograph.size))
        left, top = (int(dice.integers(0, length - side + 1)) for length in photograph.size)
        view = photograph.resize(
            (preprocess.width, preprocess.height),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        pixels = np.asarray(view)
        found.append(pixels[:, ::-1] if dice.random() < 0.5 else pixels)
    return np.stack(found)


def _photographs() -> list[Image.Image]:
    """The two of `sklearn.datasets.load_sample_images`, from their files: importing scikit-learn takes over a second."""
    sklearn = importlib.util.find_spec("sklearn")
    if sklearn is None or not sklearn.submodule_search_locations:
        raise MissingExtra("sklearn", "head", "Quantising")
    found = Path(sklearn.submodule_search_locations[0]) / "datasets" / "images"
    photographs = []
    for name in PHOTOGRAPHS:
        with Image.open(found / name) as photograph:
            photographs.append(photograph.convert("RGB"))
    return photographs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools talk on standard output, where --json promises nothing but JSON, and to the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(before)
