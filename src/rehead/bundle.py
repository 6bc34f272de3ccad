"""The folder a user ships: `model.onnx`, `rehead.json`, `head.safetensors`, `README.md`. Data only, no code.

`docs/bundle.md` describes the format so that a stranger can re-implement it. Here it is written whole or not at all,
read, and checked: every file is there and is the one whose digest stands in `rehead.json`, which `bundle_facts.py`
checks. Building the graph is left to `exporting/`, running it to `predict.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rehead.bundle_facts import (
    AGAIN,
    CARD,
    FACTS,
    FORMAT,
    HEAD,
    KEYS,
    MODEL,
    Task,
    files_named,
    preprocess_of,
    read_facts,
    unreadable,
    what_is_doubted,
    what_is_named,
)
from rehead.durable import replaced_folder, sha256_file
from rehead.errors import BundleError
from rehead.pixels import Preprocess

Kind = Literal["linear", "mlp", "prototype"]
Activation = Literal["relu", "none"]


@dataclass(frozen=True)
class Head:
    """The layers that map pooled features to logits: dense layers with `activation` between them.

    layers: (weight (out, in) float32, bias (out,) float32) each, in order of data flow; the last has one row a class, or
        one row in all, whose output is a number.
    """

    kind: Kind
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    activation: Activation = "none"

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, width) -> (n, n_classes), unbounded; (n, 1) where a number is learned, and it is that number."""
        x = np.asarray(features, np.float32)
        for i, (weight, bias) in enumerate(self.layers):
            if i and self.activation == "relu":
                x = np.maximum(x, 0)
            x = x @ weight.T + bias
        return x

    @property
    def width(self) -> int:
        """How many features a photo must have."""
        return int(self.layers[0][0].shape[1])


@dataclass(frozen=True)
class Familiar:
    """Photos that the model knows. bank: (m, width) float16, their features as rows of length 1. k: how many of them a photo
    must be near to. threshold: the largest cosine distance to the k-th nearest at which one is familiar; a share `kept` of
    photos like them is."""

    bank: NDArray[np.float16]
    k: int
    threshold: float
    kept: float


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, n_classes) -> probabilities whose rows sum to 1."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits -> the probability of each by itself, in 0..1."""
    small = np.exp(-np.abs(logits))  # at most 1: nothing overflows
    return np.asarray(np.where(logits < 0, small, 1) / (1 + small), np.float32)


@dataclass(frozen=True)
class Variant:
    """The same model in another form. files: in the bundle's folder, the one to open first. measured: what held-out photos
    said of it when it was made."""

    name: str
    files: tuple[Path, ...]
    measured: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked. `facts` is `rehead.json`, lifted to this format, under the keys of `KEYS`.

    thresholds: of several labels a photo, the probability from which on each is named; empty for other tasks.
    temperature: what logits are divided by before they become probabilities. unsure_below: the probability of the answer
    below which it is unsure, above 1 where every answer is; None where that is not known. unfamiliar_above: the
    distance above which a photo is unlike those the model knows; None where that is not known. variants: by name; lost: of
    those whose files are gone or changed, why. The original needs none of them.
    """

    folder: Path
    facts: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: Preprocess
    task: Task = "classification"
    thresholds: tuple[float, ...] = ()
    temperature: float = 1.0
    unsure_below: float | None = None
    unfamiliar_above: float | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    lost: Mapping[str, BundleError] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        return self.folder / MODEL


def read(folder: Path) -> Bundle:
    """The bundle in `folder`, after checking that it is whole. Raises BundleError with the reason it is refused."""
    facts = read_facts(folder)
    known = files_named(facts, folder / FACTS)
    of_variants = {file for about in facts["variants"].values() for file in about["files"]}
    for name, digest in facts["files"].items():
        if name not in known:
            raise BundleError(what=f"The bundle {folder} names a file that no bundle has: {name!r}.")
        if name not in of_variants:
            _check_file(folder / name, digest)
    task, classes, thresholds = what_is_named(facts, folder / FACTS)
    preprocess = preprocess_of(facts["preprocess"], folder / FACTS)
    variants = {
        name: Variant(name, tuple(folder / file for file in about["files"]), about["measured"])
        for name, about in facts["variants"].items()
    }
    lost = {name: error for name, variant in variants.items() if (error := _lost(variant, facts["files"])) is not None}
    variants = {name: variant for name, variant in variants.items() if name not in lost}
    doubted = what_is_doubted(facts, folder / FACTS)
    return Bundle(folder, facts, classes, preprocess, task, thresholds, *doubted, variants, lost)


def _lost(variant: Variant, digests: Mapping[str, str]) -> BundleError | None:
    """Why a variant cannot be opened, None where it is whole."""
    try:
        for path in variant.files:
            _check_file(path, digests[path.name])
    except BundleError as error:
        fix = "Make it again with rehead export, or copy the whole bundle again. The original does not need it."
        return BundleError(what=error.what, why=error.why, fix=fix)
    return None


def write(
    folder: Path,
    *,
    model: bytes,
    head: Head,
    card: str,
    facts: Mapping[str, Any],
    pictures: tuple[dict[str, Any], bytes] | None = None,
) -> Bundle:
    """The bundle, written to `folder` whole or not at all; an older one there is replaced.

    model: the ONNX graph. card: the model card in Markdown. facts: the keys of `KEYS` but format, head, files, variants and
    neighbours. pictures: what stands under `neighbours`, and the sheet of small pictures that it describes.
    """
    from safetensors.numpy import save

    tensors = {f"layers.{i}.{name}": np.ascontiguousarray(tensor) for i, layer in enumerate(head.layers)
               for name, tensor in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip
    others = {} if pictures is None else {pictures[0]["file"]: pictures[1]}
    with replaced_folder(folder) as temporary:
        (temporary / MODEL).write_bytes(model)
        (temporary / HEAD).write_bytes(save(tensors))  # its own writer lets nobody but the owner read the file
        (temporary / CARD).write_text(card, encoding="utf-8")
        for name, data in others.items():
            (temporary / name).write_bytes(data)
        about_head = {"kind": head.kind, "activation": head.activation}
        about = {"head": about_head, **facts, "variants": {}, "neighbours": None if pictures is None else pictures[0]}
        _write_facts(temporary, about, (MODEL, HEAD, CARD, *others))
    return read(folder)


def add_variant(bundle: Bundle, name: str, files: Mapping[str, Path], measured: Mapping[str, Any]) -> Bundle:
    """The bundle with another form of its model, or with a new one in place of its namesake; whole or not at all.

    files: by the name that each gets in the bundle, the one to open first. Variants that are not whole are left behind; all
    else in the folder stays, with its modes, and so does what another process added meanwhile. Raises BundleError where the
    model itself was replaced meanwhile.
    """
    import filelock

    with filelock.FileLock(bundle.folder.resolve().with_name(f".{bundle.folder.resolve().name}.lock")):
        now = read(bundle.folder)
        if now.facts["files"][MODEL] != bundle.facts["files"][MODEL]:
            raise BundleError(
                what=f"The bundle {bundle.folder} was replaced meanwhile: {name} is of the model before.",
                fix="Export again.",
            )
        return _with_variant(now, name, files, measured)


def _with_variant(bundle: Bundle, name: str, files: Mapping[str, Path], measured: Mapping[str, Any]) -> Bundle:
    gone = {name, *bundle.lost}
    kept = {other: about for other, about in bundle.facts["variants"].items() if other not in gone}
    dropped = {file for other in gone for file in bundle.facts["variants"].get(other, {"files": ()})["files"]}
    names = [file for file in bundle.facts["files"] if file not in dropped]
    variants = {**kept, name: {"files": list(files), "measured": dict(measured)}}
    with replaced_folder(bundle.folder) as temporary:
        shutil.copymode(bundle.folder, temporary)
        _carry_over(bundle.folder, temporary, {FACTS, *dropped, *files})
        for file, source in files.items():
            shutil.copyfile(source, temporary / file)
            shutil.copymode(bundle.model, temporary / file)  # who may not read the model gets it in no other form
        _write_facts(temporary, {**bundle.facts, "variants": variants}, (*names, *files))
        shutil.copymode(bundle.folder / FACTS, temporary / FACTS)
    return read(bundle.folder)


def _carry_over(folder: Path, new: Path, but: Set[str]) -> None:
    """What is in `folder`, which may be a checkout or hold somebody's notes, is in `new` too, with its modes; links stay."""
    for entry in folder.iterdir():
        if entry.name in but:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, new / entry.name, follow_symlinks=False)


def _write_facts(folder: Path, facts: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """`rehead.json` of a folder that holds the files `names`."""
    whole = {**facts, "format": FORMAT, "files": {name: sha256_file(folder / name) for name in names}}
    whole = {name: whole[name] for name in ("format", *(name for name in whole if name != "format"))}
    assert set(whole) == KEYS, set(whole) ^ KEYS
    (folder / FACTS).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise BundleError(what=f"The bundle lacks {path.name}.", why=f"{path} is not there.", fix=AGAIN)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if found != digest:
        raise BundleError(
            what=f"{path} was changed after the bundle was written.",
            why=f"Its SHA-256 is not the one that stands in {FACTS}.",
            fix=AGAIN,
        )
