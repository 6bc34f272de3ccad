"""Borders that are known beforehand become part of the convolutions behind them, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from rehead.exporting import graph
from rehead.exporting.settle import settled
from rehead.nets.backbone import load_backbone
from rehead.runners import open_session


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.long
def test_a_network_with_tensorflows_padding_gives_the_same_bits_without_a_border_in_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"pad_type": "same", "input_size": 64}
    backbone = load_backbone("mobilenetv2_035", weights=None, arguments=arguments, cut="pool", pretrained=False)
    prefix, card = backbone.cut_at("pool")
    graph.export_prefix(prefix, card.preprocess, tmp_path / "settled.onnx")
    monkeypatch.setattr(graph, "settled", lambda model: model)
    graph.export_prefix(prefix, card.preprocess, tmp_path / "traced.onnx")

    assert "Pad" in kinds(onnx.load(str(tmp_path / "traced.onnx")))
    assert not kinds(onnx.load(str(tmp_path / "settled.onnx"))) & {"Pad", "Shape", "Slice"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    before, after = (
        open_session(tmp_path / name).run(["features"], {"pixels": pixels})[0]
        for name in ("traced.onnx", "settled.onnx")
    )
    assert np.array_equal(before, after)
    with torch.inference_mode():
        mean, std = (np.array(values, np.float32) * 255 for values in (card.preprocess.mean, card.preprocess.std))
        wanted = prefix(torch.from_numpy((pixels.astype(np.float32) - mean) / std).permute(0, 3, 1, 2)).numpy()
    assert np.abs(after - wanted).max() < 1e-4


def padded(mode: str, value: float, pads: list[int]) -> onnx.ModelProto:
    """Pixels, a border, a convolution."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["map"], perm=[0, 3, 1, 2]),
        helper.make_node("Pad", ["map", "pads", "value"], ["wide"], mode=mode),
        helper.make_node("Conv", ["wide", "weight"], ["seen"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["seen"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    constants = {"pads": np.array(pads), "value": np.array(value, np.float32), "weight": weight}
    inside = helper.make_graph(
        nodes,
        "padded",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("mode", "value", "pads", "goes"),
    [
        ("constant", 0.0, [0, 0, 0, 1, 0, 0, 2, 1], True),
        ("constant", 1.0, [0, 0, 1, 1, 0, 0, 1, 1], False),
        ("reflect", 0.0, [0, 0, 1, 1, 0, 0, 1, 1], False),
    ],
)
def test_only_zeros_around_a_map_go_into_the_convolution(
    mode: str, value: float, pads: list[int], goes: bool, tmp_path: Path
) -> None:
    onnx.save(padded(mode, value, pads), str(tmp_path / "before.onnx"))
    after = settled(padded(mode, value, pads))
    onnx.save(after, str(tmp_path / "after.onnx"))
    assert ("Pad" not in kinds(after)) == goes
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    one, two = (
        open_session(tmp_path / f"{name}.onnx").run(None, {"pixels": pixels})[0] for name in ("before", "after")
    )
    assert np.allclose(one, two, rtol=1e-5)
