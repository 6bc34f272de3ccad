"""What is familiar: the same distance by the graph and by arrays, and a threshold that keeps the share it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from rehead.bundle import Head, softmax
from rehead.exporting.graph import pooled_map, with_head
from rehead.tuning.familiar import KEPT, far, fit_familiar, unit

CLOUD = np.random.default_rng(0).normal(2, 1, (400, 8)).astype(np.float32)


def test_the_distance_is_that_of_a_plain_loop() -> None:
    bank = unit(CLOUD[:50]).astype(np.float16)
    x = CLOUD[100]
    near = sorted(float(x @ row / np.linalg.norm(x)) for row in bank.astype(np.float32))
    assert far(x[None], bank, 3)[0] == pytest.approx(1 - near[-3], abs=1e-5)


def test_the_share_that_is_to_be_kept_of_new_photos_is_kept() -> None:
    familiar = fit_familiar(CLOUD)
    assert familiar is not None
    new = np.random.default_rng(1).normal(2, 1, (4_000, 8)).astype(np.float32)
    assert (far(new, familiar.bank, familiar.k) <= familiar.threshold).mean() == pytest.approx(KEPT, abs=0.015)
    assert (far(-new, familiar.bank, familiar.k) > familiar.threshold).mean() > 0.95


def test_photos_apart_set_the_threshold_where_there_are_enough() -> None:
    familiar = fit_familiar(CLOUD, 2 - CLOUD[:150])
    assert familiar is not None
    assert familiar.threshold == pytest.approx(
        np.sort(far(2 - CLOUD[:150], familiar.bank, 5))[147]
    )  # the 148th: 151 * 0.98


def test_few_photos_apart_only_raise_the_threshold() -> None:
    """Those learned from lie nearer together than new ones do."""
    plain = fit_familiar(CLOUD)
    nearer, farther = fit_familiar(CLOUD, CLOUD[:20]), fit_familiar(CLOUD, 2 - CLOUD[:20])
    assert plain is not None
    assert nearer is not None
    assert farther is not None
    assert nearer.threshold == plain.threshold
    assert farther.threshold == far(2 - CLOUD[:20], farther.bank, 5).max() > plain.threshold


def test_of_few_photos_no_larger_share_of_new_ones_is_unfamiliar_than_is_said() -> None:
    random, beyond = np.random.default_rng(3), []
    for _ in range(60):
        familiar = fit_familiar(random.normal(2, 1, (49, 8)).astype(np.float32))
        assert familiar is not None
        new = random.normal(2, 1, (1_000, 8)).astype(np.float32)
        beyond.append((far(new, familiar.bank, familiar.k) > familiar.threshold).mean())
    assert np.mean(beyond) < 1.3 * (1 - KEPT)  # their own quantile leaves twice as many


def test_too_few_photos_are_no_bank() -> None:
    assert fit_familiar(CLOUD[:29]) is None


def graph(path: Path, pool: str = "GlobalAveragePool") -> Path:
    """A graph as the exporter writes it: pixels -> a map of three channels -> their means."""
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["floats"], to=kind.FLOAT),
        helper.make_node(pool, ["floats"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", kind.UINT8, ["n", 4, 4, 3])
    features = helper.make_tensor_value_info("features", kind.FLOAT, ["n", 3])
    model = helper.make_model(helper.make_graph(nodes, "g", [pixels], [features]), ir_version=8,
                              opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    onnx.save(model, str(path))
    return path


def test_the_bundles_graph_gives_calibrated_probabilities_the_distance_and_the_map(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    pixels = random.integers(0, 255, (6, 4, 4, 3), np.uint8)
    features = pixels.mean(axis=(1, 2)).astype(np.float32)
    head = Head("linear", ((random.normal(0, 0.01, (2, 3)).astype(np.float32), np.zeros(2, np.float32)),))
    familiar = fit_familiar(random.uniform(0, 255, (60, 3)).astype(np.float32))
    assert familiar is not None
    model = with_head(graph(tmp_path / "g.onnx"), head, temperature=2.0, familiar=familiar)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = ["features", "logits", "probabilities", "distance", "map"]
    got = dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))
    np.testing.assert_allclose(got["features"], features, rtol=1e-5)
    np.testing.assert_allclose(got["probabilities"], softmax(got["logits"] / 2), atol=1e-6)
    np.testing.assert_allclose(got["distance"], far(features, familiar.bank, familiar.k), atol=1e-6)
    heat = np.einsum("kc,nchw->nkhw", head.layers[0][0], got["map"])
    np.testing.assert_allclose(heat.mean(axis=(2, 3)) + head.layers[0][1], got["logits"], atol=1e-4)


def test_a_graph_whose_features_are_no_mean_over_places_has_no_map(tmp_path: Path) -> None:
    model = onnx.load(str(graph(tmp_path / "g.onnx", pool="GlobalMaxPool")))
    assert pooled_map(model.graph) is None
