"""The models that are served: one bundle, loaded and warmed, and what is said of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Head
from rehead.bundle_facts import FACTS
from rehead.bundle_head import read_head
from rehead.data.rows import label_of
from rehead.errors import BundleError, RunError
from rehead.heat import activation
from rehead.pixels import Preprocess
from rehead.predict import Model, load
from rehead.verdict.judging import read_verdict

Signature = tuple[tuple[str, int, int, int], ...]
VERSION_DIGITS = 12  # of the SHA-256 of `rehead.json`, which holds the digests of all else
DEFAULT_FOLDER = "bundle"  # the name that rehead tune gives, which says nothing: the run's own does


@dataclass(frozen=True)
class Loaded:
    """A bundle as it is served. version: tells two bundles apart. head: where the features' map is given, what maps of
    activation are made with. loaded_at: in UTC. signature: of the files it was read from. stale: whether these are gone,
    or others are there that cannot be loaded. variant: the form of the model that answers, None for the original."""

    name: str
    model: Model
    version: str
    head: Head | None
    loaded_at: datetime
    signature: Signature
    stale: bool = False
    variant: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.model.bundle.folder

    @property
    def preprocess(self) -> Preprocess:
        return self.model.bundle.preprocess

    def to_dict(self) -> dict[str, Any]:
        """What `/v1/model` says."""
        return {**self.about, "loaded_at": self.loaded_at.isoformat(timespec="seconds"), "stale": self.stale}

    def gone_stale(self) -> Loaded:
        return replace(self, stale=True)


def signature(folder: Path) -> Signature:
    """Changes when a file in the folder does: name, inode, size and time of change of each. Raises OSError."""
    rows = []
    for path in folder.iterdir():
        status = path.stat() if path.exists() else path.lstat()  # a link that leads to nothing
        rows.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(rows))


def load_named(name: str, folder: str | os.PathLike[str], variant: str | None = None) -> Loaded:
    """The bundle in `folder`, or a variant in it, loaded, and run once so that its first answer is as quick as the others.

    Raises BundleError, also where the folder changes while it is read.
    """
    folder = Path(folder)
    try:
        before = signature(folder)
    except OSError:
        before = ()
    model = load(folder, variant=variant)
    version = hashlib.sha256((folder / FACTS).read_bytes()).hexdigest()[:VERSION_DIGITS]
    nothing = np.zeros((1, model.bundle.preprocess.height, model.bundle.preprocess.width, 3), np.uint8)
    model.predict_pixels(nothing)
    head = _head(model, nothing)
    if signature(folder) != before:
        raise BundleError(what=f"The bundle {folder} changed while it was read.", fix="It is read again.")
    loaded = Loaded(name, model, version, head, datetime.now(UTC), before, variant=variant)
    return replace(loaded, about=_about(loaded))


def named_bundles(arguments: list[str]) -> dict[str, Path]:
    """Folders by the names they are served under, in order. arguments: `name=path`, or a path whose folder names it, or the
    folder around it where it is called `bundle`; bytes that are no UTF-8 are escaped, since names stand in JSON. Raises
    RunError for two of one name, and for an empty one."""
    pairs = [_named(argument) for argument in arguments]
    if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
        paths = [str(path) for name, path in pairs if name == twice[0]]
        raise RunError(
            what=f"Two bundles would be called {twice[0]!r}: {paths[0]} and {paths[1]}.",
            why="A request says by name which one it means.",
            fix=f"Name them yourself: {twice[0]}-1={paths[0]} {twice[0]}-2={paths[1]}",
        )
    return dict(pairs)


def _named(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    if equals and not Path(argument).exists() and "/" not in name:
        if not name.strip() or not path.strip():
            raise RunError(what=f"{argument!r} is no name=path.", fix="For example: pets=runs/pets-1/bundle")
        return label_of(name), Path(path)
    if equals and "/" in name and not Path(argument).exists() and Path(path).exists():
        raise RunError(
            what=f"{name!r} is no name for a bundle: it has a slash.",
            why="The name stands in addresses and names a folder.",
            fix=f"For example: {name.replace('/', '-').strip('-') or 'pets'}={path}",
        )
    folder = Path(argument)
    whole = folder.resolve()
    named = whole.parent.name if whole.name == DEFAULT_FOLDER else whole.name
    return label_of(named) or DEFAULT_FOLDER, folder


def _head(model: Model, pixels: NDArray[np.uint8]) -> Head | None:
    """What maps of activation are made with, once one was made of `pixels`; None where the bundle gives no map."""
    if not model.has_map or model.task == "regression":
        return None
    head = read_head(model.bundle.folder)
    activation(head, model.map(pixels)[0], 0)
    return head


def _about(loaded: Loaded) -> dict[str, Any]:
    model, bundle = loaded.model, loaded.model.bundle
    return {
        "name": loaded.name,
        "version": loaded.version,
        "variant": loaded.variant,
        "task": model.task,
        "classes": list(model.classes),
        "thresholds": list(bundle.thresholds),
        "input": {"height": loaded.preprocess.height, "width": loaded.preprocess.width},
        "headline": _headline(bundle.facts["verdict"]),
        "n_train": bundle.facts["verdict"]["n_train"],
        "unsure_below": bundle.unsure_below,
        "unfamiliar_above": bundle.unfamiliar_above,
        "explains": loaded.head is not None,
        "neighbours": bundle.facts["neighbours"] is not None,
    }


def _headline(verdict: dict[str, Any]) -> str:
    """The verdict in a line; empty for one that an older or another program wrote in part."""
    try:
        return read_verdict(verdict).headline
    except (KeyError, TypeError):
        return ""
