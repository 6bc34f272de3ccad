"""An engine is used when it agrees with the reference: in float32 by every number, in fewer bits by direction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rehead.errors import EngineError
from rehead.exporting.prefixes import ready_prefix
from rehead.features import engines
from rehead.features.engines import OpenVinoEngine, Prefix, open_engine, precision_of
from rehead.nets.card import read_agreement
from rehead.progress import Silent

WIDTH, N = 200, 8
FEATURES = np.random.default_rng(0).random((N, WIDTH)).astype(np.float32)
PIXELS = np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1)


class Fake:
    """An engine that finds a photo's features by its pixel."""

    name, version, workers, batch = "fake", "1", 1, 4

    def __init__(self, features: NDArray[np.float32], precision: str = "fp32") -> None:
        self.features, self.precision = features, precision

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.features[pixels.ravel()]


@pytest.fixture(scope="module")
def ready(cache: Path) -> Prefix:
    return ready_prefix("efficientnet_lite0", weights=None, arguments={}, cut="pool", cache=cache, progress=Silent())


@pytest.fixture
def prefix(ready: Prefix, tmp_path: Path) -> Prefix:
    """One whose engines were not compared yet."""
    return replace(ready, folder=tmp_path)


def opened(prefix: Prefix, features: NDArray[np.float32], precision: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(engines.ENGINES, prefix.reference, lambda *_: Fake(FEATURES))
    return open_engine(prefix, "fake", "cpu", lambda: PIXELS, lambda *_: Fake(features, precision))


def off(by: float) -> NDArray[np.float32]:
    """One number of the first photo is another, by a share of the largest."""
    features = FEATURES.copy()
    features[0, 0] += by * features.max()
    return features


@pytest.mark.parametrize(("precision", "by"), [("fp32", 5e-4), ("bf16", 0.2)])
def test_one_that_agrees_is_taken_and_compared_once(
    precision: str, by: float, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(prefix, off(by), precision, monkeypatch)
    (measured,) = read_agreement(prefix.folder).values()
    assert measured == pytest.approx(by, rel=0.01) if precision == "fp32" else 0.98 < measured < 1
    again = open_engine(
        prefix, "fake", "cpu", lambda: pytest.fail("compared twice"), lambda *_: Fake(off(1), precision)
    )
    assert again.precision == precision


@pytest.mark.parametrize(
    ("precision", "features", "why"),
    [
        ("fp32", off(2e-3), "The largest difference is 0.002 of the largest feature; 0.001 is allowed."),
        ("fp32", np.full_like(FEATURES, np.nan), "The largest difference is nan of the largest feature"),
        ("bf16", FEATURES[:, ::-1], "Their features have a mean cosine of 0.7"),
        ("bf16", np.full_like(FEATURES, np.nan), "Their features have a mean cosine of nan; 0.98 is wanted."),
    ],
)
def test_one_that_does_not_is_refused_and_nothing_recorded(
    precision: str, features: NDArray[np.float32], why: str, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match="The engine fake does not agree with the reference") as caught:
        opened(prefix, features, precision, monkeypatch)
    assert why in str(caught.value)
    assert caught.value.fix == "Leave --engine out."
    assert read_agreement(prefix.folder) == {}


@pytest.mark.parametrize("is_native", [True, False])
def test_openvino_computes_in_bfloat16_where_the_cpu_does(
    is_native: bool, ready: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "_has_bfloat16", lambda: is_native)
    engine = OpenVinoEngine(ready, "cpu")
    assert engine.precision == precision_of("openvino", "cpu") == ("bf16" if is_native else "fp32")
    assert precision_of("onnxruntime", "cpu") == precision_of("torch", "cpu") == "fp32"
    assert precision_of("torch", "cuda") == "bf16"
