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
from rehead.pixels import Preprocess
from rehead.runners import runtime

N_FLOAT = 6  # convolutions: on 300 flowers 95 % the same answers with 6 or 8, 94 % with 3, 89 % with 1, 87 % with none
ACTIVATIONS = ("Clip", "Relu")  # taken into the layer before them
KINDS = ("Conv", *ACTIVATIONS, "Gemm", "MatMul")
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
N_VIEWS = 64  # of the two photographs
NEAREST, FURTHEST = 0.3, 1.0  # side of a view, as a share of a photograph's shorter one


def quantise(graph: Path, quantised: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes the graph at `graph` in 8 bits to `quantised`, with ranges of `pixels` (n, h, w, 3). Raises MissingExtra."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtra("onnx", "head", "Quantising")
    runtime()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _quiet():
        model = onnx.shape_inference.infer_shapes(onnx.load(str(graph)))
        quantize_static(
            model,
            str(quantised),
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


class _Reader:
    """Photos as ONNX Runtime's calibration asks for them, one by one: with four at a time it takes as long and 0.3 GB more."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._parts = iter([pixels[i : i + 1] for i in range(len(pixels))])

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
