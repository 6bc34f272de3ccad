"""Layouts of photos whose place or name says what they show: class folders, split folders, flat names.

    folders  photos/cat/**.jpg            the label is the first folder's name
    split    photos/train/cat/**.jpg      train, val|valid|validation and test, each with class folders
    flat     photos/cat.0.jpg             the label is the name before the first dot or trailing number

Rules work on lists of relative paths, so that they can be told apart without a disk. No file is opened here.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from rehead.data.columns import Names, Rows, Texts
from rehead.data.rows import SIDE_BY_NAME, Row, Skip, label_of
from rehead.errors import counted

PICTURE_NAMES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".jxl"}
CAMERA_NAMES = {
    "img",
    "dsc",
    "dscn",
    "dscf",
    "dji",
    "gopr",
    "pxl",
    "mvimg",
    "image",
    "photo",
    "picture",
    "pic",
    "frame",
    "pano",
    "vid",
    "screenshot",
    "wa",
    "whatsapp",
    "at",  # "WhatsApp Image 2024-01-01 at 12"
}
DATE_DIGITS = 6  # a day has so many; a number below may be a class
NUMBERED_SIDE = re.compile(rf"({'|'.join(SIDE_BY_NAME)})\d*", re.IGNORECASE)  # Kaggle's test1
TRAILING_NUMBER = re.compile(r"[\s_\-(]*\d+\)?$")
RUN = "recipe.toml"  # which a folder has that is a run: what it holds are no photos of its own
MIN_OF_A_NAME = 2  # names that stand once each are no classes


@dataclass(frozen=True)
class Reading:
    """What a layout makes of a list of paths."""

    rows: Rows
    skipped: list[Skip]

    def labels(self) -> set[str]:
        return set(self.rows.labels.different)


def recognised(paths: Sequence[str], classes: frozenset[str] = frozenset()) -> tuple[str, Reading]:
    """The layout that fits these relative paths, and its reading; one without rows when none does.

    One folder that holds everything is looked through when that helps. classes: the labels expected, if known.
    """
    fits = functools.partial(_fits, classes)
    if wrapper := _only_folder(paths):
        inner = Texts(path.removeprefix(wrapper) for path in paths if path.startswith(wrapper))
        name, reading = recognised(inner, classes)
        if reading.rows and (fits(reading) or wrapper[:-1].lower() in SIDE_BY_NAME):
            return name, _below(wrapper, reading)
    if _is_split(paths) and (reading := read_split(paths)).rows:
        return "split", reading
    if _is_flat(paths) and _is_named_by_people(reading := read_flat(paths), classes):
        return "flat", reading
    return ("folders", read_class_folders(paths)) if _has_class_folders(paths) else ("", Reading(Rows(), []))


def read_class_folders(paths: Sequence[str]) -> Reading:
    """The first folder of each path is its label."""
    reading = Reading(Rows(), [])
    label = functools.cache(label_of)
    for path in paths:
        folder, slash, _ = path.partition("/")
        if slash and label(folder):
            reading.rows.append(Row(path, label(folder)))
        elif slash or _looks_like_photo(path):
            reading.skipped.append(Skip(path, "lies outside the class folders", "aside"))
    return reading


def read_split(paths: Sequence[str]) -> Reading:
    """The first folder of each path is its side, the second its label; no sides when only train has labels."""
    reading = Reading(Rows(), [])
    label = functools.cache(label_of)
    strays, an_example = Counter[str](), dict[str, str]()
    for path in paths:
        first, *folders = path.split("/")[:-1] or [""]
        side = SIDE_BY_NAME.get(first.lower())
        if side and folders and label(folders[0]):
            reading.rows.append(Row(path, label(folders[0]), side))
        elif first:
            strays[first] += 1
            an_example.setdefault(first, path)
        elif _looks_like_photo(path):
            reading.skipped.append(Skip(path, "lies outside the train, valid and test folders", "aside"))
    for folder, n in strays.items():
        why = "without a class folder" if folder.lower() in SIDE_BY_NAME else "in neither train, valid nor test"
        reading.skipped.append(Skip(folder, f"{_some(n, an_example[folder])} {why}", "aside"))
    return _one_side_is_none(reading)


def read_flat(paths: Sequence[str]) -> Reading:
    """The label is in the file's name; the side is the first folder's, where several sides have labels."""
    reading = Reading(Rows(), [])
    label = functools.cache(label_of)
    named = {path.rpartition("/")[0] for path in paths if flat_label(path)}
    unnamed, an_example = Counter[str](), dict[str, str]()
    for path in paths:
        folder = path.rpartition("/")[0]
        if text := label(flat_label(path)):
            reading.rows.append(Row(path, text, SIDE_BY_NAME.get(path.partition("/")[0].lower()) if folder else None))
        elif folder in named:
            reading.skipped.append(Skip(path, "has no label in its name", "aside"))
        else:
            unnamed[folder] += 1
            an_example.setdefault(folder, path)
    for folder, n in unnamed.items():
        reading.skipped.append(
            Skip(folder or ".", f"{_some(n, an_example[folder])} without a label in the name", "aside")
        )
    return _one_side_is_none(reading)


def _some(n: int, example: str) -> str:
    """'3 files (train/b.jpg and 2 more)'."""
    return f"{counted(n, 'file')} ({example}{f' and {n - 1} more' if n > 1 else ''})"


def flat_label(path: str) -> str:
    """The label in a file's name: cat.0.jpg, cat_001.jpg, cat (2).jpg are all "cat"; 17.jpg has none ("")."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    head, dot, _ = stem.partition(".")
    return (head if dot else TRAILING_NUMBER.sub("", head)).rstrip(" _-(")


READERS: dict[str, Callable[[Sequence[str]], Reading]] = {
    "folders": read_class_folders,
    "split": read_split,
    "flat": read_flat,
}


def forced(layout: str, paths: Sequence[str]) -> Reading:
    """What a layout makes of the paths, or of what the only folder holds when that has more labels."""
    reading = READERS[layout](paths)
    if wrapper := _only_folder(paths):
        inner = forced(layout, [path.removeprefix(wrapper) for path in paths if path.startswith(wrapper)])
        if len(inner.labels()) > len(reading.labels()):
            return _below(wrapper, inner)
    return reading


def without_runs(paths: Texts, skipped: list[Skip]) -> Texts:
    """The paths that lie in no run of rehead; skipped: is given the runs."""
    runs = {place for path in paths for place, _, name in [path.rpartition("/")] if place and name == RUN}
    skipped += [Skip(run, "is a run of rehead", "aside") for run in sorted(runs)]
    return Texts(path for path in paths if not any(path.startswith(f"{run}/") for run in runs)) if runs else paths


def _fits(classes: frozenset[str], reading: Reading) -> bool:
    labels = reading.labels()
    return bool(labels & classes) if classes else len(labels) > 1


def _only_folder(paths: Sequence[str]) -> str:
    """The one folder, with its "/", that holds all files that could be photos, or ""."""
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    if len(folders) != 1 or any("/" not in path and _looks_like_photo(path) for path in paths):
        return ""
    return folders.pop() + "/"


def _below(wrapper: str, reading: Reading) -> Reading:
    rows = reading.rows
    return Reading(
        Rows.of(Texts(wrapper + path for path in rows.paths), rows.labels, rows.sides, rows.groups),
        [replace(skip, path=wrapper + skip.path) for skip in reading.skipped],
    )


def _is_split(paths: Sequence[str]) -> bool:
    """Whether train has class folders, and so has another side, or there is nothing but sides."""
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    with_classes = {SIDE_BY_NAME.get(path.partition("/")[0].lower()) for path in paths if path.count("/") > 1} - {None}
    only_sides = len(tops) > 1 and all(NUMBERED_SIDE.fullmatch(top) for top in tops)
    return "train" in with_classes and (len(with_classes) > 1 or only_sides)


def _is_flat(paths: Sequence[str]) -> bool:
    """Whether no folder could be a class, or most photos stand in none."""
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    if all(NUMBERED_SIDE.fullmatch(top) for top in tops):
        return True
    loose = sum("/" not in path and _looks_like_photo(path) for path in paths)
    return loose > len(paths) / 2


def _is_named_by_people(reading: Reading, classes: frozenset[str]) -> bool:
    """Whether at least two labels stand on several photos each, cameras' own names apart, and most photos have such labels."""
    counts = Counter(row.label for row in _photos(reading))
    if classes:
        return bool(counts.keys() & classes)
    shared = [n for label, n in counts.items() if n >= MIN_OF_A_NAME and not _is_a_cameras(label)]
    return len(shared) > 1 and 2 * sum(shared) >= counts.total()


def _is_a_cameras(label: str) -> bool:
    """Whether a label is made of words and numbers that cameras and phones give: IMG-20240101-WA, 20240101."""
    words = re.findall(r"[^\W\d_]+", label.lower())
    return CAMERA_NAMES.issuperset(words) and (bool(words) or sum(map(str.isdigit, label)) >= DATE_DIGITS)


def _has_class_folders(paths: Sequence[str]) -> bool:
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    return not all(NUMBERED_SIDE.fullmatch(top) for top in tops)


def _one_side_is_none(reading: Reading) -> Reading:
    """A single side is no split: train beside a test folder without labels, and perhaps some other file."""
    rows = reading.rows
    sides = {row.side for row in _photos(reading)}
    if sides & {"valid", "test"} and sides & {"train", None}:
        return reading
    return Reading(Rows.of(rows.paths, rows.labels, Names(None for _ in rows), rows.groups), reading.skipped)


def _photos(reading: Reading) -> Iterator[Row]:
    """The rows that are photos by their names, or all of them where names tell nothing."""
    named = any(map(_looks_like_photo, reading.rows.paths))
    return (row for row in reading.rows if not named or _looks_like_photo(row.path))


def _looks_like_photo(path: str) -> bool:
    return PurePath(path).suffix.lower() in PICTURE_NAMES
