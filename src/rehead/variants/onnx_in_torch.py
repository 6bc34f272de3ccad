"""A bundle's ONNX graph as a PyTorch module, node by node: what is shipped is what is converted, whatever it was made from.

Neither the network's own code nor its weights are needed, so a bundle that was tuned deeper or carried away converts too.
Whole numbers that say how large something is stay outside of PyTorch, as arrays of numpy, so that `torch.export` sees them as
constants or as the free n.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rehead.errors import BundleError
from rehead.variants.shapes import ON_SHAPES, is_shape, settled, shape_of
from rehead.variants.torch_operators import OPERATORS

MAX_SIZES = 64  # numbers in a constant that may say how large something is; weights have more


class TorchGraph(nn.Module):
    """The graph as a module: pixels uint8 (n, h, w, 3) -> its outputs by name.

    Raises BundleError where an operator is not known.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx
        from onnx import numpy_helper

        model = onnx.load(str(path))
        graph = model.graph
        self.outputs = [output.name for output in graph.output]
        self.nodes = [(n.op_type, list(n.input), list(n.output), _attributes(n)) for n in graph.node]
        if unknown := sorted({kind for kind, *_ in self.nodes} - OPERATORS.keys() - ON_SHAPES.keys() - {"Constant"}):
            raise BundleError(
                what=f"{path} holds what cannot be converted to PyTorch: {', '.join(unknown)}.",
                fix="Use another form: --to openvino, or --to onnx-int8.",
            )
        self.input = graph.input[0].name
        self.constants: dict[str, np.ndarray] = {}
        self.buffer_names: dict[str, str] = {}
        for i, tensor in enumerate(graph.initializer):
            self._keep(tensor.name, numpy_helper.to_array(tensor), f"weight_{i}")
        for i, (kind, _, outputs, about) in enumerate(self.nodes):
            if kind == "Constant":
                self._keep(outputs[0], np.asarray(about["value"]), f"constant_{i}")

    def _keep(self, name: str, array: np.ndarray, buffer: str) -> None:
        if array.size == 1 or (array.size <= MAX_SIZES and array.dtype.kind in "ib"):
            self.constants[name] = array
        else:
            self.register_buffer(buffer, torch.from_numpy(np.array(array)))
            self.buffer_names[name] = buffer

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        values: dict[str, Any] = {self.input: pixels, "": None, **self.constants}
        values |= {name: getattr(self, buffer) for name, buffer in self.buffer_names.items()}
        for kind, inputs, outputs, about in self.nodes:
            if kind == "Constant":
                continue
            given = [values[name] for name in inputs]
            if kind == "Shape":
                found: Any = shape_of(given[0])
            elif kind in ON_SHAPES and all(is_shape(value) for value in given):
                found = settled(ON_SHAPES[kind](given, about))
            else:
                found = OPERATORS[kind](given, about)
            for name, value in zip(outputs, found if isinstance(found, tuple) else (found,), strict=False):
                values[name] = value
        return {name: values[name] for name in self.outputs}


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import AttributeProto, helper, numpy_helper

    read: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.TENSOR:
            value = numpy_helper.to_array(value)
        read[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return read
