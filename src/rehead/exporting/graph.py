"""Network + head + Preprocess -> one ONNX graph.

The prefix is traced by PyTorch, once; a head is put behind it without PyTorch. What comes out is compared in
`agreement.py`, and kept by `prefixes.py`.
"""

from __future__ import annotations

import gc
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rehead.bundle import Familiar, Head
from rehead.bundle_facts import AGAIN, Task
from rehead.durable import write_bytes
from rehead.errors import BackboneError, BundleError
from rehead.exporting.settle import settled
from rehead.heap import is_want_of_memory
from rehead.pixels import Preprocess

if TYPE_CHECKING:
    import torch

ANOTHER = (
    "Choose another backbone: `rehead backbones` lists those whose weights are here, `rehead backbones PATTERN` others."
)
OPSET = 17  # the newest that PyTorch's tracing exporter writes; every runtime of the last three years reads it


def export_prefix(prefix: torch.nn.Module, preprocess: Preprocess, path: Path) -> None:
    """The prefix as an ONNX graph at `path`: "pixels" (n, h, w, 3) uint8 -> "features" (n, width) float32, any n.

    The tracing exporter is used: it takes a tenth of the time of the one built on torch.export and writes the same
    convolutions. Raises BackboneError for networks that it cannot trace, or that are too large for one file.
    """
    import onnx
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
    try:
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
    except Exception as error:  # tracing runs the network's own code
        if is_want_of_memory(error):
            raise
        raise BackboneError(
            what="The network cannot be exported to ONNX.", why=str(error).split("\n")[0], fix=ANOTHER
        ) from error
    model = onnx.load_model_from_string(buffer.getvalue())
    del buffer  # as large as the network, as is what the exporter leaves in circles
    gc.collect()
    write_bytes(path, settled(model).SerializeToString())


def prefix_in(model: Path) -> bytes:
    """The graph of a bundle's prefix, "pixels" -> "features", without all that stands behind it. Raises BundleError for a file
    that is no graph."""
    import onnx

    try:
        whole = onnx.load(str(model))
    except (MemoryError, OSError):
        raise
    except Exception as error:  # protobuf's own shares no base but Exception
        raise BundleError(what=f"{model} is no ONNX graph.", why=f"{error}.", fix=AGAIN) from error
    maker = {output: node for node in whole.graph.node for output in node.output}
    pending, needed = ["features"], set()
    while pending:
        node = maker.get(pending.pop())
        if node is not None and node.output[0] not in needed:
            needed.add(node.output[0])
            pending.extend(node.input)
    nodes = [node for node in whole.graph.node if node.output[0] in needed]
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "prefix",
        list(whole.graph.input),
        [output for output in whole.graph.output if output.name == "features"],
        [constant for constant in whole.graph.initializer if constant.name in used],
    )
    made = onnx.helper.make_model(graph, opset_imports=list(whole.opset_import), ir_version=whole.ir_version)
    return bytes(made.SerializeToString())


def with_head(
    prefix: Path,
    head: Head,
    task: Task = "classification",
    *,
    temperature: float = 1.0,
    familiar: Familiar | None = None,
) -> bytes:
    """The graph of `prefix` with the head behind it: outputs "features", and "logits" and "probabilities" or "value".

    temperature: what logits are divided by on the way to probabilities. familiar: adds the outputs "distance" (n,) and
    "nearest" (n, k), see `tuning/familiar.py`. Where the features are the mean of a map over its places, the map is the
    output "map", (n, c, h, w).
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
    """The places in the bank of the k photos nearest to the features, the nearest first, as the output "nearest" (n, k), their
    cosine similarities as "similarity" (n, k), and the cosine distance to the last of them as "distance" (n,)."""
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
            helper.make_node("TopK", ["bank.near", "bank.k"], ["similarity", "nearest"], axis=1),
            helper.make_node("Gather", ["similarity", "bank.last"], ["bank.kth"], axis=1),
            helper.make_node("Sub", ["bank.one", "bank.kth"], ["distance"]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]))
    graph.output.append(helper.make_tensor_value_info("nearest", TensorProto.INT64, ["n", familiar.k]))
    graph.output.append(helper.make_tensor_value_info("similarity", TensorProto.FLOAT, ["n", familiar.k]))


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
