"""A network made by its name and what timm and its preprocessing are told, without weights: `backbone.py` puts them in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from rehead.ambient import dice, own_settings
from rehead.errors import BackboneError, BundleError, UnknownBackbone, nearest
from rehead.heap import is_want_of_memory
from rehead.nets.card import PACKAGES, architecture_of, known_as
from rehead.nets.cut import Pooled
from rehead.pixels import Fit, Preprocess

PREPROCESSING = ("mean", "std", "input_size", "crop_pct", "interpolation")  # arguments that do not go to timm
FIT_BY_CROP_MODE: dict[str, Fit] = {"center": "crop", "squash": "squash", "border": "pad"}


def every_name() -> list[str]:
    """The names of all backbones, each once: those of packages first, which go before timm's own names for them."""
    return list(dict.fromkeys([*PACKAGES, *(name for name in timm.list_models() if known_as(name) == name)]))


def check_name(name: str) -> None:
    """Raises UnknownBackbone, which names the nearest, for what is neither timm's nor a package's."""
    if name in PACKAGES or timm.is_model(name.split(".")[0]):
        return
    names = every_name()
    raise UnknownBackbone(
        what=f"No backbone is called {name!r}.",
        why=f"There are {len(names)}: the classifiers of timm {timm.__version__} and those with weights here.",
        fix=nearest(name, names) or "`rehead backbones PATTERN` lists them.",
    )


@own_settings()
def created(architecture: str, arguments: Mapping[str, Any], seed: int, device: str | None = None) -> nn.Module:
    check_name(architecture)
    for_timm = {k: v for k, v in arguments.items() if k not in PREPROCESSING}
    try:
        with dice(seed), torch.device(device or "cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(architecture, pretrained=False, **for_timm).eval()
    except (TypeError, ValueError, RuntimeError, AssertionError, OSError, LookupError, AttributeError) as error:
        if is_want_of_memory(error):
            raise
        raise BackboneError(
            what=f"timm cannot make {architecture} with {for_timm}.", why=str(error).split("\n")[0]
        ) from error


def preprocess_of(network: nn.Module, name: str, arguments: Mapping[str, Any]) -> Preprocess:
    config = timm.data.resolve_model_data_config(network)
    if name in PACKAGES:
        config |= {"mean": (PACKAGES[name].mean,) * 3, "std": (PACKAGES[name].std,) * 3}
    given = {key: arguments[key] for key in PREPROCESSING if key in arguments}
    config |= {k: (v,) * 3 if k in ("mean", "std") and isinstance(v, (int, float)) else v for k, v in given.items()}
    try:
        return _preprocess(config)
    except (TypeError, ValueError, BundleError) as error:
        why, fix = (error.what, error.fix) if isinstance(error, BundleError) else (f"{error}.", "")
        raise BackboneError(
            what=f"The preprocessing cannot be {', '.join(f'{key}={value}' for key, value in given.items())}.",
            why=why,
            fix=fix or "For example: input_size=224, mean=0.5, crop_pct=0.9.",
        ) from error


@own_settings()
def check_runs(network: nn.Module, name: str, arguments: Mapping[str, Any]) -> None:
    """Raises BackboneError where the arguments made a network that does not take photos, or none of the size they say.

    network: may be without room for weights; where it cannot run for that reason, it is left for later.
    """
    preprocess = preprocess_of(network, name, arguments)
    if (error := _failure(network, preprocess)) is not None:
        settings = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise BackboneError(
            what=f"{name} with {settings} does not take photos of 3 x {preprocess.height} x {preprocess.width}.",
            why=str(error).split("\n")[0],
            fix="Give both: input_size is of the photos, img_size of what a transformer is made for."
            if _runs_with_both(name, arguments)
            else "Give other values, or leave them out.",
        ) from error


def _failure(network: nn.Module, preprocess: Preprocess) -> Exception | None:
    """What one empty photo ends with in a network, but for want of room for weights. Raises what is of memory."""
    device = next(network.parameters()).device
    try:
        with torch.no_grad(), device:
            Pooled(network)(torch.zeros(1, 3, preprocess.height, preprocess.width))
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_want_of_memory(error):
            raise
        has_no_room = device.type == "meta" and (isinstance(error, NotImplementedError) or "meta" in str(error))
        return None if has_no_room else error
    return None


def _runs_with_both(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether one of input_size and img_size was given, and the network takes photos of that size with the other."""
    sizes = [arguments[key] for key in ("input_size", "img_size") if key in arguments]
    if len(sizes) != 1:
        return False
    try:
        side = sizes[0] if isinstance(sizes[0], int) else tuple(sizes[0])[-2:]
        both = {**arguments, "input_size": side, "img_size": side}
        network = created(architecture_of(name), both, 0, device="meta")
        return _failure(network, preprocess_of(network, name, both)) is None
    except (BackboneError, TypeError):
        return False


def _preprocess(config: Mapping[str, Any]) -> Preprocess:
    """timm's words in ours. Raises TypeError and ValueError for what is no number."""
    size = config["input_size"]
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return Preprocess(
        height=int(height),
        width=int(width),
        mean=_three(config["mean"]),
        std=_three(config["std"]),
        fit=FIT_BY_CROP_MODE.get(config.get("crop_mode", "center"), "crop"),
        crop_pct=float(config["crop_pct"]),
        interpolation=config["interpolation"] if config["interpolation"] != "random" else "bilinear",
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
