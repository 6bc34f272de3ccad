"""A bundle's graph with 8-bit weights and activations, by ONNX Runtime's static quantisation.

Convolutions and dense layers of the network compute in 8 bits; the first six convolutions, the head, probabilities and the
distance stay in float32. Ranges are the least and greatest value that training photos show. Weights use 7 of
their 8 bits: without VNNI a CPU adds products of 8 bits in 16, which would overflow (flowers: 78 % instead of 87 % the
same answers).
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

from rehead.bundle import Bundle
from rehead.errors import MissingExtra
from rehead.predict import BATCH
from rehead.runners import OnnxRunner, runtime
from rehead.variants.forms import Calibration, Made

N_CALIBRATION = 128  # photos; 256 gave the same agreement on flowers
LEAST_KEPT = 0.1  # less is no rounding any more, and nothing that a factor mends
N_FLOAT = 6  # convolutions: on 300 flowers 95 % the same answers with 6 or 8, 94 % with 3, 89 % with 1, 87 % with none
ACTIVATIONS = ("Clip", "Relu")  # taken into the layer before them
KINDS = ("Conv", *ACTIVATIONS, "Gemm", "MatMul")


def to_int8(bundle: Bundle, folder: Path, calibration: Calibration) -> Made:
    """`int8.onnx` in `folder`. Raises MissingExtra."""
    for library in ("onnx", "sympy"):  # the second by ONNX Runtime's tools; it comes with torch
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, "tune", "Exporting to onnx-int8")
    runtime()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    pixels = calibration()
    path, prepared = folder / "int8.onnx", folder / "prepared.onnx"
    with _quiet():
        # its optimiser would write out what is kept as float16 as float32, and folds nothing that the exporter did not
        quant_pre_process(str(bundle.model), str(prepared), skip_optimization=True)
        model = onnx.load(str(prepared))
        prepared.unlink()
        quantize_static(
            model,
            str(path),
            _Reader(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=in_float(model.graph),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
        )
    settings: dict[str, Any] = {"calibrated_on": len(pixels), "onnxruntime": str(runtime().__version__)}
    if bundle.unfamiliar_above is not None:
        kept = similarity_kept(bundle.model, path, pixels)
        model = onnx.load(str(path))
        correct_distance(model.graph, kept)
        onnx.save(model, str(path))
        settings["similarity_kept"] = round(kept, 4)
    return Made((path,), settings)


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


def similarity_kept(original: Path, quantised: Path, pixels: NDArray[np.uint8]) -> float:
    """How much of its similarity to the photos it is like a photo keeps: rounding turns features a little to all sides, so that
    each seems further from all others, by the same share. Fitted by least squares, in 0..1."""
    near = [1 - _distances(OnnxRunner(path, 1), pixels).astype(np.float64) for path in (original, quantised)]
    kept = float(near[0] @ near[1]) / max(float(near[0] @ near[0]), 1e-12)
    return min(max(kept, LEAST_KEPT), 1.0)


def correct_distance(graph: Any, kept: float) -> None:
    """Gives the similarity back in the output "distance", so that the bundle's threshold means what it meant."""
    from onnx import helper, numpy_helper

    maker = next(node for node in graph.node if "distance" in node.output)
    maker.output[list(maker.output).index("distance")] = "distance.rounded"
    constants = {"distance.scale": 1 / kept, "distance.shift": 1 - 1 / kept}
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.float32), name) for name, v in constants.items())
    graph.node.extend(
        [
            helper.make_node("Mul", ["distance.rounded", "distance.scale"], ["distance.scaled"]),
            helper.make_node("Add", ["distance.scaled", "distance.shift"], ["distance"]),
        ]
    )


def _distances(runner: OnnxRunner, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.concatenate([runner.run(["distance"], pixels[i : i + BATCH])[0] for i in range(0, len(pixels), BATCH)])


class _Reader:
    """Photos as ONNX Runtime's calibration asks for them."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._parts = iter([pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        part = next(self._parts, None)
        return None if part is None else {"pixels": part}


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
