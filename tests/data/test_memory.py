"""What others' data sets, tables and arrays call a label or a picture is read as they mean it, or refused in words."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rehead.colours import to_rgb
from rehead.data.memory import encoded
from rehead.data.reading import photos_of
from rehead.data.rows import label_of
from rehead.data.sources import Source, open_source
from rehead.data.targets import task_of
from rehead.errors import PhotoError, SourceError
from rehead.progress import Silent


def red() -> Image.Image:
    return Image.new("RGB", (5, 4), (200, 30, 10))


def opened(source: object, tmp_path: Path) -> Source:
    return open_source(source, cache=tmp_path / "cache")


def labels_in(source: object, tmp_path: Path) -> list[str]:
    return [row.label for row in opened(source, tmp_path).rows]


def files(root: Path, n: int) -> list[str]:
    """The full paths of `n` photos."""
    root.mkdir()
    for i in range(n):
        red().save(root / f"{i}.png")
    return [str(root / f"{i}.png") for i in range(n)]


class Items:
    """A data set as people write them: items by position, and what else is named."""

    def __init__(self, labels: list[Any], **others: Any) -> None:
        self._labels = labels
        self.__dict__.update(others)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, Any]:
        return red(), self._labels[i]


def test_a_data_set_of_which_an_item_changes_is_told(tmp_path: Path) -> None:
    shades = itertools.count()

    class Random(Items):
        def __getitem__(self, i: int) -> tuple[Image.Image, Any]:
            return Image.new("RGB", (5, 4), (next(shades), 30, 10)), self._labels[i]

    with pytest.raises(SourceError, match="Item 0 of the Random is another picture each time") as error:
        opened(Random(["cat"] * 50 + ["dog"] * 50), tmp_path)
    assert "--augment" in error.value.fix
    assert next(shades) < 10  # and not after all were read


def test_targets_are_taken_by_position_whatever_holds_them(tmp_path: Path) -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    shuffled = pandas.Series(list("fcbdae"), index=[5, 2, 1, 3, 0, 4])
    filtered = pandas.Series(list("fcbdae"), index=[12, 17, 18, 30, 31, 40])
    for targets in (shuffled, filtered, shuffled.to_numpy(), pyarrow.array(list("fcbdae"))):
        assert labels_in(Items(list("fcbdae"), targets=targets), tmp_path) == list("fcbdae")
    numbers = pyarrow.array([1, 0, 1])
    assert labels_in(Items([1, 0, 1], targets=numbers, classes=["cat", "dog"]), tmp_path) == ["dog", "cat", "dog"]


def test_targets_that_have_no_positions_are_left_to_the_items(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for targets in ({"1.jpg": 4, "2.jpg": 5}, pandas.DataFrame({"x": [1, 2], "y": [3, 4]})):
        assert labels_in(Items(["cat", "dog"], targets=targets), tmp_path) == ["cat", "dog"]


def test_a_class_with_several_names_is_one_class(tmp_path: Path) -> None:
    """As torchvision's Imagenette and ImageNet have them, where the first name alone may be that of another class too."""
    classes = [("tench", "Tinca tinca"), ("maillot",), ("maillot", "tank suit")]
    labels = labels_in(Items([0, 1, 2, 0], classes=classes), tmp_path)
    assert labels == ["tench, Tinca tinca", "maillot", "maillot, tank suit", "tench, Tinca tinca"]
    assert task_of(labels, "dataset") == "classification"
    assert labels_in(Items([[0, 1]], classes=classes), tmp_path) == ["tench, Tinca tinca;maillot"]


def test_labels_beside_paths_may_be_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    paths = files(tmp_path / "photos", 3)
    for labels in (torch.tensor([0, 1, 2]), [torch.tensor(i) for i in range(3)], np.array([[0], [1], [2]])):
        assert labels_in((paths, labels), tmp_path) == ["0", "1", "2"]
    numbers = labels_in((paths, torch.tensor([0.25, 1.0, 2.5], dtype=torch.float64)), tmp_path)
    assert numbers == ["0.25", "1", "2.5"]
    assert task_of(numbers, "lists") == "regression"


def test_labels_that_are_arrays_of_numbers_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    paths, one_hot = files(tmp_path / "photos", 3), np.eye(3)
    for labels in (one_hot, one_hot.astype(bool), list(one_hot.astype(int)), torch.eye(3)):
        for photos in (paths, [red()] * 3):
            with pytest.raises(SourceError, match="A label is an array") as caught:
                opened((photos, labels), tmp_path)
            assert "labels.argmax(1)" in caught.value.fix


def test_lists_of_names_are_several_labels_in_arrays_too(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    paths, names = files(tmp_path / "photos", 2), [np.array(["red", "round"]), np.array([], object)]
    assert label_of(names[0]) == "red;round"
    assert labels_in((paths, names), tmp_path) == labels_in(([red()] * 2, names), tmp_path) == ["red;round", ";"]
    numbers = [np.array([3, 5]), np.array([3])]  # so pandas has a list in a cell of Parquet
    frame = pandas.DataFrame({"path": paths, "label": numbers})
    assert labels_in(frame, tmp_path) == labels_in((frame["path"], frame["label"]), tmp_path) == ["3;5", "3"]


@pytest.mark.parametrize("mode", ["I;16B", "I;16L"])
def test_sixteen_bits_in_either_order_are_kept(mode: str) -> None:
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2000
    image = Image.frombytes(mode, (6, 4), values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    with Image.open(io.BytesIO(encoded(image))) as back:
        assert np.array_equal(np.asarray(back), values)
        assert np.array_equal(np.asarray(to_rgb(back)), np.asarray(to_rgb(image)))


def test_images_that_were_closed_before_they_were_decoded_are_named(tmp_path: Path) -> None:
    images = []
    for path in files(tmp_path / "photos", 3):
        with Image.open(path) as image:
            images.append(image)
    source = opened((images, ["a", "b", "a"]), tmp_path)
    with pytest.raises(SourceError) as caught:
        photos_of(source, Silent())
    assert "such as dataset[0], was closed before it was decoded: image.load() decodes it" in caught.value.why


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it finds in damaged files
def test_damaged_images_that_were_only_opened_raise_nothing_but_a_photo_error() -> None:
    random = np.random.default_rng(0)
    for kind, _ in itertools.product(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "AVIF", "PPM", "TGA"], range(40)):
        stream = io.BytesIO()
        red().resize((32, 32)).save(stream, kind)
        data = bytearray(stream.getvalue())
        for place in random.integers(0, len(data), 3):
            data[place] = int(random.integers(256))
        try:
            image = Image.open(io.BytesIO(data))
        except Exception:  # as it may be for whoever opens it
            continue
        with contextlib.suppress(PhotoError):
            encoded(image)


def test_a_streamed_hugging_face_data_set_is_told(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    read = []

    def items() -> Any:
        read.append(1)
        yield {"image": red(), "label": 0}

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for known in (features, None):
        stream = datasets.IterableDataset.from_generator(items, features=known)
        with pytest.raises(SourceError, match="A IterableDataset is no source of labelled photos") as caught:
            opened(datasets.IterableDatasetDict({"train": stream}), tmp_path)
        assert "without streaming=True" in caught.value.fix
        with pytest.raises(SourceError, match="A IterableDataset is no source of labelled photos"):
            opened((stream, [0]), tmp_path)
    assert not read


def test_samples_that_are_not_torchvisions_are_left_to_the_items(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pairs = [("0.png", 1), ("1.png", 0)]
    for samples in (pairs, np.array(pairs), pandas.DataFrame(pairs), (pair for pair in pairs)):
        source = opened(Items(["dog", "cat"], samples=samples, transform=None, root=tmp_path), tmp_path)
        assert [(row.path, row.label) for row in source.rows] == [("dataset[0]", "dog"), ("dataset[1]", "cat")]
        assert source.read(source.rows[0])


def test_paths_and_labels_may_be_columns(tmp_path: Path) -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    paths = files(tmp_path / "photos", 3)
    frame = pandas.DataFrame({"path": paths, "label": list("aba"), "size": [1, 2, 3]}, index=[2, 0, 1])
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    for source in (
        (frame["path"], frame["label"]),
        (frame[["path"]], frame["label"]),
        (frame[["path"]], frame[["label"]]),
        (table["path"], table["label"]),
        (table.select(["path"]), table.select(["label"])),
    ):
        found = opened(source, tmp_path)
        assert found.layout == "lists"
        assert [(row.path, row.label) for row in found.rows] == list(zip(paths, "aba", strict=True))
    pictures = pandas.Series([np.asarray(red()), np.asarray(red())])
    assert labels_in((pictures, frame["label"][:2]), tmp_path) == ["a", "b"]
    data = pyarrow.array([Path(path).read_bytes() for path in paths])
    source = opened((data, table["label"]), tmp_path)
    assert Counter(map(source.read, source.rows)) == {Path(paths[0]).read_bytes(): 3}


def test_tables_of_several_columns_and_mappings_are_no_list(tmp_path: Path) -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"path": files(tmp_path / "photos", 2), "label": ["a", "b"]})
    for table in (frame, pyarrow.Table.from_pandas(frame)):
        for source in ((table, frame["label"]), (frame["path"], table)):
            with pytest.raises(SourceError, match="has 2 columns: path, label") as caught:
                opened(source, tmp_path)
            assert caught.value.fix == "Pass the table alone, or the columns: table['path'], table['label']."
    with pytest.raises(SourceError, match="The labels are a mapping") as caught:
        opened((frame["path"], dict(zip(frame["path"], frame["label"], strict=True))), tmp_path)
    assert caught.value.fix == "Pass a list: [labels[path] for path in paths]."
