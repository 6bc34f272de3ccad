"""A folder on a disk or in a bucket, of which files are listed, read in parts, and written whole."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, urlunsplit

from rehead.data.addresses import is_address, local_path, mended, refused, split, store_at
from rehead.data.listing import is_file_at
from rehead.data.walk import is_leftover
from rehead.durable import write_bytes
from rehead.errors import MissingExtra, SourceError


class Folder(Protocol):
    """A folder on a disk or in a bucket. Names are relative to it, with "/"."""

    def names(self, below: str) -> list[str]:
        """The files in a folder of it, sorted; none where it is not there."""

    def open(self, name: str) -> Any:
        """A file for pyarrow, of which a part may be read. Raises OSError."""

    def write(self, name: str, data: bytes) -> None:
        """The file is there when this is done. Raises OSError."""


def open_folder(address: str) -> Folder:
    """The folder at an address or a path. Raises SourceError where it cannot be listed, MissingExtra without pyarrow."""
    here = local_path(address) if is_address(address) else Path(os.path.expanduser(address))
    if here is not None and not os.path.exists(here) and (meant := mended(address)):
        raise SourceError(
            what=f"There is no folder {address}.",
            why="An address has two strokes behind its colon.",
            fix=f"Write {meant} if that is meant.",
        )
    if here is not None and os.path.isfile(here):
        raise SourceError(what=f"{here} is a file, not a folder.", fix="Name a folder.")
    folder: Folder = Here(here) if here is not None else There(address)
    if (
        not folder.names("") and here is None and is_file_at(address)
    ):  # names are asked for: it says what is wrong with it
        raise SourceError(what=f"{address} is a file, not a folder.", fix="Name a folder.")
    return folder


class Here:
    """On a disk of this machine."""

    def __init__(self, root: Path) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise MissingExtra("pyarrow", "parquet", str(root))
        self._root = root

    def names(self, below: str) -> list[str]:
        folder = self._root / below
        try:
            found = sorted(entry.name for entry in os.scandir(folder)) if folder.exists() else []
        except OSError as error:
            raise refused(str(self._root), error) from error
        return [str(PurePosixPath(below, name)) for name in found if not is_leftover(name)]

    def open(self, name: str) -> Any:
        return (self._root / name).open("rb")

    def write(self, name: str, data: bytes) -> None:
        write_bytes(self._root / name, data)


class There:
    """In a bucket."""

    def __init__(self, address: str) -> None:
        self._parts = split(address)
        self._base = urlunsplit(self._parts._replace(path=""))

    def names(self, below: str) -> list[str]:
        try:
            store, path = self._at(below)
            from pyarrow.fs import FileSelector, FileType  # which is there: the store was opened by it

            if not below and "/" in path and store.get_file_info(path.partition("/")[0]).type == FileType.NotFound:
                raise OSError(f"Bucket '{path.partition('/')[0]}' not found")
            found = store.get_file_info(FileSelector(path, allow_not_found=True))
        except (OSError, ValueError) as error:
            raise refused(urlunsplit(self._parts), error) from error
        return sorted(str(PurePosixPath(below, one.base_name)) for one in found if one.type == FileType.File)

    def open(self, name: str) -> Any:
        store, path = self._at(name)
        return store.open_input_file(path)

    def write(self, name: str, data: bytes) -> None:
        store, path = self._at(name)
        with store.open_output_stream(path) as file:
            file.write(data)

    def _at(self, name: str) -> tuple[Any, str]:
        return store_at(self._base, f"{self._parts.path.rstrip('/')}/{quote(name)}")
