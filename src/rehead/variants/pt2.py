"""`torch.export`'s form of a bundle: its graph as a PyTorch program, `.pt2`. Needs PyTorch here and where it runs."""

from __future__ import annotations

import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

from rehead.bundle import Bundle
from rehead.errors import BundleError, MissingExtra
from rehead.variants.forms import Calibration, Made

MAX_BATCH = 4096  # photos a call: a bound that torch.export asks for


def to_torch(bundle: Bundle, folder: Path, _: Calibration) -> Made:
    """`torch.pt2` in `folder`: pixels uint8 (n, h, w, 3) -> a dict of the graph's outputs, any n up to MAX_BATCH.

    Raises MissingExtra, BundleError where the graph holds what cannot be converted.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("torch", "tune", "Exporting to torch")
    if bundle.facts["backbone"].get("quantized"):
        raise BundleError(
            what=f"The network in {bundle.folder} is in 8 bits, which cannot be converted to PyTorch.",
            why="It was tuned with --quantize int8.",
            fix="Use the bundle as it is, or convert it with: --to openvino",
        )
    import torch

    from rehead.variants.onnx_in_torch import TorchGraph

    size = bundle.preprocess.height, bundle.preprocess.width
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    free = torch.export.Dim("n", min=1, max=MAX_BATCH)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's own parts about each other
            program = torch.export.export(TorchGraph(bundle.model).eval(), (example,), dynamic_shapes=({0: free},))
    except BundleError:
        raise
    except Exception as error:  # its errors share no base but Exception
        raise BundleError(
            what="torch.export cannot take this network.",
            why=str(error).split("\n")[0],
            fix="Use another form: --to openvino, or --to onnx-int8.",
        ) from error
    _forget_sources(program)
    path = folder / "torch.pt2"
    data = io.BytesIO()  # PyTorch's own writer ends the process where the disk is full
    torch.export.save(program, data)
    path.write_bytes(data.getbuffer())
    return Made((path,), {"torch": str(torch.__version__)})


def _forget_sources(program: Any) -> None:
    """Where each node came from: lines of files of this machine, which are nobody else's business."""
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node"):
            node.meta.pop(name, None)
