"""What runs a frozen prefix: one protocol, one literal dict. No torch here.

An engine takes pixels and gives pooled features. It says how many threads may call it at once and how many photos it
wants a call, so that `extract.py` can keep every core busy with decoding and running alike. Whether an engine may be
used is decided by comparison with the reference on real photos (`agree`), not by trust.
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

from rehead.errors import BackboneError, EngineError, MissingExtra
from rehead.heap import hand_back
from rehead.nets.card import Card, read_agreement, write_agreement
from rehead.parallel import n_cores
from rehead.runners import open_session, runtime

CPU_BATCH = (
    4  # photos a call: ONNX Runtime is no faster with 8 on any of four networks, and takes half as much memory again
)
MAX_WORKERS = 16  # calls at once: each holds a batch's activations
IN_BFLOAT16 = "openvino-bf16"
MOST_OFF = {"fp32": 1e-3, "bf16": 6e-2}  # largest difference from the reference, relative to the largest feature
# Mean cosine of features with those in float32, and of any photo: where all layers round, single numbers differ by a fifth.
LEAST_KEPT = {IN_BFLOAT16: (0.98, 0.9), "int8": (0.95, 0.0)}
DIRECTION = "direction kept"


class Engine(Protocol):
    """Laws: a photo's features do not depend on the photos beside it nor on their number, and are the same every time;
    `workers` threads may call at once; they agree with the reference, as `_agreement` says."""

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


def open_engine(
    prefix: Prefix, name: str, device: str, pixels: Callable[[], NDArray[np.uint8]], opened: Open | None = None
) -> Engine:
    """The engine `name`, after it was compared with the reference on `pixels()` (n, h, w, 3), once for each version.

    opened: opens it elsewhere, where another machine has the device.
    How far they agree is recorded beside the prefix. A prefix in 8 bits is compared with the one in float32 besides, by the
    direction of its features. Raises EngineError when they do not agree, BackboneError when the network gives no numbers.
    """
    engine = (opened or ENGINES[name])(prefix, device)
    key = f"{engine.name} {engine.version} {device} {engine.precision}"
    measured = read_agreement(prefix.folder)
    is_known = key in measured and (prefix.original is None or DIRECTION in measured)
    if is_known:
        return engine
    seen = pixels()
    write_agreement(prefix.folder, key, _agreement(prefix, engine, (name, device), seen))
    if prefix.original is not None:
        kept = float(_directions_kept(engine, OnnxEngine(prefix.original, "cpu"), seen).mean())
        if not kept >= LEAST_KEPT["int8"][0]:
            raise _too_coarse(prefix.card, kept)
        write_agreement(prefix.folder, DIRECTION, kept)
    hand_back()  # what the reference took
    return engine


def _agreement(prefix: Prefix, engine: Engine, asked: tuple[str, str], pixels: NDArray[np.uint8]) -> float:
    """How far the engine that was asked for and the reference agree: their largest difference, or the mean cosine."""
    is_reference = asked == (prefix.reference, "cpu")
    reference = engine if is_reference else ENGINES[prefix.reference](prefix, "cpu")
    check_numbers(prefix.card, reference(pixels[: reference.batch]))
    if engine.precision in LEAST_KEPT:
        kept, least = _directions_kept(engine, reference, pixels), LEAST_KEPT[engine.precision]
        if not (kept.mean() >= least[0] and kept.min() >= least[1]):
            said = f"Their features have a mean cosine of {kept.mean():.3f}, of one photo {kept.min():.3f}; "
            raise _disagrees(engine.name, said + f"{least[0]:g} and {least[1]:g} are wanted.")
        return float(kept.mean())
    measured = difference(engine, reference, pixels)
    if not measured <= MOST_OFF[engine.precision]:
        said = f"The largest difference is {measured:.2g} of the largest feature; {MOST_OFF[engine.precision]:g} is allowed."
        raise _disagrees(engine.name, said)
    return measured


def direction_kept(prefix: Prefix) -> float | None:
    """The mean cosine between features in 8 bits and in float32 of the same photos; None where it was not measured yet."""
    return read_agreement(prefix.folder).get(DIRECTION)


def _directions_kept(engine: Engine, original: Engine, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The cosine of each photo's features, (n,)."""
    size = min(engine.batch, original.batch)
    parts = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    ours, wanted = (
        np.concatenate([run(part) for part in parts]).reshape(len(pixels), -1) for run in (engine, original)
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = (ours * wanted).sum(axis=1) / np.maximum(lengths, 1e-12)
    has_direction = np.any(ours, axis=1) | np.any(wanted, axis=1)
    return np.where(has_direction, cosines, 1)


def _too_coarse(card: Card, kept: float) -> EngineError:
    return EngineError(
        what=f"The network {card.name} cannot be computed in 8 bits: its features would be others.",
        why=f"Their mean cosine with those in float32 is {kept:.2f} on these photos; {LEAST_KEPT['int8'][0]:g} is wanted.",
        fix="Leave --quantize out.",
    )


def check_numbers(card: Card, features: NDArray[np.float32]) -> None:
    """Raises BackboneError when features hold what is no number: then no engine can be compared, nor a head solved."""
    if not np.isfinite(features).all():
        raise BackboneError(
            what=f"What the backbone {card.name} gives for these photos is no numbers (NaN or infinite).",
            why=f"Its weights are of: {card.origin}.",
            fix="The weights file is likely damaged: copy or download it again, or name another with --weights FILE.",
        )


def difference(engine: Engine, reference: Engine, pixels: NDArray[np.uint8]) -> float:
    """The largest difference between two engines' features of the same pixels, relative to the largest feature."""
    pixels = pixels[: min(engine.batch, reference.batch)]
    got, wanted = engine(pixels), reference(pixels)
    return float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def _disagrees(name: str, why: str) -> EngineError:
    return EngineError(
        what=f"The engine {name} does not agree with the reference on these photos.",
        why=why,
        fix="Run with --engine torch." if name == "onnxruntime" else "Run with --device cpu and no --engine.",
    )


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
