"""What runs a frozen prefix: one protocol, one literal dict. No torch here.

An engine takes pixels and gives pooled features. It says how many threads may call it at once and how many photos it
wants a call, so that `extract.py` can keep every core busy with decoding and running alike. Whether one may be used is
decided in `compared.py`.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rehead.errors import EngineError, MissingExtra
from rehead.nets.card import Card
from rehead.parallel import n_cores
from rehead.runners import open_session, runtime

CPU_BATCH = (
    4  # photos a call: ONNX Runtime is no faster with 8 on any of four networks, and takes half as much memory again
)
MAX_WORKERS = 16  # calls at once: each holds a batch's activations
IN_BFLOAT16 = "openvino-bf16"


class Engine(Protocol):
    """Laws: a photo's features do not depend on the photos beside it nor on their number, and are the same every time;
    `workers` threads may call at once; they agree with the reference, see `compared.py`."""

    name: str
    version: str
    precision: str
    workers: int
    batch: int

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (n, width) of pixels (n, h, w, 3), 1 <= n <= batch."""


@dataclass(frozen=True)
class Prefix:
    """A prefix ready for any engine: its card, its graph as ONNX, and a way to the network itself (which loads torch), None
    where there is no more than a graph. reference: the engine that others are compared with. original: of a prefix in 8 bits,
    the one in float32."""

    card: Card
    folder: Path
    network: Callable[[], Any] | None
    reference: Literal["torch", "onnxruntime"] = "torch"
    original: Prefix | None = None

    @property
    def onnx(self) -> Path:
        """The graph: "pixels" (n, h, w, 3) uint8 -> "features" (n, width) float32."""
        return self.folder / "prefix.onnx"


class OnnxEngine:
    """ONNX Runtime on CPU: each thread runs a whole batch by itself, which leaves no core waiting for another."""

    name = "onnxruntime"
    precision = "fp32"
    batch = CPU_BATCH

    def __init__(self, prefix: Prefix, device: str, cores: int | None = None) -> None:
        check_engine(self.name, device)
        self.version = str(runtime().__version__)
        cores = cores or n_cores()
        self.workers = min(cores, MAX_WORKERS)
        self._session = open_session(prefix.onnx, threads=max(1, cores // self.workers))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self._session.run(["features"], {"pixels": _filled(pixels, self.batch)})[0][: len(pixels)])


class OpenVinoEngine:
    """OpenVINO on CPU, from the same graph."""

    name = "openvino"
    precision = "fp32"
    kind = "f32"  # as OpenVINO calls it
    batch = CPU_BATCH

    def __init__(self, prefix: Prefix, device: str, cores: int | None = None) -> None:
        check_engine(self.name, device)
        import openvino

        self.version = str(openvino.__version__).split("-")[0]
        cores = cores or n_cores()
        self.workers = min(cores, MAX_WORKERS)
        core = openvino.Core()
        hints = {"INFERENCE_PRECISION_HINT": self.kind, "NUM_STREAMS": self.workers, "INFERENCE_NUM_THREADS": cores}
        self._compiled = core.compile_model(core.read_model(prefix.onnx), "CPU", hints)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = self._compiled.create_infer_request()
        return np.array(request.infer({0: _filled(pixels, self.batch)})[0][: len(pixels)])


class OpenVinoInBfloat16(OpenVinoEngine):
    """The same in bfloat16, which takes half to two thirds of the time on a CPU that multiplies in that itself."""

    name = precision = IN_BFLOAT16  # whose features are its own: PyTorch's on CUDA are rounded elsewhere
    kind = "bf16"

    def __init__(self, prefix: Prefix, device: str, cores: int | None = None) -> None:
        if prefix.card.quantized is not None:
            raise EngineError(
                what=f"The network {prefix.card.name} is in 8 bits already, which {self.name} would round once more.",
                fix="Leave --engine out.",
            )
        super().__init__(prefix, device, cores)


def open_torch(prefix: Prefix, device: str, cores: int | None = None) -> Engine:
    """PyTorch: the reference, and the GPU's, on as many cores as it likes."""
    from rehead.features.torch_engine import TorchEngine

    del cores
    return TorchEngine(prefix, device)


class Open(Protocol):
    """Opens an engine: a prefix on a device, by as many cores of the CPU, by default all that this process may use."""

    def __call__(self, prefix: Prefix, device: str, cores: int | None = None) -> Engine: ...


ENGINES: dict[str, Open] = {
    "onnxruntime": OnnxEngine,
    "openvino": OpenVinoEngine,
    IN_BFLOAT16: OpenVinoInBfloat16,
    "torch": open_torch,
}


def precision_of(name: str, device: str) -> str:
    """The precision an engine computes in on a device, without opening it."""
    if name == IN_BFLOAT16:
        return IN_BFLOAT16
    return "bf16" if name == "torch" and device == "cuda" else "fp32"


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16 itself, by what Linux tells of it: this must not load PyTorch."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False


def resolve(name: str, device: str) -> tuple[str, str]:
    """The engine and device that "auto" stands for: PyTorch on CUDA where there is one, else ONNX Runtime on the CPU."""
    if device == "auto":
        device = "cuda" if _has_nvidia() and name in ("auto", "torch") else "cpu"
    if name == "auto":
        name = "onnxruntime" if device == "cpu" else "torch"
    return name, device


def check_engine(name: str, device: str) -> None:
    """Raises EngineError or MissingExtra for an engine or a device that is not here; nothing is opened."""
    name, device = resolve(name, device)
    if device != "cpu" and name != "torch":
        raise EngineError(
            what=f"The engine {name} runs on the CPU here, not on {device}.",
            fix="Leave --engine out, or pass --engine torch.",
        )
    for library, extra in (("openvino", "openvino"), ("torch", "tune")):
        if name.split("-")[0] == library and importlib.util.find_spec(library) is None:
            raise MissingExtra(library, extra, f"The engine {name}")
    if name == IN_BFLOAT16 and not has_bfloat16():
        raise EngineError(
            what=f"The CPU here does not multiply in bfloat16 itself, as --engine {name} needs.",
            why="Linux names no avx512_bf16 among what it can do.",
            fix="Leave --engine out; where a run began with it, pass --engine onnxruntime: its features are computed anew.",
        )
    if device == "cpu":
        return
    from rehead.features.torch_engine import check_device

    check_device(device)


def _filled(pixels: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """Always `n` photos, the last one repeated: kernels chosen by batch size would change the last bits of a feature."""
    short = n - len(pixels)
    return np.concatenate([pixels, np.repeat(pixels[-1:], short, axis=0)]) if short > 0 else pixels


def _has_nvidia() -> bool:
    """Whether it is worth asking PyTorch for a CUDA device; asking takes seconds."""
    if importlib.util.find_spec("torch") is None:
        return False
    if not (Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi")):
        return False
    from rehead.features.torch_engine import best_device

    return best_device() == "cuda"
