"""Each of ONNX's operators in PyTorch gives what ONNX Runtime gives, and becomes only what is let in again from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save

from rehead.exported_programs import checked_program
from rehead.runners import open_session
from rehead.variants.onnx_in_torch import TorchGraph
from rehead.variants.torch_operators import OPERATORS

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (3, 4, 6, 3), np.uint8)
POOL = {"kernel_shape": [2, 2], "strides": [1, 1]}
UNEVEN = {**POOL, "pads": [0, 1, 1, 0]}
COUNTED = {**UNEVEN, "count_include_pad": 1}


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.5, 1.5, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# By operator: its inputs, "x" the photos as numbers (n, 4, 6, 3) above zero, others of `MADE`, constants; and its attributes.
CASES: dict[str, list[tuple[list[Any], dict[str, Any]]]] = {
    **{
        name: [(["x"], {})]
        for name in (
            "Abs", "Cos", "Elu", "Erf", "Exp", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
            "Identity", "LeakyRelu", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sin", "Softplus", "Sqrt", "Tanh",
        )
    },
    **{
        name: [(["x", floats(6, 3)], {}), ([floats(1), "x"], {}), (["x", "x"], {})]
        for name in ("Add", "Max", "Min", "Mul", "Sub")
    },
    **{
        name: [(["x"], {"axes": [2, 3]}), (["x"], {"axes": [1], "keepdims": 0}), (["x"], {})]
        for name in ("ReduceL2", "ReduceMax", "ReduceMean")
    },
    "AveragePool": [(["x"], POOL), (["x"], COUNTED), (["x"], {**POOL, "pads": [1, 1, 1, 1], "ceil_mode": 1})],
    "BatchNormalization": [(["x", floats(4), floats(4), floats(4), floats(4)], {})],
    "Cast": [(["x"], {"to": TensorProto.INT64}), (["x"], {"to": TensorProto.FLOAT16}), (["x"], {"to": TensorProto.BOOL})],
    "Clip": [(["x", floats(), np.array(2, np.float32)], {}), (["x", np.array(0.7, np.float32)], {})],
    "Concat": [(["x", "x"], {"axis": 1})],
    "Conv": [
        (["x", floats(8, 4, 3, 3), floats(8)], {"pads": [1, 1, 1, 1]}),
        (["x", floats(4, 1, 3, 3)], {"group": 4, "pads": [0, 1, 1, 1], "strides": [2, 2]}),
        (["rows", floats(8, 4, 3)], {}),
        (["boxes", floats(2, 1, 2, 2, 2)], {}),
    ],
    "Div": [(["x", floats(6, 3)], {}), ([floats(1), "x"], {}), (["whole", ints(2)], {})],
    "Expand": [(["x", ints(1, 1, 1, 3)], {}), (["row", ints(1, 2, 3)], {})],
    "Gather": [(["x", ints(0, 2, -1)], {"axis": 1}), (["x", np.array(1)], {"axis": 2}), ([floats(200, 2), "whole"], {})],
    "Gemm": [(["flat", floats(5, 72), floats(5)], {"transB": 1}), (["flat", floats(72, 5)], {"alpha": 0.5})],
    "LayerNormalization": [(["x", floats(3), floats(3)], {}), (["x", floats(6, 3)], {"axis": -2})],
    "MatMul": [(["x", floats(3, 5)], {}), (["x", "turned"], {})],
    "MaxPool": [(["x"], POOL), (["x"], UNEVEN), (["x"], {**POOL, "strides": [2, 2], "ceil_mode": 1})],
    "Pad": [(["x", ints(0, 0, 1, 1, 0, 0, 1, 0)], {}), (["x", ints(0, 0, 1, 1, 0, 0, 1, 0)], {"mode": "reflect"})],
    "Pow": [(["x", np.array(2, np.float32)], {}), (["x", "x"], {})],
    "ReduceSum": [(["x", ints(2, 3)], {}), (["x"], {})],
    "Reshape": [(["x", ints(0, -1, 3)], {}), (["x", "wanted"], {}), (["x", ints(-1, 72)], {})],
    "Slice": [(["x", ints(1), ints(3), ints(1)], {}), (["x", ints(-1), ints(-9), ints(2), ints(-1)], {}),
              (["x", ints(0), ints(2**62), ints(2), ints(2)], {})],
    "Softmax": [(["x"], {"axis": 1}), (["x"], {})],
    "Split": [(["x", ints(1, 3)], {"axis": 1})],
    "Squeeze": [(["thin", ints(1)], {})],
    "Tile": [(["x", ints(1, 2, 1, 1)], {})],
    "TopK": [(["x", ints(2)], {"axis": 2})],
    "Transpose": [(["x"], {"perm": [0, 3, 1, 2]})],
    "Unsqueeze": [(["x", ints(1, -1)], {})],
    "Where": [(["is_large", "x", np.array(0, np.float32)], {}), (["is_large", floats(6, 3), "x"], {})],
}  # fmt: skip
GIVEN = [
    helper.make_node("Cast", ["pixels"], ["number"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["number", "small"], ["scaled"]),
    helper.make_node("Add", ["scaled", "small"], ["x"]),
]
MADE = {  # what stands before the operator, by what it gives
    "rows": [helper.make_node("Reshape", ["x", "to_rows"], ["rows"])],
    "row": [helper.make_node("Reshape", ["x", "to_row"], ["row"])],
    "boxes": [helper.make_node("Reshape", ["x", "to_boxes"], ["boxes"])],
    "flat": [helper.make_node("Flatten", ["x"], ["flat"])],
    "thin": [helper.make_node("Reshape", ["x", "to_boxes"], ["thin"])],
    "turned": [helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1, 3, 2])],
    "whole": [helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64)],
    "is_large": [helper.make_node("Cast", ["whole"], ["is_large"], to=TensorProto.BOOL)],
    "wanted": [  # (2 n, 36): a size that is computed
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["n"]),
        helper.make_node("Mul", ["n", "two"], ["twice"]),
        helper.make_node("Concat", ["twice", "rest"], ["wanted"], axis=0),
    ],
}  # fmt: skip
CONSTANTS = {
    "small": np.array([0.01], np.float32), "to_rows": ints(-1, 4, 18), "to_row": ints(-1, 1, 3), 
    "to_boxes": ints(-1, 1, 4, 6, 3), "first": ints(0), "two": ints(2), "rest": ints(36),
}  # fmt: skip


def graph_of(path: Path, name: str, inputs: list[Any], about: dict[str, Any]) -> Path:
    constants, names = dict(CONSTANTS), []
    for i, value in enumerate(inputs):
        names.append(value if isinstance(value, str) else f"constant{i}")
        if not isinstance(value, str):
            constants[names[-1]] = value
    before = [node for word in names for node in MADE.get(word, [])]
    if "is_large" in names:
        before = [*MADE["whole"], *before]
    outputs = ["out", "second"] if name in ("Split", "TopK") else ["out"]
    node = helper.make_node(name, names, outputs, **about)
    graph = helper.make_graph(
        [*GIVEN, *before, node], "one",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *PIXELS.shape[1:]])],
        [helper.make_empty_tensor_value_info(output) for output in outputs],
        [numpy_helper.from_array(value, word) for word, value in constants.items()],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_every_operator_has_a_case() -> None:
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_onnx_runtime_gives_and_is_let_in(name: str, tmp_path: Path) -> None:
    for i, (inputs, about) in enumerate(CASES[name]):
        path = graph_of(tmp_path / f"{i}.onnx", name, inputs, about)
        free = ({0: torch.export.Dim("n", min=1, max=4096)},)
        given = torch.from_numpy(PIXELS)
        program = torch.export.export(TorchGraph(path).eval(), (given,), dynamic_shapes=free)
        wanted = open_session(path).run(None, {"pixels": PIXELS})
        for one, other in zip(program.module()(given).values(), wanted, strict=True):
            np.testing.assert_allclose(one.numpy(), other, atol=1e-5, rtol=1e-5, err_msg=f"{name} {i}")
        torch.export.save(program, tmp_path / f"{i}.pt2")
        checked_program(tmp_path / f"{i}.pt2")
