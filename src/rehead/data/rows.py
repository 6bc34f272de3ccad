"""What every reader of `data/` gives: rows with a path, a label and perhaps a side, and a way to the bytes of each.

Nothing here knows where photos come from. What the bytes hold is judged by `scan.py`.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from rehead.data.far import Readers
from rehead.data.photo_bytes import photo_in
from rehead.errors import SourceError, escaped
from rehead.progress import Progress, Silent

SIDE_BY_NAME = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}


Stamp = tuple[int, int, int]  # bytes; nanoseconds since 1970 of the last change of the content, and of anything


class Named(Protocol):
    """What has a path: a row, or a photo that was made of one."""

    @property
    def path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One file that should be a labelled photo.

    path: as shown to people and written in manifests, with "/"; unique in its source; bytes that are no valid UTF-8 are
        kept as surrogates. label: valid Unicode, empty only where photos have any number of labels. side: "train",
        "valid", "test", or None where the source does not say. group: photos of one group must stay on one side.
    """

    path: str
    label: str
    side: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled image. digest: BLAKE3 of the file's bytes, 32 bytes. side: "train", "valid" or "test"."""

    path: str
    label: str
    side: str
    digest: bytes
    group: str | None = None


NOT_THERE = "is not there"  # of a file that a list names


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was left out, and why; the reason continues the path: "a.jpg" "is not there".

    kind: "broken" is what cannot be used, "copy" a photo whose bytes stand elsewhere too, "aside" what was passed over and may
    be whole.
    """

    path: str
    reason: str
    kind: Literal["broken", "copy", "aside"] = "broken"

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON; bytes of the path that are no UTF-8 are escaped."""
        return {"path": escaped(self.path), "reason": escaped(self.reason), "kind": self.kind}


@dataclass(frozen=True)
class Source:
    """Labelled files, and the bytes of each.

    name: short, fit to name a folder. layout: a key of `sources.LAYOUTS` (for an archive, that of what was in it).
    read: the bytes of a row, told by its path, as what follows is, of what is no image perhaps its beginning alone; raises
    OSError or PhotoError; may be called from several threads.
    root: the folder that the paths are relative to, None where they are not files of the user's.
    file: the full path of the file that holds a row's bytes and nothing else, None where there is none. uri: an address at
    which other machines too can read them, such as s3://bucket/cat/1.jpg, None where there is none. stamp: what changes when
    they do at that address, None where its store does not say. digest: the BLAKE3 of a row that is an image, where its reader
    has read it all. is_rest: whether a row is of the training side for no other reason than that photos to hold out are named
    apart. is_named: whether a list says of a row that it is a photo, which it then should be; else its content tells. within:
    what holds a row's bytes beside others', so that its file, where it has one, is a copy of ours; else "".
    """

    name: str
    layout: str
    rows: Sequence[Row]
    read: Callable[[Named], bytes]
    skipped: list[Skip]
    root: Path | None = None
    file: Callable[[Named], str | None] = lambda _: None
    uri: Callable[[Named], str | None] = lambda _: None
    stamp: Callable[[Named], Stamp | None] = lambda _: None
    digest: Callable[[Named], bytes | None] = lambda _: None
    is_rest: Callable[[Named], bool] = lambda _: False
    is_named: Callable[[Named], bool] = lambda _: True
    within: Callable[[Named], Literal["", "archive", "shard"]] = lambda _: ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a reader may need besides the source itself.

    cache: where archives are unpacked. classes: the labels that are expected, empty when anything is. besides: what is on a
    disk, and addresses, that are read for another side and no part of this source. confined: no path may lead out of the
    source's folder. task: what labels are, see `targets.py`, or "auto"; where there are several a photo, none is a label too.
    shown: what errors call the folder where it is none of the user's. max_bad: the share of shards that may be broken.
    readers: machines that read what has an address.
    """

    cache: Path
    classes: frozenset[str] = frozenset()
    besides: tuple[Path | str, ...] = ()
    confined: bool = False
    task: str = "auto"
    shown: str = ""
    max_bad: float = 0.2
    readers: Readers | None = None
    progress: Progress = field(default_factory=Silent)


def reader_below(root: str) -> Callable[[Named], bytes]:
    """The bytes of the file that a row names, relative to `root`."""

    return lambda row: photo_in(os.path.join(root, row.path))


def file_below(root: str) -> Callable[[Named], str]:
    """The full path of the file that a row names, relative to `root`."""
    full = os.path.abspath(root)
    return lambda row: os.path.join(full, row.path)


def is_nothing(value: Any) -> bool:
    """Whether a cell of a table is empty: None, NaN, or one of pandas' own kinds of nothing."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def unboxed(value: Any) -> Any:
    """What an array or tensor of one element holds, a list of what one of names holds, and any other value as it is.

    Raises SourceError for what is no label: a mapping, and several numbers, which may be those of classes or one for each.
    """
    is_mapping = isinstance(value, Mapping)
    if not is_mapping and not hasattr(value, "ndim"):
        return value
    if isinstance(value, np.ndarray) and (value.dtype.kind not in "biufc" or not value.size):
        return value.tolist()
    if is_mapping or math.prod(value.shape) != 1:
        raise SourceError(
            what=f"A label is {'a mapping' if is_mapping else 'an array'}.",
            why="Each photo has a name or a number, or a list of names.",
            fix="" if is_mapping else "Of one-hot rows pass the numbers of the classes: labels.argmax(1).",
        )
    return value.item()


def label_of(value: Any) -> str:
    """A label as text: composed Unicode (folders copied from a Mac are decomposed), "" for None and NaN, 3 for 3.0.

    A list of labels, as Parquet and Python have them, is joined by ";", which one of no name or of one ends with, so that it
    is seen that photos may have several. What is no UTF-8 becomes an escape (`caf\\xe9`), so that labels can be written
    anywhere and stay different. Raises SourceError for arrays of several numbers, and for a name in a list that holds a ";".
    """
    if hasattr(value, "ndim"):
        value = unboxed(value)
    if isinstance(value, list | tuple | set | frozenset):
        names = list(filter(None, map(label_of, value)))
        if torn := [name for name in names if ";" in name]:
            raise SourceError(
                what=f"A list of labels holds {quoted(torn[0])}.",
                why='A ";" parts the labels of a photo where they are written down.',
                fix="Name that label another way.",
            )
        return ";".join(names) + ";" * (len(names) < 2 and all(isinstance(name, str) for name in value))
    if is_nothing(value):
        return ""
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return escaped(unicodedata.normalize("NFC", str(value).strip()))


def bounded(text: str, n: int = 80) -> str:
    """A cell of a table as an error shows it: a quote that is not closed makes one of the whole file."""
    return text if len(text) <= n else text[:n] + "..."


def quoted(text: str) -> str:
    """A name in quotes, bounded; control characters are escaped, what is escaped already is not escaped again."""
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in bounded(text)) + "'"


def side_in(path: str) -> str | None:
    """The side that a word of a file's name, or else of the nearest folder, is the name of: train-0000.tar, val/3.tar.

    A folder that says something else, such as label=test, has none.
    """
    *folders, file = path.lower().split("/")
    may_say = [folder for folder in folders if "=" not in folder or folder.partition("=")[0] in ("split", "side")]
    words = (word.rstrip("0123456789") for name in (file, *reversed(may_say)) for word in re.split(r"\W|_", name))
    return next((SIDE_BY_NAME[word] for word in words if word in SIDE_BY_NAME), None)


def are_sides(sides: Collection[str | None]) -> bool:
    """Whether these, of files, make a split: a single side is none."""
    return bool({"valid", "test"} & {*sides} and {"train", None} & {*sides})


def first_few(names: Sequence[str], n: int = 5) -> str:
    """Names as a line has them: "a, b, c and 9 more"."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def short_name(text: str) -> str:
    """A name for runs: letters, digits, "-", "_" and "." of `text`, at most 60."""
    return re.sub(r"[^\w.-]+", "-", label_of(text), flags=re.ASCII).strip("-.")[:60] or "photos"
