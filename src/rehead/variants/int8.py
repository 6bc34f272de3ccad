"""A bundle's graph with 8-bit weights and activations: the network's layers by `exporting/quantise.py`, with ranges of training
photos, and the similarity corrected. The head, probabilities and the distance stay in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle
from rehead.errors import BundleError
from rehead.exporting.quantise import quantise
from rehead.predict import BATCH
from rehead.runners import OnnxRunner, runtime
from rehead.variants.forms import Calibration, Made

N_CALIBRATION = 128  # photos; 256 gave the same agreement on flowers
LEAST_KEPT = 0.1  # less is no rounding any more, and nothing that a factor mends


def to_int8(bundle: Bundle, folder: Path, calibration: Calibration) -> Made:
    """`int8.onnx` in `folder`. Raises MissingExtra, BundleError for a bundle whose network is in 8 bits already."""
    if bundle.facts["backbone"].get("quantized"):
        raise BundleError(
            what=f"The network in {bundle.folder} is in 8 bits already.",
            why="It was tuned with --quantize int8.",
            fix="Use the bundle as it is.",
        )
    pixels = calibration()
    path = folder / "int8.onnx"
    quantise(bundle.model, path, pixels)
    settings: dict[str, Any] = {"calibrated_on": len(pixels), "onnxruntime": str(runtime().__version__)}
    if bundle.unfamiliar_above is not None:
        import onnx

        model = onnx.load(str(path))
        _choice(model.graph)
        kept = similarity_kept(bundle.model, path, pixels)
        correct_similarity(model.graph, kept)
        onnx.save(model, str(path))
        settings["similarity_kept"] = round(kept, 4)
    return Made((path,), settings)


def similarity_kept(original: Path, quantised: Path, pixels: NDArray[np.uint8]) -> float:
    """How much of its similarity to the photos it is like a photo keeps: rounding turns features a little to all sides, so that
    each seems further from all others, by the same share. Fitted by least squares, in 0..1."""
    near = [1 - _distances(OnnxRunner(path, 1), pixels).astype(np.float64) for path in (original, quantised)]
    kept = float(near[0] @ near[1]) / max(float(near[0] @ near[0]), 1e-12)
    return min(max(kept, LEAST_KEPT), 1.0)


def correct_similarity(graph: Any, kept: float) -> None:
    """Gives similarity back before the nearest are chosen, so that "similarity" and "distance", which is 1 less the last of it,
    keep their scale and the bundle's threshold means what it meant. Raises BundleError where what chooses
    them is not found."""
    from onnx import helper, numpy_helper

    place, choice = _choice(graph)
    graph.initializer.append(numpy_helper.from_array(np.array(1 / kept, np.float32), "bank.kept"))
    graph.node.insert(place, helper.make_node("Mul", [choice.input[0], "bank.kept"], ["bank.corrected"]))
    graph.node[place + 1].input[0] = "bank.corrected"


def _choice(graph: Any) -> tuple[int, Any]:
    """What chooses the nearest, and its place among the nodes: it makes "similarity"; older graphs of rehead name its k."""
    for i, node in enumerate(graph.node):
        if node.op_type == "TopK" and ("similarity" in node.output or "bank.k" in node.input):
            return i, node
    raise BundleError(
        what="The bundle's graph cannot be put into 8 bits.",
        why='No TopK makes its "similarity", so how far photos lie from those it knows could not be corrected.',
        fix="Use another form: --to openvino, or --to torch.",
    )


def _distances(runner: OnnxRunner, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.concatenate([runner.run(["distance"], pixels[i : i + BATCH])[0] for i in range(0, len(pixels), BATCH)])
