"""What runs a bundle's graph, or a variant of it: one protocol, and a literal dict by the kind of file.

No torch, unless it is torch's file. Photos, classes and thresholds are left to `predict.py`; making variants to `variants/`.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle
from rehead.errors import BundleError, MissingExtra, nearest

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


class Runner(Protocol):
    """Laws: the outputs are those of `docs/bundle.md`, whatever runs them; any n from 1 on; a photo's row does not depend on
    the photos beside it; any number of threads may call at once; what was returned stays as it is.

    size: (height, width) of the pixels that it takes. widths: by output, its last dimension, no number where that is free.
    """

    @property
    def size(self) -> Sequence[Any]: ...
    @property
    def widths(self) -> Mapping[str, Any]: ...

    def run(self, names: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The outputs called `names` for pixels (n, h, w, 3)."""


class OnnxRunner:
    """ONNX Runtime on CPU: each thread runs a call by itself."""

    def __init__(self, path: Path, workers: int) -> None:
        del workers
        self._session = open_session(path)
        self.size = self._session.get_inputs()[0].shape[1:3]
        self.widths = {output.name: output.shape[-1] for output in self._session.get_outputs()}

    def run(self, names: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        return list(self._session.run(list(names), {"pixels": pixels}))


class OpenVinoRunner:
    """OpenVINO on CPU, in float32 whatever the weights are kept as: each of `workers` streams runs a call by itself."""

    def __init__(self, path: Path, workers: int) -> None:
        _check_installed("openvino", "openvino", "A variant for OpenVINO")
        import openvino

        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # a mapped file that is overwritten while it is used ends the process
        hints = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers}
        model = core.read_model(path)
        self._compiled = core.compile_model(model, "CPU", hints)
        self.size = [_length(one) for one in list(model.input(0).partial_shape)[1:3]]
        self._place = {output.any_name: i for i, output in enumerate(model.outputs)}
        self.widths = {output.any_name: _length(list(output.partial_shape)[-1]) for output in model.outputs}

    def run(self, names: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        found = self._compiled.create_infer_request().infer({0: pixels})
        return [np.array(found[self._place[name]]) for name in names]


class TorchRunner:
    """PyTorch on CPU: a call at a time, on all of PyTorch's threads, while other threads decode."""

    def __init__(self, path: Path, workers: int) -> None:
        del workers
        _check_installed("torch", "tune", "A variant for PyTorch")
        from rehead.exported_programs import open_program

        self._call, self.size, self.widths = open_program(path)
        self._lock = threading.Lock()

    def run(self, names: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        with self._lock:
            found = self._call(pixels)
        return [found[name] for name in names]


RUNNERS: dict[str, Callable[[Path, int], Runner]] = {
    ".onnx": OnnxRunner,
    ".xml": OpenVinoRunner,
    ".pt2": TorchRunner,
}


def open_runner(bundle: Bundle, variant: str | None, workers: int) -> Runner:
    """What runs the bundle's graph, or the variant of that name. workers: threads that call at once.

    Raises BundleError where there is no such variant or it cannot be run, MissingExtra where its library is not installed.
    """
    path = bundle.model
    if variant is not None:
        if variant in bundle.lost:
            raise bundle.lost[variant]
        if variant not in bundle.variants:
            raise _no_variant(bundle, variant)
        path = bundle.variants[variant].files[0]
    if path.suffix not in RUNNERS:
        raise BundleError(
            what=f"{path} is of a kind that this rehead cannot run.",
            fix="Update with: pip install --upgrade rehead",
        )
    try:
        return RUNNERS[path.suffix](path, workers)
    except (MissingExtra, BundleError):
        raise
    except Exception as error:  # ONNX Runtime's own exceptions, and OpenVINO's, share no base but Exception
        raise BundleError(what=f"{path} cannot be run.", why=str(error).split("\n")[0]) from error


def runtime() -> Any:
    """ONNX Runtime, told on its first import to send nothing home: else it writes a device's identity into the user's cache."""
    said = os.environ.get(NO_TELEMETRY)
    os.environ[NO_TELEMETRY] = "1"
    try:
        import onnxruntime
    finally:
        if said is None:
            del os.environ[NO_TELEMETRY]
        else:
            os.environ[NO_TELEMETRY] = said
    return onnxruntime


def open_session(graph: Path | bytes, threads: int = 1) -> Any:
    """An ONNX Runtime session on CPU; `threads` work on one call, and any number of calls may run at once."""
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; warnings about unused initialisers tell a user nothing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the core to decoding
    model = graph if isinstance(graph, bytes) else _openable(graph)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _openable(path: Path) -> str | bytes:
    """The name of the file, or what it holds: ONNX Runtime opens no file whose name is not UTF-8."""
    name = str(path)
    return name if name.encode("utf-8", "replace").decode() == name else path.read_bytes()


def _no_variant(bundle: Bundle, variant: str) -> BundleError:
    names = list(bundle.variants)
    return BundleError(
        what=f"The bundle {bundle.folder} has no variant {variant!r}.",
        why=f"It has: {', '.join(names)}." if names else "It has none but its own graph.",
        fix=nearest(variant, names) or f"Make one with: rehead export {bundle.folder} --to onnx-int8",
    )


def _check_installed(library: str, extra: str, purpose: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise MissingExtra(library, extra, purpose)


def _length(dimension: Any) -> int | None:
    return int(dimension.get_length()) if dimension.is_static else None
