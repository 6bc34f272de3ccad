"""The backbones there are to choose from, each with its size, cost and licence, and whether its weights are here."""

from __future__ import annotations

import contextlib
import fnmatch
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from rehead.durable import write_text
from rehead.errors import UnknownBackbone, nearest
from rehead.nets.backbone import measured
from rehead.nets.card import PACKAGES
from rehead.nets.cut import Pooled
from rehead.nets.hub import is_here
from rehead.nets.making import created, every_name, preprocess_of
from rehead.progress import Progress, Silent


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


def list_backbones(pattern: str | None, cache: Path, progress: Progress | None = None) -> tuple[list[Listing], int]:
    """Backbones that match, and how many others there are; without a pattern, those whose weights are here.

    progress: told of each, as those that nobody asked for before are measured first.
    """
    progress = progress or Silent()
    names = every_name()
    if pattern is None:
        chosen = [name for name in names if is_here(name)]
    else:
        wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
        chosen = [name for name in names if fnmatch.fnmatch(name, wanted)]
        if not chosen:
            raise UnknownBackbone(what=f"No backbone matches {pattern!r}.", fix=nearest(pattern, names))
    progress.phase("Measuring backbones (once)", len(chosen), "backbones")
    rows = []
    for name in chosen:
        rows.append(_listing(name, cache))
        progress.advance()
    return rows, len(names) - len(chosen)


def _listing(name: str, cache: Path) -> Listing:
    """The facts of a backbone, measured once without memory for its weights, then kept."""
    path = cache / "backbones" / timm.__version__ / f"{name}.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = _facts(name)
        with contextlib.suppress(OSError):  # then it is measured anew the next time
            write_text(path, json.dumps(facts))
    return Listing(**{**facts, "here": is_here(name)})


def _facts(name: str) -> dict[str, Any]:
    architecture = PACKAGES[name].architecture if name in PACKAGES else name
    network = created(architecture, {}, 0, device="meta")
    preprocess = preprocess_of(network, name, {})
    try:
        with torch.device("meta"):
            parameters, macs, (width,) = measured(Pooled(network), preprocess)
    except Exception:  # a few networks compute on real numbers while they run
        parameters, macs, width = sum(p.numel() for p in network.parameters()), 0, int(network.num_features)
    licence = PACKAGES[name].licence if name in PACKAGES else str(network.pretrained_cfg.get("license") or "unknown")
    return asdict(Listing(name, parameters, macs, preprocess.height, width, licence, False))
