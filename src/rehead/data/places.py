"""Where the photos that a table names are: in files below a folder, below an address, or each at an address of its own."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlunsplit

from rehead.data.addresses import holds_secret, is_address, local_path, photo_at, split, without_secret
from rehead.data.listing import Listing, listed
from rehead.data.photo_bytes import photo_in
from rehead.data.rows import NOT_THERE, Named, Request, Row, Skip, Source, file_below, reader_below
from rehead.data.walk import is_leftover
from rehead.data.web import WEB
from rehead.errors import SourceError


class Place(Protocol):
    """What the paths of a table are relative to. shown: what errors call it."""

    @property
    def shown(self) -> str: ...

    def missing(self, path: str) -> str:
        """Why there is no photo at a path, "" where there may be one. Raises SourceError for an address with a secret."""

    def source(self, name: str, layout: str, rows: Sequence[Row], skipped: list[Skip]) -> Source:
        """The source of these rows."""


@dataclass(frozen=True)
class Files:
    """Files below a folder of this machine; addresses are what they are, unless all have to lie below the folder."""

    root: Path
    confined: bool = False

    @property
    def shown(self) -> str:
        return str(self.root)

    def missing(self, path: str) -> str:
        return _unlisted(path) if self._is_elsewhere(path) else _no_file(os.path.join(self.root, path))

    def source(self, name: str, layout: str, rows: Sequence[Row], skipped: list[Skip]) -> Source:
        read, file = reader_below(str(self.root)), file_below(str(self.root))
        if not any(self._is_elsewhere(row.path) for row in rows):
            return Source(name, layout, rows, read, skipped, self.root, file)
        return Source(
            name, layout, rows, lambda row: _photo_at(row.path) if self._is_elsewhere(row.path) else read(row), skipped,
            self.root, lambda row: _file_at(row.path) if self._is_elsewhere(row.path) else file(row),
            lambda row: _uri_of(row.path) if self._is_elsewhere(row.path) else None,
        )  # fmt: skip

    def _is_elsewhere(self, path: str) -> bool:
        return not self.confined and is_address(path)


class Below:
    """Photos below the folder in a bucket that a table lies in, which is listed when the first is asked for; others at
    addresses of their own."""

    def __init__(self, table: str, request: Request) -> None:
        parts = split(table)
        self._folder = parts._replace(path=parts.path.rpartition("/")[0])
        self.shown = urlunsplit(self._folder)
        self._request: Request | None = request

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent to other machines, which list nothing, and have no terminal."""
        return {**vars(self), "_request": None}

    @cached_property
    def _stamps(self) -> Listing:
        assert self._request is not None
        return listed(self.shown, self._request)

    def missing(self, path: str) -> str:
        if is_address(path):
            return _unlisted(path)
        path = posixpath.normpath(path)
        if any(map(is_leftover, path.split("/"))):  # also of "../": what is not listed is seen when it is read
            return ""
        return "" if path in self._stamps else NOT_THERE

    def source(self, name: str, layout: str, rows: Sequence[Row], skipped: list[Skip]) -> Source:
        return Source(
            name, layout, rows, lambda row: _photo_at(row.path) if is_address(row.path) else photo_at(self._uri(row)), skipped,
            file=lambda row: _file_at(row.path) if is_address(row.path) else None,
            uri=lambda row: _uri_of(row.path) if is_address(row.path) else self._uri(row),
            stamp=lambda row: None if is_address(row.path) else self._stamps.get(posixpath.normpath(row.path)),
        )  # fmt: skip

    def _uri(self, row: Named) -> str:
        folder = unquote(self._folder.path).rstrip("/")
        return urlunsplit(self._folder._replace(path=quote(posixpath.normpath(f"{folder}/{row.path}"))))


def _no_file(path: str) -> str:
    """Why there is no file of this machine at a path, "" where there is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return NOT_THERE
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"cannot be found: {getattr(error, 'strerror', None) or error}"
    return "" if stat.S_ISREG(mode) else "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"


def _unlisted(address: str) -> str:
    """Whether something is there is seen when it is read, but for a file of this machine."""
    if holds_secret(address):
        without_secret(address)  # which says so
    try:
        if (file := _file_at(address)) is not None:
            return _no_file(file)
        return "" if split(_uri(address)).path.strip("/") else "names no photo"
    except SourceError as error:
        return f"cannot be read: {error.what}"


def _photo_at(address: str) -> bytes:
    return photo_at(_uri(address)) if (file := _file_at(address)) is None else photo_in(file)


def _file_at(address: str) -> str | None:
    """The file of this machine that an address names. None for others."""
    file = local_path(_uri(address))
    return None if file is None else str(file)


def _uri_of(address: str) -> str | None:
    """The address at which other machines too can read a photo, None for a file of this one."""
    return _uri(address) if _file_at(address) is None else None


def _uri(address: str) -> str:
    """The address of a line: a "?" belongs to a photo's name, but where it asks a web server."""
    return address if address.lower().startswith(tuple(f"{name}:" for name in WEB)) else address.replace("?", "%3F")
