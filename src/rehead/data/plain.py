"""File systems of fsspec, as pyarrow asks them: what their libraries raise, each its own, becomes an OSError here.

What a server of the web refuses is an error too. fsspec takes it for nothing being there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from rehead.data.web import is_there
from rehead.errors import ReheadError


class Plain:
    """A file system, or a file of one."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._given, name)
        return partial(asked, found) if callable(found) else found


class PlainWeb(Plain):
    """Servers of the web."""

    def exists(self, url: str) -> bool:
        return bool(asked(is_there, self._given, url))

    isfile = exists

    def info(self, url: str) -> Any:
        try:
            return asked(self._given.info, url)
        except FileNotFoundError:
            self.exists(url)
            raise


def asked(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call gives."""
    with as_os_error():
        found = call(*arguments, **options)
    return Plain(found) if hasattr(found, "readinto") else found


@contextlib.contextmanager
def as_os_error() -> Iterator[None]:
    """What libraries of stores raise, each its own, becomes an OSError."""
    try:
        yield
    except TimeoutError as error:
        raise OSError(f"timed out {error}".rstrip()) from error
    except (OSError, ReheadError):
        raise
    except Exception as error:
        raise OSError(_said(error)) from error


def _said(error: Exception) -> str:
    """An answer of the web without its address: one that it led to may hold a secret."""
    if (status := getattr(error, "status", None)) is not None:
        return f"HTTP status {status} {getattr(error, 'message', '')}".rstrip()
    return f"{type(error).__name__}: {error}"
