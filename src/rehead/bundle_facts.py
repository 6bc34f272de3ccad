"""`rehead.json`, which says what a bundle is: read, checked, and lifted to this format.

What it says of files is checked in `bundle.py`, where they are. `docs/bundle.md` describes the format.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rehead.errors import BundleError
from rehead.pixels import Preprocess

FORMAT = 4
FACTS = "rehead.json"
MODEL = "model.onnx"
HEAD = "head.safetensors"
CARD = "README.md"
KEYS_1 = {"format", "classes", "preprocess", "head", "backbone", "recipe", "verdict", "files", "versions"}
KEYS_2 = KEYS_1 | {"task", "thresholds"}
KEYS_3 = KEYS_2 | {"calibration", "unsure", "unfamiliar"}
KEYS = KEYS_3 | {"variants", "neighbours"}
TABLES = ("preprocess", "head", "backbone", "recipe", "verdict", "files", "versions")
ABOVE_ALL = 1.5  # a probability that none reaches: every answer is unsure
MAX_FACTS_BYTES = 64 << 20  # a verdict of ten thousand classes is 5 MB; more than this is no bundle of ours
MAX_TILE, MAX_COLUMNS = 512, 128  # of the small pictures: a sheet stays far below what a decoder refuses
MAX_TILES = 10_000  # each is cut and encoded when one is asked for; of rehead's own there are up to 2,000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # of a file in a bundle: never a path

Task = Literal["classification", "multilabel", "regression"]
MIN_CLASSES: dict[Task, int] = {"classification": 2, "multilabel": 1, "regression": 0}


AGAIN = "Export the run again with rehead tune, or copy the whole folder again."


def read_facts(folder: Path) -> dict[str, Any]:
    """What `rehead.json` says, lifted to this format. Raises BundleError for what is no bundle's."""
    path = folder / FACTS
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device could be read without end
            raise BundleError(what=f"{path} is not a regular file.", fix=AGAIN)
        with path.open("rb") as file:
            data = file.read(MAX_FACTS_BYTES + 1)
        if len(data) > MAX_FACTS_BYTES:
            raise BundleError(what=f"{path} is too large to be a bundle's.", fix=AGAIN)
        facts = json.loads(data)
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise BundleError(
                what=f"There is no folder {folder}.",
                why=f"It was looked for at {folder.absolute()}." if not folder.is_absolute() else "",
                fix="Check the spelling, or pass the folder's full path.",
            ) from None
        raise BundleError(
            what=f"{folder} is no bundle: it has no {FACTS}.",
            fix=f"Pass the folder that rehead tune wrote, such as {folder / 'bundle'}."
            if (folder / "bundle" / FACTS).is_file()
            else "Pass the folder `bundle` of a run that rehead tune made.",
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(what=f"{path} cannot be read.", why=str(error), fix=AGAIN) from error
    return _checked(facts, path)


def _checked(facts: Any, path: Path) -> dict[str, Any]:
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise BundleError(what=f"{path} has no format number.", fix=AGAIN)
    if facts["format"] > FORMAT:
        raise BundleError(
            what=f"The bundle has format {facts['format']}; this rehead reads up to {FORMAT}.",
            fix="Update with: pip install --upgrade rehead",
        )
    keys = {1: KEYS_1, 2: KEYS_2, 3: KEYS_3}.get(facts["format"], KEYS)
    if facts["format"] < 1 or set(facts) != keys:
        odd = ", ".join(sorted(set(facts) ^ keys)) or f"format {facts['format']}"
        raise BundleError(what=f"{path} is not as a bundle's must be.", why=f"Missing or unknown: {odd}.", fix=AGAIN)
    if lacking := [key for key in TABLES if not isinstance(facts[key], dict)]:
        raise BundleError(what=f"{path} is not as a bundle's must be: no table is {', '.join(lacking)}.", fix=AGAIN)
    if not isinstance(facts["verdict"].get("n_train"), int):
        raise BundleError(what=f"{path} is not as a bundle's must be: the verdict has no n_train.", fix=AGAIN)
    lifted: dict[str, Any] = facts
    for lift in (_lift_1_to_2, _lift_2_to_3, _lift_3_to_4)[facts["format"] - 1 :]:
        lifted = lift(lifted)
    return lifted


def _lift_1_to_2(facts: dict[str, Any]) -> dict[str, Any]:
    """Bundles of format 1 name one class."""
    return {**facts, "format": 2, "task": "classification", "thresholds": []}


def _lift_2_to_3(facts: dict[str, Any]) -> dict[str, Any]:
    """Bundles of format 2 do not know what they are unsure of."""
    return {**facts, "format": 3, "calibration": None, "unsure": None, "unfamiliar": None}


def _lift_3_to_4(facts: dict[str, Any]) -> dict[str, Any]:
    """Bundles of format 3 have one graph, and no pictures of photos that they know."""
    return {**facts, "format": 4, "variants": {}, "neighbours": None}


def what_is_doubted(facts: Mapping[str, Any], path: Path) -> tuple[float, float | None, float | None]:
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
            fix=AGAIN,
        ) from error
    for name, threshold in (("unsure", below), ("unfamiliar", above)):
        if threshold is not None and not math.isfinite(threshold):
            raise BundleError(what=f"The threshold of {name} in {path} is {threshold}, which is no number.", fix=AGAIN)
    if not 0 < temperature < math.inf:
        raise BundleError(what=f"The temperature in {path} is {temperature}, which is not above 0.", fix=AGAIN)
    return temperature, below, above


def what_is_named(facts: Mapping[str, Any], path: Path) -> tuple[Task, tuple[str, ...], tuple[float, ...]]:
    """Task, classes and thresholds, checked against each other."""
    task, classes, thresholds = facts["task"], facts["classes"], facts["thresholds"]
    if not isinstance(task, str) or task not in MIN_CLASSES:
        raise BundleError(
            what=f"The task in {path} is {task!r}.", why=f"Known are {', '.join(MIN_CLASSES)}.", fix=AGAIN
        )
    least = MIN_CLASSES[task]
    if not (isinstance(classes, list) and len(classes) >= least and all(isinstance(c, str) for c in classes)):
        names = ("none", "at least one name", "at least two names")[least]
        raise BundleError(what=f"The classes in {path} are not a list of {names}.", fix=AGAIN)
    if not _are_text(classes):
        raise BundleError(what=f"The classes in {path} hold a name that is no text: half a surrogate pair.", fix=AGAIN)
    if twice := [name for name, n in Counter(classes).items() if n > 1]:
        raise BundleError(
            what=f"The classes in {path} hold a name twice: {twice[0]!r}.",
            why="Nobody could tell which of the two is meant.",
            fix=AGAIN,
        )
    wanted = len(classes) if task == "multilabel" else 0
    is_list = isinstance(thresholds, list) and all(isinstance(t, float) and 0 <= t <= 1 for t in thresholds)
    if not is_list or len(thresholds) != wanted:
        raise BundleError(what=f"The thresholds in {path} are not {wanted} numbers in 0..1.", fix=AGAIN)
    return task, tuple(classes), tuple(thresholds)


def preprocess_of(values: dict[str, Any], path: Path) -> Preprocess:
    try:
        return Preprocess.from_dict(values)
    except (TypeError, ValueError) as error:
        raise BundleError(
            what=f"The preprocessing in {path} is not as a bundle's must be.", why=f"{error}.", fix=AGAIN
        ) from error


def files_named(facts: Mapping[str, Any], path: Path) -> set[str]:
    """The files that a bundle of these facts may have. Raises BundleError for a name that is a path, or stands for two."""
    variants, neighbours = facts["variants"], facts["neighbours"]
    try:
        of_variants = [name for variant in variants.values() for name in variant["files"]]
        odd = [name for name, variant in variants.items() if not _is_variant(variant)]
        others = of_variants + ([] if neighbours is None else [neighbours["file"]])
        wrong = [name for name in others if NAME.fullmatch(name) is None or name in (MODEL, HEAD, CARD, FACTS)]
        wrong += odd + [name for name in variants if NAME.fullmatch(name) is None]
        wrong += [name for name, n in Counter(others).items() if n > 1]
        lacking = [name for name in (MODEL, HEAD, *others) if name not in facts["files"]]
        if neighbours is not None and not _is_sheet(neighbours):
            wrong.append(neighbours["file"])
    except (TypeError, KeyError, AttributeError) as error:
        raise BundleError(
            what=f"What {path} says of variants and neighbours is not as a bundle's must be.",
            why=f"{type(error).__name__}: {error}.",
            fix=AGAIN,
        ) from error
    if wrong:
        raise BundleError(what=f"{path} describes {wrong[0]!r}, which no bundle has so.", fix=AGAIN)
    if lacking:
        raise BundleError(what=f"{path} does not name {' and '.join(lacking)} among its files.", fix=AGAIN)
    return {MODEL, HEAD, CARD, *others}


def _is_variant(about: Mapping[str, Any]) -> bool:
    """Whether a table names what is opened, and has one of what was measured."""
    return isinstance(about["files"], list) and bool(about["files"]) and isinstance(about["measured"], dict)


def _is_sheet(neighbours: Mapping[str, Any]) -> bool:
    """Whether a table says where in a picture of tiles each photo is."""
    tile, columns, labels = neighbours["tile"], neighbours["columns"], neighbours["labels"]
    sized = isinstance(tile, int) and isinstance(columns, int) and 0 < tile <= MAX_TILE and 0 < columns <= MAX_COLUMNS
    listed = isinstance(labels, list) and len(labels) <= MAX_TILES and all(isinstance(x, str) for x in labels)
    return sized and listed and _are_text(labels)


def _are_text(names: list[str]) -> bool:
    """Whether they can be written as UTF-8, which JSON's escapes do not see to."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(
        what=f"{path} cannot be read.",
        why=f"{error.strerror or error}.",
        fix="Check the permissions of the bundle's files.",
    )
