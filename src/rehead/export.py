"""Network + head + Preprocess -> ONNX, compared, into a bundle.

The prefix is traced once by PyTorch and kept in the cache. A head is put behind it without PyTorch, so a second job with
another head needs none. What is written is loaded back and compared with what was tuned before it is handed over.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle, Familiar, Head, Task, sigmoid, softmax
from rehead.durable import FULL, write_bytes, write_text
from rehead.errors import Defect
from rehead.features.engines import Prefix
from rehead.features.room import disk_full
from rehead.nets.card import architecture_of, card_folder, card_key, find_card, locate
from rehead.parallel import ordered_map
from rehead.pixels import Preprocess
from rehead.predict import BATCH, Model
from rehead.progress import Progress

if TYPE_CHECKING:
    import torch

    from rehead.nets.backbone import Backbone

OPSET = 17  # the newest that PyTorch's tracing exporter writes; every runtime of the last three years reads it
BYTES_A_NUMBER = 4
MAX_DIFFERENCE = 1e-4  # between a probability of the bundle and of the model that was tuned


def export_prefix(prefix: torch.nn.Module, preprocess: Preprocess, path: Path) -> None:
    """The prefix as an ONNX graph at `path`: "pixels" (n, h, w, 3) uint8 -> "features" (n, width) float32, any n.

    The tracing exporter is used: it takes a tenth of the time of the one built on torch.export and writes the same
    convolutions. Raises what the exporter raises for networks it cannot trace.
    """
    import torch

    class FromPixels(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.prefix = prefix
            self.register_buffer("mean", torch.tensor(preprocess.mean).reshape(1, 3, 1, 1) * 255)
            self.register_buffer("std", torch.tensor(preprocess.std).reshape(1, 3, 1, 1) * 255)

        def forward(self, pixels: torch.Tensor) -> Any:
            return self.prefix((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)

    example = torch.zeros(2, preprocess.height, preprocess.width, 3, dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns of its own age and of constants it traces
        torch.onnx.export(
            FromPixels().eval(),
            (example,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_axes={"pixels": {0: "n"}, "features": {0: "n"}},
        )
    write_bytes(path, buffer.getvalue())


def with_head(
    prefix: Path,
    head: Head,
    task: Task = "classification",
    *,
    temperature: float = 1.0,
    familiar: Familiar | None = None,
) -> bytes:
    """The graph of `prefix` with the head behind it: outputs "features", and "logits" and "probabilities" or "value".

    temperature: what logits are divided by on the way to probabilities. familiar: adds the output "distance" (n,), see
    `tuning/familiar.py`. Where the features are the mean of a map over its places, the map is the output "map", (n, c, h, w).
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(prefix))
    graph, value = model.graph, "features"
    answer = "value" if task == "regression" else "logits"
    for i, (weight, bias) in enumerate(head.layers):
        last = i == len(head.layers) - 1
        if i and head.activation == "relu":
            graph.node.append(helper.make_node("Relu", [value], [f"head.{i}.relu"]))
            value = f"head.{i}.relu"
        names = [f"head.{i}.weight", f"head.{i}.bias"]
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
            for array, name in zip((weight, bias), names, strict=True)
        )
        output = answer if last else f"head.{i}"
        graph.node.append(helper.make_node("Gemm", [value, *names], [output], transB=1))
        value = output
    if task == "multilabel":
        graph.node.append(helper.make_node("Sigmoid", ["logits"], ["probabilities"]))
    elif task == "classification":
        graph.initializer.append(numpy_helper.from_array(np.array(temperature, np.float32), "temperature"))
        graph.node.append(helper.make_node("Div", ["logits", "temperature"], ["calibrated"]))
        graph.node.append(helper.make_node("Softmax", ["calibrated"], ["probabilities"], axis=1))
    n_outputs = head.layers[-1][0].shape[0]
    for name in ("value",) if task == "regression" else ("logits", "probabilities"):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n_outputs]))
    if familiar is not None:
        _add_distance(graph, familiar)
    if (seen := pooled_map(graph)) is not None:
        graph.node.append(helper.make_node("Identity", [seen], ["map"]))
        graph.output.append(
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", head.width, "rows", "columns"])
        )
    return bytes(model.SerializeToString())


def _add_distance(graph: Any, familiar: Familiar) -> None:
    """The cosine distance of the features to the k-th nearest photo of the bank, as the output "distance"."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "bank.half": np.ascontiguousarray(familiar.bank.T),
        "bank.least": np.array(1e-12, np.float32),
        "bank.k": np.array([familiar.k], np.int64),
        "bank.last": np.array(familiar.k - 1, np.int64),
        "bank.one": np.array(1, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("Cast", ["bank.half"], ["bank"], to=TensorProto.FLOAT),
            helper.make_node("ReduceL2", ["features"], ["bank.length"], axes=[1], keepdims=1),
            helper.make_node("Max", ["bank.length", "bank.least"], ["bank.scale"]),
            helper.make_node("Div", ["features", "bank.scale"], ["bank.unit"]),
            helper.make_node("MatMul", ["bank.unit", "bank"], ["bank.near"]),
            helper.make_node("TopK", ["bank.near", "bank.k"], ["bank.nearest", "bank.places"], axis=1),
            helper.make_node("Gather", ["bank.nearest", "bank.last"], ["bank.kth"], axis=1),
            helper.make_node("Sub", ["bank.one", "bank.kth"], ["distance"]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]))


def pooled_map(graph: Any) -> str | None:
    """The name of the map (n, c, h, w) whose mean over all places is "features", None where there is none."""
    made_by = {output: node for node in graph.node for output in node.output}
    node = made_by.get("features")
    while node is not None and node.op_type in ("Flatten", "Reshape", "Squeeze", "Identity"):
        node = made_by.get(node.input[0])
    if node is None or node.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return None
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    over_places = node.op_type == "GlobalAveragePool" or (axes is not None and sorted(axes) in ([2, 3], [-2, -1]))
    return str(node.input[0]) if over_places else None


def compare(
    bundle: Bundle,
    pixels: NDArray[np.uint8],
    features: NDArray[np.float32],
    head: Head,
    allowed: float = MAX_DIFFERENCE,
    spread: float = 1.0,
) -> float:
    """The largest difference in a probability between the bundle, loaded back, and `head` on the prefix's `features`.

    pixels: (n, h, w, 3). features: (n, width) of the same photos. spread: the deviation of the numbers that were learned,
    of which a difference between numbers is a share. Raises Defect when another class or label is named or a probability
    or number is off by `allowed` or more.
    """
    model = Model(bundle)
    if bundle.task == "regression":
        return _compare_numbers(model, pixels, head.logits(features), allowed, spread)
    probabilities = in_batches(model.probabilities, pixels, BATCH, model.workers)
    logits = head.logits(features)
    wanted = softmax(logits / np.float32(bundle.temperature)) if bundle.task == "classification" else sigmoid(logits)
    off = float(np.abs(probabilities - wanted).max())
    same = _same_names(bundle, probabilities, wanted, off)
    if off >= allowed or not same.all():
        kind = "classes" if bundle.task == "classification" else "labels"
        raise _differs(f"by {off:.2g} in a probability, {int((~same).sum())} other {kind}", allowed)
    return off


def _same_names(
    bundle: Bundle, ours: NDArray[np.float32], wanted: NDArray[np.float32], off: float
) -> NDArray[np.bool_]:
    """Whether the same is named, where it is not a toss-up: of two equal probabilities, either may come first."""
    if bundle.task == "classification":
        return np.asarray((ours.argmax(axis=1) == wanted.argmax(axis=1)) | (_top_gap(wanted) <= 2 * off))
    thresholds = np.asarray(bundle.thresholds, np.float32)
    return np.asarray(((ours >= thresholds) == (wanted >= thresholds)) | (np.abs(wanted - thresholds) <= 2 * off))


def _compare_numbers(
    model: Model, pixels: NDArray[np.uint8], wanted: NDArray[np.float32], allowed: float, spread: float
) -> float:
    """The largest difference as a share of the spread; what float32 rounds of large numbers does not count."""
    values = in_batches(model.logits, pixels, BATCH, model.workers)
    rounding = 4 * float(np.finfo(np.float32).eps) * float(np.abs(wanted).max())
    apart = float(np.abs(values - wanted).max())
    off = max(0.0, apart - rounding) / (spread or 1.0)
    if off >= allowed:
        raise _differs(f"by {off:.2g} of the numbers' deviation", allowed)
    return off


def _differs(how: str, allowed: float) -> Defect:
    return Defect(
        what=f"The bundle differs from the model: {how}.",
        why=f"{allowed:g} is allowed.",
        fix="Please report this with the recipe of the run; another --backbone or --engine torch may work.",
    )


def in_batches(
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], pixels: NDArray[np.uint8], size: int, workers: int
) -> NDArray[np.float32]:
    """run(pixels) for `size` photos at a time, by several threads; rows in order."""
    parts = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    return np.concatenate(list(ordered_map(run, parts, workers=workers, ahead=2 * workers)))


def _top_gap(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    top = np.sort(probabilities, axis=1)
    return np.asarray(top[:, -1] - top[:, -2])


def check_backbone(name: str, weights: Path | None, arguments: dict[str, Any], cut: str, cache: Path) -> None:
    """Raises BackboneError, of one of its kinds, before anything else is done, for what cannot be had.

    Weights from a hub are fetched, a file of them is read; nothing is loaded where the cache has the exported network.
    cut: the layer up to which weights must be complete.
    """
    place = locate(name, weights)
    if find_card(cache, card_key(name, place, arguments, cut)) is not None:
        return
    from rehead.nets.backbone import check_weights, created
    from rehead.nets.hub import fetch_weights

    network = created(architecture_of(name), arguments, 0, device="meta")
    if place.kind == "hub":
        fetch_weights(name, network)
    elif weights is not None:
        check_weights(network, weights, cut, place.origin)


def ready_prefix(
    name: str,
    *,
    weights: Path | None,
    arguments: dict[str, Any],
    cut: str,
    cache: Path,
    progress: Progress,
    pooled: bool = True,
) -> Prefix:
    """The prefix of a backbone with its card and its graph, from the cache or made now (which loads torch).

    pooled: its features are averaged to one row a photo; otherwise they are what crosses the cut.
    """
    place = locate(name, weights)
    key = card_key(name, place, arguments, cut, pooled)
    folder = card_folder(cache, key)

    @functools.cache
    def load() -> Backbone:
        from rehead.nets.backbone import load_backbone

        return load_backbone(name, weights=weights, arguments=arguments, cut=cut)

    card = find_card(cache, key)
    if card is None:
        progress.phase(f"Preparing {name} (once)")
        prefix, card = load().cut_at(cut, pooled=pooled)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            export_prefix(prefix, card.preprocess, folder / "prefix.onnx")
            write_text(folder / "card.json", card.to_json())
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise disk_full(cache, BYTES_A_NUMBER * card.parameters, f"the network {name}") from error
    return Prefix(card, folder, lambda: load().cut_at(cut, pooled=pooled)[0])
