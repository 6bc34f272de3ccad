"""An engine is used when it agrees with the reference: by every number, or by direction where all layers round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rehead
from rehead.errors import EngineError
from rehead.exporting.prefixes import ready_prefix
from rehead.features import engines
from rehead.features.compared import open_engine
from rehead.features.engines import (
    IN_BFLOAT16,
    OpenVinoEngine,
    OpenVinoInBfloat16,
    Prefix,
    check_engine,
    precision_of,
)
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


@pytest.mark.parametrize(("precision", "by"), [("fp32", 5e-4), ("bf16", 0.05), (IN_BFLOAT16, 0.2)])
def test_one_that_agrees_is_taken_and_compared_once(
    precision: str, by: float, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(prefix, off(by), precision, monkeypatch)
    (measured,) = read_agreement(prefix.folder).values()
    assert 0.98 < measured < 1 if precision == IN_BFLOAT16 else measured == pytest.approx(by, rel=0.01)
    again = open_engine(
        prefix, "fake", "cpu", lambda: pytest.fail("compared twice"), lambda *_: Fake(off(1), precision)
    )
    assert again.precision == precision


def test_photos_of_which_both_say_nothing_agree(prefix: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = FEATURES * (np.arange(N) > 5)[:, None]
    monkeypatch.setitem(engines.ENGINES, prefix.reference, lambda *_: Fake(nothing))
    open_engine(prefix, "fake", "cpu", lambda: PIXELS, lambda *_: Fake(nothing, IN_BFLOAT16))
    assert [*read_agreement(prefix.folder).values()] == [pytest.approx(1, abs=1e-6)]


@pytest.mark.parametrize(
    ("precision", "features", "why"),
    [
        ("fp32", off(2e-3), "The largest difference is 0.002 of the largest feature; 0.001 is allowed."),
        ("fp32", np.full_like(FEATURES, np.nan), "The largest difference is nan of the largest feature"),
        ("bf16", off(0.1), "The largest difference is 0.1 of the largest feature; 0.06 is allowed."),
        (IN_BFLOAT16, FEATURES[:, ::-1], "Their features have a mean cosine of 0.7"),
        (IN_BFLOAT16, FEATURES[[1, *range(1, N)]], "of one photo 0.7"),  # two photos are one
        (
            IN_BFLOAT16,
            np.full_like(FEATURES, np.nan),
            "a mean cosine of nan, of one photo nan; 0.98 and 0.9 are wanted.",
        ),
    ],
)
def test_one_that_does_not_is_refused_and_nothing_recorded(
    precision: str, features: NDArray[np.float32], why: str, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match="The engine fake does not agree with the reference") as caught:
        opened(prefix, features, precision, monkeypatch)
    assert why in str(caught.value)
    assert caught.value.fix == "Run with --device cpu and no --engine."
    assert read_agreement(prefix.folder) == {}


@pytest.mark.parametrize("engine", [OpenVinoEngine, OpenVinoInBfloat16])
def test_openvino_computes_in_what_its_name_says(engine: type[OpenVinoEngine], ready: Prefix) -> None:
    pytest.importorskip("openvino")
    if engine is OpenVinoInBfloat16 and not engines.has_bfloat16():
        pytest.skip("this CPU does not multiply in bfloat16")
    opened = engine(ready, "cpu")
    kind = opened._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert (opened.precision, kind) == (("openvino-bf16", "bf16") if engine is OpenVinoInBfloat16 else ("fp32", "f32"))
    assert opened.precision == precision_of(opened.name, "cpu")


def test_one_in_bfloat16_rounds_no_network_in_8_bits(ready: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="is in 8 bits already"):
        OpenVinoInBfloat16(replace(ready, card=replace(ready.card, quantized="int8")), "cpu")


@pytest.mark.parametrize(
    ("flags", "is_native"), [("flags : avx512f avx512_bf16 fma", True), ("flags : avx2 fma", False)]
)
def test_what_linux_says_of_the_cpu_decides(flags: str, is_native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: flags)
    if is_native:
        check_engine("openvino-bf16", "cpu")
    else:
        with pytest.raises(EngineError, match="does not multiply in bfloat16 itself, as --engine openvino-bf16 needs"):
            check_engine("openvino-bf16", "cpu")


def test_a_race_is_refused_before_photos_are_listed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "has_bfloat16", lambda: False)
    with pytest.raises(EngineError, match="does not multiply in bfloat16 itself"):
        rehead.race(tmp_path / "no photos", engine="openvino-bf16", cache=cache, out=tmp_path / "race")
