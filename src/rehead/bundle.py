"""The folder a user ships: `model.onnx`, `rehead.json`, `head.safetensors`, `README.md`. Data only, no code.

`docs/bundle.md` describes the format so that a stranger can re-implement it. Here it is written whole or not at all,
read, and checked: every file is there, is the one whose digest stands in `rehead.json`, and is not newer than this
program. Building the graph is left to `export.py`, running it to `predict.py`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rehead.durable import replaced_folder, sha256_file
from rehead.errors import BundleError, MissingExtra
from rehead.pixels import Preprocess

FORMAT = 3
FACTS = "rehead.json"
MODEL = "model.onnx"
HEAD = "head.safetensors"
CARD = "README.md"
KEYS_1 = {"format", "classes", "preprocess", "head", "backbone", "recipe", "verdict", "files", "versions"}
KEYS_2 = KEYS_1 | {"task", "thresholds"}
KEYS = KEYS_2 | {"calibration", "unsure", "unfamiliar"}
TABLES = ("preprocess", "head", "backbone", "recipe", "verdict", "files", "versions")
ABOVE_ALL = 1.5  # a probability that none reaches: every answer is unsure
MAX_FACTS_BYTES = 64 << 20  # a verdict over ten thousand classes is 2 MB; more than this is no bundle of ours

Kind = Literal["linear", "mlp", "prototype"]
Activation = Literal["relu", "none"]
Task = Literal["classification", "multilabel", "regression"]
MIN_CLASSES: dict[Task, int] = {"classification": 2, "multilabel": 1, "regression": 0}


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
class Bundle:
    """A bundle that was checked. `facts` is `rehead.json`, lifted to this format, under the keys of `KEYS`.

    thresholds: of several labels a photo, the probability from which on each is named; empty for other tasks.
    temperature: what logits are divided by before they become probabilities. unsure_below: the probability of the answer
    below which it is unsure, above 1 where every answer is; None where that is not known. unfamiliar_above: the
    distance above which a photo is unlike those the model knows; None where that is not known.
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

    @property
    def model(self) -> Path:
        return self.folder / MODEL


def read(folder: Path) -> Bundle:
    """The bundle in `folder`, after checking that it is whole. Raises BundleError with the reason it is refused."""
    facts = _read_facts(folder)
    for name, digest in facts["files"].items():
        if name not in (MODEL, HEAD, CARD):
            raise BundleError(what=f"The bundle {folder} names a file that no bundle has: {name!r}.")
        _check_file(folder / name, digest)
    if MODEL not in facts["files"] or HEAD not in facts["files"]:
        raise BundleError(what=f"The bundle {folder} does not name {MODEL} and {HEAD} in {FACTS}.", fix=_AGAIN)
    task, classes, thresholds = _what_is_named(facts, folder / FACTS)
    preprocess = _preprocess(facts["preprocess"], folder / FACTS)
    return Bundle(folder, facts, classes, preprocess, task, thresholds, *_what_is_doubted(facts, folder / FACTS))


def read_head(folder: Path) -> Head:
    """The head of the bundle in `folder`, from its `head.safetensors`."""
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise MissingExtra("safetensors", "tune", "Reading a bundle's head") from None
    facts = _read_facts(folder)["head"]
    tensors = load_file(folder / HEAD)
    layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(len(tensors) // 2))
    return Head(facts["kind"], layers, facts["activation"])


def write(folder: Path, *, model: bytes, head: Head, card: str, facts: Mapping[str, Any]) -> Bundle:
    """The bundle, written to `folder` whole or not at all; an older one there is replaced.

    model: the ONNX graph. card: the model card in Markdown. facts: the keys of `KEYS` but format, head and files.
    """
    from safetensors.numpy import save

    tensors = {f"layers.{i}.{name}": np.ascontiguousarray(tensor) for i, layer in enumerate(head.layers)
               for name, tensor in zip(("weight", "bias"), layer, strict=True)}  # fmt: skip
    with replaced_folder(folder) as temporary:
        (temporary / MODEL).write_bytes(model)
        (temporary / HEAD).write_bytes(save(tensors))  # its own writer lets nobody but the owner read the file
        (temporary / CARD).write_text(card, encoding="utf-8")
        files = {name: sha256_file(temporary / name) for name in (MODEL, HEAD, CARD)}
        about_head = {"kind": head.kind, "activation": head.activation}
        whole = {"format": FORMAT, "head": about_head, **facts, "files": files}
        assert set(whole) == KEYS, set(whole) ^ KEYS
        (temporary / FACTS).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return read(folder)


_AGAIN = "Export the run again with rehead tune, or copy the whole folder again."


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        if path.stat().st_size > MAX_FACTS_BYTES:
            raise BundleError(what=f"{path} is too large to be a bundle's.", fix=_AGAIN)
        facts = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            what=f"{folder} is no bundle: it has no {FACTS}.",
            fix=f"Pass the folder that rehead tune wrote, such as {folder / 'bundle'}."
            if (folder / "bundle" / FACTS).is_file()
            else "Pass the folder `bundle` of a run that rehead tune made.",
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(what=f"{path} cannot be read.", why=str(error), fix=_AGAIN) from error
    return _checked(facts, path)


def _checked(facts: Any, path: Path) -> dict[str, Any]:
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise BundleError(what=f"{path} has no format number.", fix=_AGAIN)
    if facts["format"] > FORMAT:
        raise BundleError(
            what=f"The bundle has format {facts['format']}; this rehead reads up to {FORMAT}.",
            fix="Update with: pip install --upgrade rehead",
        )
    keys = {1: KEYS_1, 2: KEYS_2}.get(facts["format"], KEYS)
    if facts["format"] < 1 or set(facts) != keys:
        odd = ", ".join(sorted(set(facts) ^ keys)) or f"format {facts['format']}"
        raise BundleError(what=f"{path} is not as a bundle's must be.", why=f"Missing or unknown: {odd}.", fix=_AGAIN)
    if lacking := [key for key in TABLES if not isinstance(facts[key], dict)]:
        raise BundleError(what=f"{path} is not as a bundle's must be: no table is {', '.join(lacking)}.", fix=_AGAIN)
    if not isinstance(facts["verdict"].get("n_train"), int):
        raise BundleError(what=f"{path} is not as a bundle's must be: the verdict has no n_train.", fix=_AGAIN)
    lifted: dict[str, Any] = facts
    for lift in (_lift_1_to_2, _lift_2_to_3)[facts["format"] - 1 :]:
        lifted = lift(lifted)
    return lifted


def _lift_1_to_2(facts: dict[str, Any]) -> dict[str, Any]:
    """Bundles of format 1 name one class."""
    return {**facts, "format": 2, "task": "classification", "thresholds": []}


def _lift_2_to_3(facts: dict[str, Any]) -> dict[str, Any]:
    """Bundles of format 2 do not know what they are unsure of."""
    return {**facts, "format": 3, "calibration": None, "unsure": None, "unfamiliar": None}


def _what_is_doubted(facts: Mapping[str, Any], path: Path) -> tuple[float, float | None, float | None]:
    """The temperature, and the probability and the distance beyond which an answer or a photo is doubted."""
    try:
        temperature = 1.0 if facts["calibration"] is None else float(facts["calibration"]["temperature"])
        unsure, far = facts["unsure"], facts["unfamiliar"]
        below = None
        if unsure is not None:
            below = ABOVE_ALL if unsure["threshold"] is None else float(unsure["threshold"])
        above = None if far is None else float(far["threshold"])
    except (TypeError, KeyError, ValueError) as error:
        raise BundleError(
            what=f"What {path} says of calibration, unsure and unfamiliar is not as a bundle's must be.",
            why=f"{type(error).__name__}: {error}.",
            fix=_AGAIN,
        ) from error
    if not 0 < temperature < math.inf:
        raise BundleError(what=f"The temperature in {path} is {temperature}, which is not above 0.", fix=_AGAIN)
    return temperature, below, above


def _what_is_named(facts: Mapping[str, Any], path: Path) -> tuple[Task, tuple[str, ...], tuple[float, ...]]:
    """Task, classes and thresholds, checked against each other."""
    task, classes, thresholds = facts["task"], facts["classes"], facts["thresholds"]
    if not isinstance(task, str) or task not in MIN_CLASSES:
        raise BundleError(
            what=f"The task in {path} is {task!r}.", why=f"Known are {', '.join(MIN_CLASSES)}.", fix=_AGAIN
        )
    least = MIN_CLASSES[task]
    if not (isinstance(classes, list) and len(classes) >= least and all(isinstance(c, str) for c in classes)):
        names = ("none", "at least one name", "at least two names")[least]
        raise BundleError(what=f"The classes in {path} are not a list of {names}.", fix=_AGAIN)
    if twice := [name for name, n in Counter(classes).items() if n > 1]:
        raise BundleError(
            what=f"The classes in {path} hold a name twice: {twice[0]!r}.",
            why="Nobody could tell which of the two is meant.",
            fix=_AGAIN,
        )
    wanted = len(classes) if task == "multilabel" else 0
    is_list = isinstance(thresholds, list) and all(isinstance(t, float) and 0 <= t <= 1 for t in thresholds)
    if not is_list or len(thresholds) != wanted:
        raise BundleError(what=f"The thresholds in {path} are not {wanted} numbers in 0..1.", fix=_AGAIN)
    return task, tuple(classes), tuple(thresholds)


def _preprocess(values: dict[str, Any], path: Path) -> Preprocess:
    try:
        return Preprocess.from_dict(values)
    except (TypeError, ValueError) as error:
        raise BundleError(
            what=f"The preprocessing in {path} is not as a bundle's must be.", why=f"{error}.", fix=_AGAIN
        ) from error


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise BundleError(what=f"The bundle lacks {path.name}.", why=f"{path} is not there.", fix=_AGAIN)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found != digest:
        raise BundleError(
            what=f"{path} was changed after the bundle was written.",
            why=f"Its SHA-256 is not the one that stands in {FACTS}.",
            fix=_AGAIN,
        )


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(
        what=f"{path} cannot be read.",
        why=f"{error.strerror or error}.",
        fix="Check the permissions of the bundle's files.",
    )
