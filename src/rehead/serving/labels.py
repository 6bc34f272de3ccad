"""The label of a correction, checked: what a person typed or chose -> the text under which `rehead tune` reads it again.

Of classes it names a folder, so it must be one that `data/layouts.py` gives back letter by letter. A class of the model is
refused only where no folder of this system can have its name, or it would be read as a part of a split; a new name also where
another system could not.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

from rehead.bundle_facts import Task
from rehead.data.layouts import NUMBERED_SIDE
from rehead.data.rows import label_of, quoted
from rehead.data.targets import SEPARATOR, label_for, names_in
from rehead.data.walk import is_leftover
from rehead.serving.manifest import MANIFEST, PHOTOS
from rehead.serving.problems import Problem

MAX_LETTERS = 100  # of a new name; people do not read longer ones
MAX_BYTES = 200  # of a folder's name: file systems allow 255, and some count each letter as three
JOINERS = "\u200c\u200d"  # letters of some scripts and signs need them, and they are not shown
ELSEWHERE = '<>:"|?*\\'  # that Windows allows in no name
WINDOWS = {"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(1, 10))}
FIX = "Correct it by another name, or edit the folder by hand."


def checked(text: str, task: Task, classes: Sequence[str]) -> str:
    """The label as it is kept. Raises Problem 422 with the reason why it is none."""
    if task == "regression":
        return _number(text)
    if task == "multilabel":
        names = [_new(name, classes) for name in names_in(label_of(text))]
        return SEPARATOR.join(sorted(set(names)))
    label = _new(label_of(text), classes)
    if why := _no_folder(label):
        raise Problem(422, f"{quoted(label)} cannot be the name of a folder: {why}.", fix=FIX)
    return label


def _new(text: str, classes: Sequence[str]) -> str:
    """A class, also where it was typed in other capitals; else a new name, checked."""
    if text in classes:
        return text
    if same := [name for name in classes if name.casefold() == text.casefold()]:
        return same[0]
    if not text:
        raise Problem(422, "There is no label.", fix="Pass ?label=, what the picture shows.")
    if len(text) > MAX_LETTERS:
        raise Problem(422, f"The label has {len(text)} letters.", fix=f"Pass at most {MAX_LETTERS}.")
    if any(not c.isprintable() and c not in JOINERS for c in text) or _is_hidden(text):
        raise Problem(422, f"The label {quoted(text)} has letters that are not shown.", fix="Type it anew.")
    if why := _not_elsewhere(text):
        raise Problem(422, f"{quoted(text)} cannot be a class: {why}.", fix="Choose another name.")
    return text


def _number(text: str) -> str:
    try:
        return repr(float(label_for("regression", label_of(text))))
    except ValueError as error:
        fix = "Pass ?label=, the number that it should be: 3.5"
        raise Problem(422, f"The picture {error}.", fix=fix) from None


def _is_hidden(text: str) -> bool:
    return not any(unicodedata.category(c)[0] in "LNSP" for c in text)


def _no_folder(label: str) -> str:
    """Why a label cannot name a folder that is read again as this label; empty where it can."""
    if "/" in label or "\0" in label or label in (".", ".."):
        return "it would be a path"
    if is_leftover(label):
        return "folders of that name are hidden, or left behind by systems, and are not read"
    if NUMBERED_SIDE.fullmatch(label):
        return "folders of that name are read as a part of a split (train, valid, test), not as a class"
    if label.casefold() in (MANIFEST, PHOTOS):
        return "corrections of labels and numbers lie under that name"
    if len(os.fsencode(label)) > MAX_BYTES:
        return f"it has more than {MAX_BYTES} bytes"
    if label_of(label) != label:
        return "it would be read as another one"
    return _not_elsewhere(label) if os.name == "nt" else ""


def _not_elsewhere(label: str) -> str:
    """Why Windows has no folder of that name, or a table could not hold it."""
    if found := [c for c in label if c in ELSEWHERE + "/" + SEPARATOR]:
        return f"it has a {found[0]!r}"
    if label.startswith(".") or label.endswith((".", " ")):
        return "it begins or ends with a dot"
    if label.partition(".")[0].strip().lower() in WINDOWS:
        return "Windows keeps that name for a device"
    return ""
