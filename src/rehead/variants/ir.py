"""OpenVINO's form of a bundle: its intermediate representation, `openvino.xml` and `openvino.bin`."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path

from rehead.bundle import Bundle
from rehead.errors import BundleError, MissingExtra
from rehead.variants.forms import Calibration, Made


def to_openvino(bundle: Bundle, folder: Path, _: Calibration) -> Made:
    """Read by OpenVINO's own ONNX frontend, all outputs kept, weights as float32: as float16 they take two thirds
    of the room and move a probability by up to 0.015 (flowers).

    Its `convert_model` is this frontend behind a program that reports its use to its maker, so it is not called.
    Raises MissingExtra, BundleError for a graph that OpenVINO does not read.
    """
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtra("openvino", "openvino", "Exporting to openvino")
    import openvino

    path = folder / "openvino.xml"
    try:
        openvino.save_model(openvino.Core().read_model(bundle.model), path, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error  # all it says of a full disk
        raise BundleError(
            what="OpenVINO cannot take this network.",
            why=str(error).strip().split("\n")[-1],
            fix="Use another form: --to torch, or --to onnx-int8.",
        ) from error
    return Made((path, path.with_suffix(".bin")), {"openvino": str(openvino.__version__).split("-")[0]})
