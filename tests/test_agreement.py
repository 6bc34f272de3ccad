"""A bundle that does not give what the model gave is not handed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rehead import bundle as bundles
from rehead.bundle_head import read_head
from rehead.errors import Defect
from rehead.exporting.agreement import compare
from rehead.predict import Model

BUNDLES = {"one": "bundle-3", "several": "bundle-2", "number": "bundle-2-number"}


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_bundle_that_answers_with_no_numbers_or_others_is_refused(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles.read(Path(__file__).parent / "golden" / BUNDLES[name])
    head, model = read_head(bundle.folder), Model(bundle)
    pixels = np.zeros((3, bundle.preprocess.height, bundle.preprocess.width, 3), np.uint8)
    pixels[..., 0] = 255
    features = model.features([*pixels])
    assert compare(bundle, pixels, features, head) < 1e-4
    answers = "logits" if bundle.task == "regression" else "probabilities"
    monkeypatch.setattr(Model, answers, lambda _self, some: np.full((len(some), max(1, len(bundle.classes))), value))
    for order in (1, -1):  # the largest of NaNs is the first: it must not pass for the right class either
        model_head = replace(head, layers=tuple((weight[::order], bias[::order]) for weight, bias in head.layers))
        with pytest.raises(Defect, match="differs from the model"):
            compare(bundle, pixels, features, model_head)
