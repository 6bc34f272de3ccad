"""Bundles for the page: as `little` ones, and made by rehead's own parts, so that they know which photos are familiar and show
them; and a browser that looks at a service and keeps account of what it said and asked for."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from little import GOLDEN, SIZE, picture
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import rehead.bundle as bundles
from rehead.bundle import Familiar, Head
from rehead.exporting.graph import with_head

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
TILE = 16


def bundle(folder: Path, classes: Sequence[str] = ("red", "green", "blue"), *, neighbours: bool = True) -> Path:
    """A bundle that names the strongest channel, is unsure below 0.8, and knows 30 photos of three colours: others are
    unfamiliar. `neighbours`: whether it shows them."""
    facts = json.loads((GOLDEN / "bundle-3" / "rehead.json").read_text())
    about = {key: value for key, value in facts.items() if key not in ("format", "head", "files")}
    about |= {
        "classes": list(classes),
        "calibration": None,
        "unsure": {"precision": 0.95, "threshold": 0.8, "n": 40},
        "unfamiliar": {"k": 5, "threshold": 0.15, "kept": 0.98, "photos": 30},
    }
    bank = np.repeat(np.array([*COLOURS.values()], np.float32), 10, axis=0)
    bank += np.random.default_rng(0).uniform(-20, 20, bank.shape).astype(np.float32)
    known = (bank / np.linalg.norm(bank, axis=1, keepdims=True)).astype(np.float16)
    n_others = len(classes) - 3  # which are never named
    weight = np.concatenate([np.eye(3) * 8, np.zeros((n_others, 3))]).astype(np.float32)
    head = Head("linear", ((weight, np.zeros(len(classes), np.float32)),))
    prefix = folder.parent / f"{folder.name}.onnx"
    onnx.save(_prefix(), prefix)
    sheet = (
        {"file": "neighbours.jpg", "tile": TILE, "columns": 10, "labels": [classes[i // 10] for i in range(30)]},
        _sheet(bank),
    )
    model = with_head(prefix, head, familiar=Familiar(known, 5, 0.15, 0.98))
    bundles.write(folder, model=model, head=head, card="# shown", facts=about, pictures=sheet if neighbours else None)
    return folder


def _prefix() -> Any:
    """Pixels -> the mean of each channel, and the map that it is the mean of."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "most"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["first"], ["places"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["places"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "prefix",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.float32(255), "most")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _sheet(bank: Any) -> bytes:
    rows = np.repeat(np.repeat(bank.reshape(3, 10, 3).clip(0, 255).astype(np.uint8), TILE, axis=0), TILE, axis=1)
    with io.BytesIO() as file:
        Image.fromarray(rows).save(file, "JPEG", quality=95)
        return file.getvalue()


def pictures(folder: Path, **colours: tuple[int, int, int]) -> list[Path]:
    """red=(200, 30, 30): a file red.png of that colour; in the order they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in colours.items():
        (folder / f"{name}.png").write_bytes(picture(colour))
    return [folder / f"{name}.png" for name in colours]


class Seen:
    """The page of a service in a browser. said: what its console and its scripts' errors said. asked: all addresses."""

    def __init__(self, chromium: Any, address: str, **context: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.address = address
        self.context = chromium.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog {dialog.message}") or dialog.dismiss())
        self.page.goto(address)
        until(lambda: "Asking" not in self.text("#about"))

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was said but that pictures could not be read, and no other host was asked."""
        odd = [line for line in self.said if "422 (Unprocessable" not in line]
        others = {url for url in self.asked if not url.startswith((self.address, "data:", "blob:"))}
        return not odd and not others

    @property
    def fits(self) -> bool:
        """Whether there is no need to move the page sideways."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"))

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def add(self, *files: Path) -> None:
        self.page.set_input_files("#files", [*map(str, files)])

    def done(self, n: int, timeout_s: float = 20) -> None:
        """Waits until there are n cards and none waits."""
        cards = self.page.locator(".card")
        until(lambda: cards.count() == n and self.page.locator(".card.waiting").count() == 0, timeout_s)

    def card(self, name: str) -> Any:
        return self.page.locator(".card").filter(has=self.page.locator(".file", has_text=name))

    def bars(self, name: str) -> dict[str, str]:
        """Percent by class, as a card shows them."""
        bars = self.card(name).locator(".bars li")
        return dict(
            zip(bars.locator(".label").all_inner_texts(), bars.locator(".share").all_inner_texts(), strict=True)
        )


@contextmanager
def seen(chromium: Any, address: str, **context: Any) -> Iterator[Seen]:
    one = Seen(chromium, address, **context)
    try:
        yield one
    finally:
        one.context.close()


def until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    ends = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.03)
