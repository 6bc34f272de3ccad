"""The default networks made without PyTorch: they are timm's, and their files are read without executing anything."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_main_job import without

from rehead.errors import UnsafeWeights, WeightsMismatch
from rehead.nets.backbone import load_backbone
from rehead.nets.card import PACKAGES, Place, locate
from rehead.nets.lite import SIZES, lite_prefix
from rehead.nets.saved import read_saved
from rehead.runners import open_session


def weights() -> Path:
    path = PACKAGES["efficientnet_lite0"].weights()
    assert path is not None
    return path


@pytest.mark.parametrize("name", SIZES)
def test_its_card_and_its_features_are_those_of_timms_network(name: str, tmp_path: Path) -> None:
    if PACKAGES[name].weights() is None:
        pytest.skip(f"{PACKAGES[name].package} is not installed")
    card, graph = lite_prefix(name, locate(name, None))
    prefix, wanted = load_backbone(name, weights=None, arguments={}, cut="pool").cut_at("pool")
    assert card == wanted
    (tmp_path / "prefix.onnx").write_bytes(graph)
    pixels = np.random.default_rng(0).integers(0, 256, (3, card.preprocess.height, card.preprocess.width, 3), np.uint8)
    got = open_session(tmp_path / "prefix.onnx").run(["features"], {"pixels": pixels})[0]
    with torch.inference_mode():
        expected = prefix((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127.5) / 127.5).numpy()
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_no_pytorch_is_imported_for_it() -> None:
    code = "from rehead.nets.lite import lite_prefix; from rehead.nets.card import locate; "
    code += "lite_prefix('efficientnet_lite0', locate('efficientnet_lite0', None))"
    done = without("torch", "timm", "torchvision", code=code)
    assert done.returncode == 0, done.stderr


def test_a_file_reads_as_pytorch_reads_it() -> None:
    ours, theirs = read_saved(weights()), torch.load(weights(), map_location="cpu", weights_only=True)
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name].numpy()) for name in ours)


def named(folder: Path, data: bytes) -> Path:
    """A file whose name promises its own digest, as those of the packages do."""
    path = folder / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    return path


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = Path(shutil.copy(weights(), tmp_path))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsMismatch, match="its SHA-256 is not the one in its name"):
        read_saved(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    data = weights().read_bytes()
    with pytest.raises(WeightsMismatch, match="cannot be read as weights"):
        read_saved(named(tmp_path, data[: int(share * len(data))]))


class Command:
    def __reduce__(self) -> object:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("place", [0, 3])
def test_a_file_that_would_run_something_does_not(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts: list[Any] = [0x1950A86A20F9469CFC6C, 1001, {}, {"a": 1}]
    parts[place] = Command()
    with pytest.raises(UnsafeWeights, match="could run code"):
        read_saved(named(tmp_path, b"".join(pickle.dumps(part, 2) for part in parts)))
    assert not Path("executed").exists()


@pytest.mark.parametrize(("shape", "strides"), [((8,), (2,)), ((-1,), (1,)), ((2,), (-1,))])
def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], tmp_path: Path
) -> None:
    data = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    data += pickle_of_one_tensor(shape, strides) + pickle.dumps(["0"], 2) + (8).to_bytes(8, "little") + bytes(32)
    with pytest.raises(WeightsMismatch, match="reaches beyond its numbers"):
        read_saved(named(tmp_path, data))


def pickle_of_one_tensor(shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """What torch.save writes for {"a": a tensor over 8 numbers}, for any shape and strides."""

    def mark(*parts: bytes) -> bytes:
        return b"(" + b"".join(parts) + b"t"

    def whole(numbers: tuple[int, ...]) -> bytes:
        return mark(*(f"I{number}\n".encode() for number in numbers))

    storage = mark(b"Vstorage\n", b"ctorch\nFloatStorage\n", b"V0\n", b"Vcpu\n", b"I8\n", b"N") + b"Q"
    tensor = mark(storage, b"I0\n", whole(shape), whole(strides), b"I00\n", b"N")
    return b"\x80\x02}Va\nctorch._utils\n_rebuild_tensor_v2\n" + tensor + b"Rs."


def test_other_weights_than_the_networks_are_refused(tmp_path: Path) -> None:
    place = Place("package", weights(), "0" * 64, "a package")
    with pytest.raises(WeightsMismatch, match="not those of this network"):
        lite_prefix("efficientnet_lite2", place)
