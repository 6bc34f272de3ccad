"""The tensors in a file of `torch.save` as it was written before PyTorch 1.6, read without PyTorch.

The packages that carry weights hold such files. A pickle can name any function to be called; here it may name the three that
tables and tensors need, each of which only notes down what it is given. Other files are left to `weights.py`.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rehead.durable import sha256_file
from rehead.errors import UnsafeWeights, WeightsMismatch

MAGIC = 0x1950A86A20F9469CFC6C  # the first thing in such a file
DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class Noted:
    """A tensor whose numbers come later in the file."""

    storage: str
    begin: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_saved(path: Path) -> dict[str, NDArray[Any]]:
    """Its arrays by name, in the file's order.

    Raises UnsafeWeights for a file that names other functions; WeightsMismatch for one that is damaged or of another kind, or
    whose SHA-256 does not begin as the end of its name says.
    """
    try:
        _check_name(path)
        with path.open("rb") as file:
            return _read(file)
    except (pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise WeightsMismatch(
            what=f"{path} cannot be read as weights.",
            why=f"It has {path.stat().st_size} bytes; {(str(error).splitlines() or ['it is cut short'])[0]}.",
            fix="It may be damaged: install the package that it is of again.",
        ) from error


def _check_name(path: Path) -> None:
    digest = path.stem.rpartition("-")[2]
    if not sha256_file(path).startswith(digest):
        raise ValueError("its SHA-256 is not the one in its name")


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _Unpickler(file).load() != MAGIC:
        raise ValueError("it is no such file of torch.save")
    for _ in ("protocol", "machine"):
        _Unpickler(file).load()
    tensors = _Unpickler(file)
    noted = {name: value for name, value in tensors.load().items() if isinstance(value, Noted)}
    storages = {}
    for key in _Unpickler(file).load():
        dtype, n = tensors.storages[key]
        if int.from_bytes(file.read(8), "little") != n:
            raise ValueError("the numbers of a tensor are not where they should be")
        storages[key] = np.frombuffer(file.read(n * dtype.itemsize), dtype, n)
    return {name: _array(storages[one.storage], one) for name, one in noted.items()}


def _array(storage: NDArray[Any], one: Noted) -> NDArray[Any]:
    """A tensor out of its storage, which may hold it in another order of axes. Raises ValueError when it reaches beyond."""
    last = one.begin + sum((n - 1) * stride for n, stride in zip(one.shape, one.strides, strict=True))
    if min((one.begin, *one.shape, *one.strides)) < 0 or (0 not in one.shape and last >= len(storage)):
        raise ValueError("a tensor reaches beyond its numbers")
    strides = [stride * storage.itemsize for stride in one.strides]
    return np.lib.stride_tricks.as_strided(storage[one.begin :], one.shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    """Knows three names. storages: by key, the dtype and the number of elements that the file promised."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _noted
        if module == "torch" and name in DTYPES:
            return name
        raise UnsafeWeights(
            what="A weights file holds more than tensors; loading it could run code, so it was not loaded.",
            why=f"It names {module}.{name}.",
            fix="Install the package that it is of again.",
        )

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, _, n, view = pid
        if view is not None:
            raise ValueError("a tensor is a view of another")
        self.storages[str(key)] = DTYPES[kind], int(n)
        return str(key)


def _noted(
    storage: str, begin: int, shape: tuple[int, ...], strides: tuple[int, ...], learns: bool, hooks: Any
) -> Noted:
    del learns, hooks
    return Noted(storage, begin, shape, strides)
