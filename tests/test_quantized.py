"""--quantize int8: the frozen network in 8 bits, and what is refused there."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from conftest import make_photos
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime import quantization

import rehead
from rehead import bundle as bundles
from rehead.errors import BackboneError, BundleError, EngineError, RecipeError
from rehead.exporting.prefixes import int8_prefix, ready_prefix
from rehead.exporting.quantise import KINDS, _photographs, in_float, quantise, views
from rehead.features import compared, engines
from rehead.features.compared import direction_kept
from rehead.features.engines import OnnxEngine, Prefix
from rehead.nets.card import Card
from rehead.pixels import Preprocess
from rehead.progress import Silent
from rehead.reporting.job import _made
from rehead.runners import OnnxRunner
from rehead.runs.finished import read_finished
from rehead.tuning.recipe import Recipe


@pytest.fixture(scope="module")
def prefix(cache: Path) -> Prefix:
    return ready_prefix("efficientnet_lite0", weights=None, arguments={}, cut="pool", cache=cache, progress=Silent())


@pytest.fixture(scope="module")
def quantized(prefix: Prefix, cache: Path) -> Prefix:
    return int8_prefix(prefix, cache, Silent())


@pytest.fixture(scope="module")
def tuned(cache: Path, quantized: Prefix, tmp_path_factory: pytest.TempPathFactory) -> rehead.Tuned:
    folder = tmp_path_factory.mktemp("quantized")
    photos = make_photos(folder / "photos", {"red": 14, "blue": 14})
    return rehead.tune(photos, cache=cache, out=folder / "run", quantize="int8", report=False)


def test_it_is_another_network_that_looks_the_same_way(prefix: Prefix, quantized: Prefix) -> None:
    assert quantized.card.identity != prefix.card.identity  # neither takes the other's features from the store
    assert quantized.onnx.stat().st_size < 0.4 * prefix.onnx.stat().st_size
    pixels = views(prefix.card.preprocess, 8)
    ours, wanted = (OnnxEngine(one, "cpu")(pixels) for one in (quantized, prefix))
    cosines = (ours * wanted).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(wanted, axis=1)
    assert 0.95 < cosines.min() < cosines.max() < 0.9999


def test_it_is_made_once(quantized: Prefix, prefix: Prefix, cache: Path) -> None:
    before = quantized.onnx.stat()
    again = int8_prefix(prefix, cache, Silent())
    assert again.card == quantized.card == Card.from_json(quantized.card.to_json())
    assert again.onnx.stat() == before


def test_another_onnx_runtime_takes_the_network_that_is_there(
    quantized: Prefix, prefix: Prefix, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.99.0")
    assert int8_prefix(prefix, cache, Silent()).card == quantized.card  # so features that are kept are found


def test_it_has_no_form_for_pytorch(tuned: rehead.Tuned) -> None:
    with pytest.raises(BundleError, match="is in 8 bits, which cannot be converted to PyTorch") as caught:
        rehead.export(tuned.bundle, "torch")
    assert caught.value.fix == "Use the bundle as it is, or convert it with: --to openvino"


def test_photographs_are_those_that_scikit_learn_gives() -> None:
    from sklearn.datasets import load_sample_images

    ours = [np.asarray(photograph) for photograph in _photographs()]
    assert all(map(np.array_equal, ours, load_sample_images().images))
    assert len(ours) == 2


def test_its_ranges_come_from_pictures_that_never_change() -> None:
    preprocess = Preprocess(height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    some = views(preprocess, 6)
    assert some.shape == (6, 32, 32, 3)
    assert np.array_equal(some, views(preprocess, 8)[:6])
    assert len({one.tobytes() for one in some}) == 6


def test_it_is_what_onnx_runtime_makes_by_itself_in_more_time(prefix: Prefix, tmp_path: Path) -> None:
    check_same_as_onnx_runtimes(prefix.onnx, views(prefix.card.preprocess, 3), tmp_path)


def test_it_is_the_same_for_layers_in_every_order(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    weights = {f"w{i}": dice.normal(size=(4, 3 if i == 0 else 4, 1, 1)) for i in range(9)}
    weights["w8"][0] = 0  # a channel that is dead
    weights |= {"dense": dice.normal(size=(4, 6)), "last": dice.normal(size=(5, 6))}
    layers = [
        ("Cast", ["pixels"], "real", {"to": onnx.TensorProto.FLOAT}),
        ("Transpose", ["real"], "x0", {"perm": [0, 3, 1, 2]}),
        *(("Conv", [f"x{i}", f"w{i}"], f"x{i + 1}", {}) for i in range(7)),  # six of them stay in float32
        ("Relu", ["x7"], "above", {}),
        ("Constant", [], "most", {"value": numpy_helper.from_array(np.array(6, np.float32))}),
        ("Clip", ["above", "", "most"], "within", {}),  # an activation behind another
        ("Conv", ["within", "w7"], "x8", {}),
        ("Relu", ["x8"], "one", {}),
        ("Relu", ["x8"], "two", {}),  # the same tensor for two activations
        ("Add", ["one", "two"], "sum", {}),
        ("Conv", ["sum", "w8"], "x9", {}),
        ("Add", ["x9", "sum"], "residual", {}),
        ("Relu", ["residual"], "end", {}),
        ("GlobalAveragePool", ["end"], "pooled", {}),
        ("Flatten", ["pooled"], "flat", {}),
        ("MatMul", ["flat", "dense"], "wide", {}),
        ("Gemm", ["wide", "last"], "features", {"transB": 1}),
    ]
    nodes = [helper.make_node(kind, given, [made], **others) for kind, given, made, others in layers]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx"
    )
    check_same_as_onnx_runtimes(tmp_path / "net.onnx", dice.integers(0, 256, (3, 8, 8, 3), np.uint8), tmp_path)


def check_same_as_onnx_runtimes(graph: Path, pixels: NDArray[np.uint8], folder: Path) -> None:
    """Compares with what its `quantize_static` makes, node for node and number for number."""
    quantise(graph, folder / "ours.onnx", pixels)
    model = onnx.shape_inference.infer_shapes(onnx.load(str(graph)))
    parts = iter([{"pixels": pixels[i : i + 1]} for i in range(len(pixels))])
    quantization.quantize_static(
        model,
        str(folder / "theirs.onnx"),
        SimpleNamespace(get_next=lambda: next(parts, None)),
        op_types_to_quantize=list(KINDS),
        nodes_to_exclude=in_float(model.graph),
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    ours, theirs = (onnx.load(str(folder / f"{name}.onnx")).graph for name in ("ours", "theirs"))
    assert "DequantizeLinear" in {node.op_type for node in ours.node}
    assert [node.SerializeToString() for node in ours.node] == [node.SerializeToString() for node in theirs.node]
    wanted = {tensor.name: numpy_helper.to_array(tensor) for tensor in theirs.initializer}
    assert [tensor.name for tensor in ours.initializer] == list(wanted)
    for tensor in ours.initializer:
        found = numpy_helper.to_array(tensor)
        if found.dtype == np.int8:
            np.testing.assert_array_equal(found, wanted[tensor.name])
        elif found.dtype == np.float32:  # ranges come from other kernels for the same layers
            np.testing.assert_allclose(found, wanted[tensor.name], rtol=1e-5)
        else:  # zero points, and biases in 32 bits
            np.testing.assert_allclose(found.astype(np.int64), wanted[tensor.name].astype(np.int64), rtol=1e-5, atol=1)


def test_the_bundle_computes_in_8_bits_and_says_so(tuned: rehead.Tuned, quantized: Prefix) -> None:
    bundle = bundles.read(tuned.bundle)
    assert bundle.facts["backbone"]["quantized"] == bundle.facts["recipe"]["quantize"] == "int8"
    assert ", frozen, in 8 bits (features have a mean cosine of 0." in (tuned.bundle / "README.md").read_text()
    assert bundle.model.stat().st_size < 1.2 * quantized.onnx.stat().st_size
    seen = views(bundle.preprocess, 4)
    ours = OnnxRunner(bundle.model, 1).run(["features"], seen)[0]
    assert np.abs(ours - OnnxEngine(quantized, "cpu")(seen)).max() < 1e-5
    assert tomllib.loads((tuned.run / "recipe.toml").read_text())["quantize"] == "int8"


def test_how_near_it_is_to_float32_was_measured_and_told(tuned: rehead.Tuned, quantized: Prefix, cache: Path) -> None:
    kept = direction_kept(quantized)
    assert kept is not None
    assert 0.95 < kept < 1
    assert f"a cosine of {kept:.3f}" in (tuned.run / "log.txt").read_text()
    assert json.loads((tuned.run / "run.json").read_text())["int8_cosine"] == tuned.to_dict()["int8_cosine"] == kept
    finished = read_finished(tuned.run, cache)
    assert ("in 8 bits", f"features have a mean cosine of {kept:.3f} with those in float32") in _made(finished)[
        "Backbone"
    ]


@pytest.mark.long
def test_one_that_is_too_coarse_is_refused_before_a_feature_is_kept(
    cache: Path, quantized: Prefix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"green": 12, "grey": 12})
    (quantized.folder / "agreement.json").unlink(missing_ok=True)
    monkeypatch.setitem(compared.LEAST_KEPT, "int8", (0.99999, 0.0))
    with pytest.raises(EngineError, match="cannot be computed in 8 bits") as caught:
        rehead.tune(photos, cache=cache, out=tmp_path / "run", quantize="int8", report=False)
    assert caught.value.fix == "Leave --quantize out."
    assert direction_kept(quantized) is None
    monkeypatch.undo()
    tuned = rehead.tune(photos, cache=cache, out=tmp_path / "run", quantize="int8", report=False)
    assert tuned.images["from_store"] == 0


def test_a_bundle_in_8_bits_is_not_computed_in_bfloat16(
    tuned: rehead.Tuned, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "has_bfloat16", lambda: True)
    settings = {"backbone": str(tuned.bundle), "engine": "openvino-bf16"}
    with pytest.raises(RecipeError, match="is in 8 bits already, which --engine openvino-bf16 would round once more"):
        rehead.tune(tmp_path / "no photos", **settings, cache=cache, out=tmp_path / "run", report=False)


def test_a_bundle_in_8_bits_is_a_backbone_and_is_not_rounded_twice(
    tuned: rehead.Tuned, cache: Path, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", {"green": 12, "grey": 12})
    again = rehead.tune(photos, backbone=str(tuned.bundle), cache=cache, out=tmp_path / "run", report=False)
    assert bundles.read(again.bundle).facts["backbone"]["quantized"] == "int8"
    with pytest.raises(BackboneError, match="is in 8 bits already"):
        rehead.tune(
            photos, backbone=str(tuned.bundle), quantize="int8", cache=cache, out=tmp_path / "two", report=False
        )
    with pytest.raises(BundleError, match="is in 8 bits already"):
        rehead.export(tuned.bundle, "onnx-int8", cache=cache)


def test_a_bundle_that_names_its_bits_by_a_path_is_refused(tuned: rehead.Tuned, cache: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "bundle"
    shutil.copytree(tuned.bundle, hostile)
    facts = json.loads((hostile / "rehead.json").read_text())
    facts["backbone"]["quantized"] = "x/../../../../outside"
    (hostile / "rehead.json").write_text(json.dumps(facts))
    photos = make_photos(tmp_path / "photos", {"green": 12, "grey": 12})
    with pytest.raises(BundleError, match="does not say what its backbone is"):
        rehead.tune(photos, backbone=str(hostile), cache=tmp_path / "cache", out=tmp_path / "run", report=False)
    assert not list(tmp_path.rglob("outside"))


def test_8_bits_can_be_left_again_behind_an_earlier_run(tuned: rehead.Tuned, cache: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"green": 12, "grey": 12})
    again = rehead.tune(
        photos, from_run=tuned.run, quantize="none", cache=cache, out=tmp_path / "run", head="prototype", report=False
    )
    assert bundles.read(again.bundle).facts["backbone"]["quantized"] is None
    assert set(again.classes) == {"red", "blue", "green", "grey"}


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"train": "last:2"}, "layers learn (--train last:2)"),
        ({"engine": "torch"}, "Leave --engine out"),
        ({"device": "cuda"}, "Leave --device out"),
        ({"quantize": "int4"}, "cannot be 'int4'"),
    ],
)
def test_what_cannot_be_is_told_before_a_photo_is_read(others: dict[str, str], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"quantize": "int8", **others})
    assert told in str(caught.value) + (caught.value.fix or "")


@pytest.mark.realdata
@pytest.mark.long
def test_ants_and_bees_are_told_apart_as_well(cache: Path, data: Path, tmp_path: Path) -> None:
    found = [
        rehead.tune(data / "hymenoptera", cache=cache, out=tmp_path / name, report=False, **settings)
        for name, settings in {"float": {}, "int8": {"quantize": "int8"}}.items()
    ]
    in_float, in_8_bits = (one.verdict.top1 for one in found)
    assert in_8_bits.value >= in_float.low
