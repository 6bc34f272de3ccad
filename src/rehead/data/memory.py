"""Photos that a program already holds: sequences of (image, label), torchvision's datasets, Hugging Face's.

What is a file stays a file and what is encoded stays encoded, so that a photo has the same bytes whichever way it comes
in; decoded pictures are encoded without loss. Tables and lists of paths are left to `tables.py`.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rehead.data.photo_bytes import photo_in
from rehead.data.rows import Named, Request, Row, Skip, Source, file_below, label_of, reader_below, short_name, unboxed
from rehead.data.tables import is_table, values_of
from rehead.data.targets import SEPARATOR
from rehead.errors import PhotoError, SourceError, nearest
from rehead.pixels import as_image, decoding

BMP_MODES = {"L", "RGB"}  # read and written faster than anything else
PNG_MODES = {"1", "P", "LA", "RGBA", "I;16"}
TIFF_MODES = {"I", "F", "CMYK", "YCbCr", "LAB"}
ORDERED_MODES = {"I;16B", "I;16L", "I;16N"}  # "I;16" in an order of bytes that no conversion knows
IMAGE_COLUMNS = ("image", "img", "photo", "picture")
LABEL_COLUMNS = ("label", "labels", "class", "category")
N_ASKED = 3  # times that two items are asked for: of four random flips more than one in ten is never seen in two


def read_dataset(source: Any, request: Request) -> Source:
    """The rows of a sequence of (image, label): path, bytes, Pillow image, array or tensor, and name or number.

    `.samples`, `.targets` and `.classes`, as torchvision's datasets have them, are used where they are there and say what
    its items are.
    """
    if _are_files(source):
        return _image_folder(source)
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        raise no_sequence(source)
    _check_steady(source)
    classes = _classes(source)
    labels = _targets(source, classes)

    def label_at(i: int) -> str | PhotoError:
        try:
            return _label(_pair(source, i)[1] if labels is None else labels[i], classes)
        except PhotoError as error:
            return error

    rows, skipped = _rows([label_at(i) for i in range(len(source))], request)
    return _source("dataset", rows, skipped, lambda i: _pair(source, i)[0])


def read_hugging_face(source: Any, request: Request) -> Source:
    """The rows of a Hugging Face `Dataset` with an image column and one of labels; its images are not decoded."""
    if not hasattr(source, "__len__"):
        raise no_sequence(source)
    features = source.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    kinds = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    others = [name for name in LABEL_COLUMNS if name in features]
    image = _one_column(images, IMAGE_COLUMNS, "image", features)
    label = _one_column(kinds or others, LABEL_COLUMNS, "label", features)
    plain = source.with_format(None)
    encoded = plain.cast_column(image, type(features[image])(decode=False))
    names = getattr(getattr(features[label], "feature", features[label]), "names", None)  # feature: of a list
    labels = ["" if names is not None and value in (None, -1) else _label(value, names) for value in plain[label]]
    rows, skipped = _rows(labels, request)  # -1: not known
    return _source("huggingface", rows, skipped, lambda i: _bytes_or_path(encoded[i][image]))


def is_hugging_face(source: object) -> bool:
    """Whether `source` has what a Hugging Face `Dataset` has."""
    return hasattr(source, "cast_column") and hasattr(source, "features")


def encoded(image: Any) -> bytes:
    """The bytes of a file that holds exactly these pixels; bytes and files as they are. Raises PhotoError, of files OSError.

    Arrays are (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), tensors (c, h, w); uint8, or floats in 0..1.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return photo_in(image)
        except (ValueError, MemoryError) as error:  # a path that none can be, a file larger than memory
            raise PhotoError(what=f"cannot be read: {error}") from error
    with decoding():
        return _encoded(image)


def _encoded(image: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = _image(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ORDERED_MODES:
        upright = Image.fromarray(np.asarray(upright).astype(np.uint16))
    if upright.mode not in BMP_MODES | PNG_MODES | TIFF_MODES:
        upright = upright.convert("RGBA" if upright.mode in ("PA", "La", "RGBa") else "RGB")
    stream = io.BytesIO()
    if upright.mode in BMP_MODES and "transparency" not in upright.info:
        upright.save(stream, "BMP")
    elif upright.mode in TIFF_MODES:
        upright.save(stream, "TIFF", exif=Image.Exif())
    else:
        upright.save(stream, "PNG", compress_level=1, exif=Image.Exif())
    return stream.getvalue()


def _rows(labels: Sequence[str | PhotoError], request: Request) -> tuple[list[Row], list[Skip]]:
    """The items by their labels, and those that have none, unless labels are several, or could not be read."""
    several = request.task == "auto" and any(SEPARATOR in label for label in labels if isinstance(label, str))
    rows, skipped = [], []
    for i, label in enumerate(labels):
        path = f"dataset[{i}]"
        if isinstance(label, PhotoError):
            skipped.append(Skip(path, label.what))
        elif label or several or request.task == "multilabel":
            rows.append(Row(path, label))
        else:
            skipped.append(Skip(path, "has no label"))
    return rows, skipped


def _source(layout: str, rows: Sequence[Row], skipped: list[Skip], image_at: Callable[[int], Any]) -> Source:
    if not rows:
        why = f"{skipped[0].path} {skipped[0].reason}." if skipped else "It has no items."
        raise SourceError(
            what="Nothing in the data set can be used.", why=why, fix="Pass pairs of an image and a label."
        )
    return Source("dataset", layout, rows, _Reader(image_at), skipped)


class _Reader:
    """The bytes of an item, of one at a time: data sets of others need not allow several threads. Another process that it is
    sent to has its own turns."""

    def __init__(self, image_at: Callable[[int], Any]) -> None:
        self._image_at, self._turn = image_at, threading.Lock()

    def __call__(self, row: Named) -> bytes:
        with self._turn:
            image = self._image_at(int(row.path[len("dataset[") : -1]))
            return encoded(image)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Reader, (self._image_at,)


def _are_files(source: Any) -> bool:
    """Whether the items are those of `.samples`, each read as any photo is and labelled by `.classes`: where torchvision reads
    them, and nobody changes them."""
    samples, loader = getattr(source, "samples", None), getattr(source, "loader", None)
    return (
        isinstance(samples, list)
        and bool(samples)
        and getattr(source, "transform", True) is None
        and getattr(source, "target_transform", None) is None
        and _is_torchvisions(loader)
        and _is_torchvisions(getattr(type(source), "__getitem__", None))  # of a subclass its own may give other items
    )


def _is_torchvisions(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).startswith("torchvision.")


def _image_folder(source: Any) -> Source:
    root = os.path.abspath(source.root) if hasattr(source, "root") else os.getcwd()
    classes = _classes(source)
    rows = []
    for path, target in source.samples:
        full = os.path.abspath(path)
        inside = full.startswith(root + os.sep)
        rows.append(Row((full[len(root) + 1 :] if inside else full).replace(os.sep, "/"), _label(target, classes)))
    return Source(
        short_name(os.path.basename(root)), "dataset", rows, reader_below(root), [], Path(root), file_below(root)
    )


def no_sequence(source: object) -> SourceError:
    """The error for what cannot be asked for its items again."""
    return SourceError(
        what=f"A {type(source).__name__} is no source of labelled photos.",
        why="A folder, manifest or archive, (paths, labels), a table, or a sequence of (image, label) is wanted.",
        fix="Streams can be read once only: load them without streaming=True, make a list of pairs, or write class folders.",
    )


def _pair(source: Any, i: int) -> tuple[Any, Any]:
    try:
        item = source[i]
    except Exception as error:  # a stranger's code, which may raise anything for a damaged photo
        raise PhotoError(
            what=f"cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise SourceError(
            what=f"Item {i} of the {type(source).__name__} is not a pair of an image and a label.",
            why=f"It is a {type(item).__name__}.",
            fix="Pass a sequence of (image, label), or a pair of lists (paths, labels).",
        )
    return item[0], item[1]


def _check_steady(source: Any) -> None:
    """Raises SourceError where the first or the last item is another picture when it is asked for again."""
    for i in sorted({0, len(source) - 1} if len(source) else ()):
        with contextlib.suppress(PhotoError, OSError):
            if len({encoded(_pair(source, i)[0]) for _ in range(N_ASKED)}) > 1:
                raise SourceError(
                    what=f"Item {i} of the {type(source).__name__} is another picture each time that it is asked for.",
                    why="Its transform may be random; a job reads a photo more than once, and keeps what it computed of it.",
                    fix="Pass the data set without it: --augment (augment=) shows the layers that learn varied photos.",
                )


def _classes(source: Any) -> Sequence[Any] | None:
    """The names of the numbered classes, of each one or several, also of the data set that a `Subset` is a part of; None where
    a `target_transform` makes other labels of the numbers."""
    while getattr(source, "target_transform", None) is None:
        if (classes := getattr(source, "classes", None)) is not None or not hasattr(source, "dataset"):
            return classes
        source = source.dataset
    return None


def _targets(source: Any, classes: Sequence[Any] | None) -> list[Any] | None:
    """The labels, by position, where they are known without reading the photos: the first and the last item say so too."""
    targets = getattr(source, "targets", None)
    if targets is None or isinstance(targets, Mapping) or is_table(targets):
        return None
    if getattr(source, "target_transform", None) is not None or len(targets) != len(source):
        return None
    labels = values_of(targets)

    def is_said(i: int) -> bool:
        try:
            return _label(_pair(source, i)[1], classes) == _label(labels[i], classes)
        except PhotoError:
            return True

    return labels if all(map(is_said, sorted({0, len(labels) - 1} if labels else ()))) else None


def _label(value: Any, classes: Sequence[Any] | None) -> str:
    value = unboxed(value)
    if isinstance(value, list | tuple | set | frozenset):
        return label_of([_label(one, classes) for one in value])
    if classes is not None and isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(classes):
            raise SourceError(what=f"A photo has the label {value}, but there are {len(classes)} classes.")
        value = classes[value]
        if isinstance(value, list | tuple):  # synonyms, of which the first alone may be another class's too
            value = ", ".join(map(label_of, value))
    return label_of(value)


def _one_column(found: list[str], preferred: tuple[str, ...], what: str, features: Mapping[str, Any]) -> str:
    choice = found if len(found) == 1 else [name for name in preferred if name in found][:1]
    if choice:
        return choice[0]
    raise SourceError(
        what=f"The data set has {'several' if found else 'no'} {what} columns{': ' * bool(found)}{', '.join(found)}.",
        why=f"Its columns are {', '.join(features)}.",
        fix=f"Rename the {what} column: dataset.rename_column(..., {what!r}). {nearest(what, features)}".strip(),
    )


def _bytes_or_path(value: Any) -> bytes | str:
    if not value or (value.get("bytes") is None and value.get("path") is None):
        raise PhotoError(what="is missing")
    found: bytes | str = value["bytes"] if value.get("bytes") is not None else value["path"]
    return found


def _image(value: Any) -> Image.Image:
    """An array or tensor as a Pillow image; as in `pixels.as_image`, and besides channels first."""
    is_tensor = hasattr(value, "detach")
    array: NDArray[Any] = np.asarray(value.detach().cpu() if is_tensor else value)
    if is_tensor and array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    return as_image(array)
