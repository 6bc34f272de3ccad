"""Files in a bucket, or on any store that pyarrow or fsspec reads: s3://, gs://, hdfs://, hf://, file://.

What is at an address is read and fetched here, and what a store answers when it refuses said in our words.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from rehead.data.far import n_readers
from rehead.data.in_use import InUse
from rehead.data.photo_bytes import check_size, photo_from
from rehead.data.plain import Plain, PlainWeb, as_os_error
from rehead.data.room import check_writable, free_bytes
from rehead.data.rows import Request
from rehead.data.web import WEB, patience, photo_on_web
from rehead.durable import FULL, remove_tree
from rehead.errors import MissingExtra, PhotoError, ReheadError, SourceError

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
REFUSALS = (  # what a store's answer holds -> what it means, and what to do
    (
        r"NO_SUCH_BUCKET|Bucket '.*' not found|bucket does not exist",
        "there is no such bucket",
        "Check the spelling of the bucket, and its region.",
    ),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE|HTTP (status|response code:?) 40[13]"
        r"|\bcredentials\b|UNAUTHENTICATED|PERMISSION_DENIED|Unauthorized",
        "the store does not let this machine read there",
        "{keys}",
    ),
    (
        r"HTTP (status|response code:?) (5\d\d|429)|INTERNAL_FAILURE|SLOW_DOWN|SERVICE_UNAVAILABLE"
        r"|InternalError|Internal Server Error|Service Unavailable|SlowDown|payload is not completed|Server disconnected",
        "the store failed",
        "Try again later; what was done is kept.",
    ),
    (
        r"NETWORK_CONNECTION|(could ?n[o']t|cannot) (resolve|connect)|failed to connect|timed ?out|UNAVAILABLE",
        "the store cannot be reached",
        "Check the network, and the address of the store where it is one of your own ({endpoint}).",
    ),
)
KEYS = {
    "s3": "Bring credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile (AWS_PROFILE); "
    "s3://anonymous@BUCKET for what is public.",
    "gs": "Bring credentials: GOOGLE_APPLICATION_CREDENTIALS; gs://anonymous@BUCKET for what is public.",
}
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL"}
FETCHED_AT_ONCE = 4 << 20  # bytes
REFUSED_S = 30.0  # for which a store that could not be had is not asked again
PART, PLACE = "part+", "#bytes="  # before the address of a file, and behind it, where some of its bytes are meant
SIGNED = re.compile(
    r"(^|&)(policy|key-pair-id|x-amz-\w+|x-goog-\w+|awsaccesskeyid|signature|sig|\w*token|\w*secret\w*|\w*key)=",
    re.IGNORECASE,
)


def is_address(source: object) -> bool:
    """Whether a source is named by an address such as s3://bucket/photos."""
    return isinstance(source, str) and ADDRESS.match(source) is not None


def mended(name: str) -> str:
    """The address that a name with a stroke too few was meant for: s3:/photos, file:/photos; "" for any other."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/?([^/].*)", name, re.IGNORECASE) if os.sep == "/" else None
    if found is None:
        return ""
    return f"file:///{found[2]}" if found[1].lower() == "file" else f"{found[1]}://{found[2]}"


def local_path(address: str) -> Path | None:
    """The path that a file:// address names, None for others. Raises SourceError where it is not one of this machine."""
    parts = split(address)
    if parts.scheme.lower() != "file":
        return None
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise SourceError(
            what=f"{address} names no file of this machine.",
            why=f"What stands behind the two strokes is a machine's name, {parts.netloc!r}." if parts.netloc else "",
            fix="Write the full path with three: file:///full/path, or without file:// as it is.",
        )
    return Path(url2pathname(parts.path))


def path_of(source: object) -> Path | None:
    """The path of a source on this machine; None for one in a store, or in memory."""
    if isinstance(source, bytes):
        source = os.fsdecode(source)
    if is_address(source):
        return local_path(str(source))
    return Path(os.path.expanduser(source)) if isinstance(source, str | os.PathLike) else None


def split(address: str) -> SplitResult:
    """The parts of an address; a "#" belongs to its path. Raises SourceError for what is none, or holds a secret."""
    parts = without_secret(address)
    if not parts.hostname and parts.scheme.lower() in KEYS:
        raise SourceError(
            what=f"{address} names no bucket.", fix=f"Write {parts.scheme}://BUCKET/FOLDER, or {parts.scheme}://BUCKET."
        )
    return parts


def without_secret(address: str) -> SplitResult:
    """The parts of an address. Raises SourceError where one of them is a password or a signature: addresses are written into
    runs, and into lists of what could not be read."""
    try:
        parts = urlsplit(address.replace("#", "%23"))
        host = parts.hostname
    except ValueError as error:
        shown = re.sub(r"//[^/@]*@", "//...@", address)
        raise SourceError(what=f"{shown} is no address.", why=f"{error}.", fix="Check its spelling.") from error
    if holds_secret(address):
        raise SourceError(
            what=f"An address of {host} holds a secret, which would be written into the run.",
            fix=KEYS.get(parts.scheme.lower(), "Bring credentials as its library takes them from the environment."),
        )
    return parts


def holds_secret(address: str) -> bool:
    """Whether a password or a signature is part of it; of what is no address, whether it may be."""
    try:
        parts = urlsplit(address.replace("#", "%23"))
        is_token = bool(parts.username) and parts.scheme.lower() in WEB  # elsewhere it is a name, such as anonymous
        return bool(parts.password) or is_token or SIGNED.search(parts.query) is not None
    except ValueError:
        return SIGNED.search(address.partition("?")[2]) is not None


def read_address(address: str) -> bytes:
    """The bytes of the photo at an address, or at one of `part_of`; of what is none perhaps their beginning alone. Raises
    OSError; FileNotFoundError where there are none; PhotoError for too many."""
    with as_os_error():
        if address.startswith(PART):
            whole, _, place = address.removeprefix(PART).rpartition(PLACE)
            start, size = map(int, place.split("-"))
            check_size(size)
            store, path = store_of(whole)
            with store.open_input_file(path) as file:
                file.seek(start)
                return bytes(file.read(size))
        store, path = store_of(address)
        if urlsplit(address).scheme.lower() in WEB:
            return photo_on_web(store.handler.fs, path)
        with store.open_input_file(path) as file:
            return photo_from(file.read, file.size())


def open_address(address: str) -> Any:
    """What is at an address, to be read from its begin. Raises OSError; FileNotFoundError where there is nothing."""
    with as_os_error():
        store, path = store_of(address)
        return store.open_input_stream(path)


def open_file(address: str) -> Any:
    """The same, of which parts may be read in any order."""
    with as_os_error():
        store, path = store_of(address)
        return store.open_input_file(path)


def part_of(address: str, start: int, size: int) -> str:
    """The address of some bytes of a file."""
    return f"{PART}{address}{PLACE}{start}-{size}"


def photo_at(address: str) -> bytes:
    """The same of a photo: a store that is not known, or refuses, costs this one alone. Raises PhotoError, OSError."""
    try:
        return read_address(address)
    except PhotoError:
        raise
    except ReheadError as error:
        raise PhotoError(what=f"cannot be read: {error.what} {error.fix}".rstrip()) from error


@contextlib.contextmanager
def fetched(address: str, request: Request) -> Iterator[Path]:
    """The file at an address, on a disk of this machine for a while. Raises SourceError where there is none, StoreError where
    the cache cannot be written."""
    check_writable(request.cache)
    check_writable(request.cache / "archives")  # which may be another's
    request.progress.phase("Fetching", None, "files")
    name = PurePosixPath(unquote(split(address).path)).name
    folder = request.cache / "archives" / f".fetched-{uuid.uuid4().hex[:12]}.part"  # cleared where a job was killed
    in_use = InUse(folder)
    try:
        try:
            folder.mkdir(parents=True)
            store, there = store_of(address)
            with store.open_input_stream(there) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, FETCHED_AT_ONCE)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise _no_room(address, request.cache) from error
            raise refused(address, error, "read") from error
        yield folder / name
    finally:
        remove_tree(folder)
        in_use.forget()


def _no_room(address: str, cache: Path) -> SourceError:
    return SourceError(
        what=f"There is not enough room on the disk to fetch {address}.",
        why=f"{cache} has {free_bytes(cache) / 2**20:,.0f} MiB free.",
        fix="Free some space, or name another folder with --cache DIR.",
    )


def store_of(address: str) -> tuple[Any, str]:
    """The file system of a file's address, and what it calls the file."""
    if (here := local_path(address)) is not None:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(here)
    parts = split(address)
    if parts.scheme.lower() in WEB:
        literal = parts.path.replace("%", "%25")  # a web server is asked for what is written
        store, path = store_at(urlunsplit(parts._replace(path="", query="")), literal)
        return store, f"{path}?{parts.query}" if parts.query else path
    return store_at(urlunsplit(parts._replace(path="")), parts.path)


def store_at(base: str, path: str) -> tuple[Any, str]:
    """The file system of an address, opened once, and what it calls a path of it."""
    store, root = _opened(base)
    below = f"{root.rstrip('/')}/{unquote(path).lstrip('/')}"
    return store, below.rstrip("/") if root else below.strip("/")


def _opened(base: str) -> tuple[Any, str]:
    """A file system by pyarrow or, of what that does not know, by fsspec. Raises SourceError, MissingExtra; what was said once
    of a store that cannot be had is said again for a while, without asking it: else each photo of a table would wait for it."""
    at, error = _refused.get(base, (0.0, None))
    if error is not None and time.monotonic() - at < REFUSED_S:
        raise copy(error)  # which has no traceback yet; that of one that is raised again grows
    try:
        return _open(base)
    except ReheadError as new:
        _refused[base] = time.monotonic(), copy(new)
        raise


_refused: dict[str, tuple[float, ReheadError]] = {}


@functools.cache
def _open(base: str) -> tuple[Any, str]:
    try:
        import pyarrow
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem
    except ModuleNotFoundError as error:
        raise MissingExtra("pyarrow", "parquet", base) from error
    scheme = urlsplit(base).scheme
    pyarrow.set_io_thread_count(max(pyarrow.io_thread_count(), n_readers()))  # as many connections has a store's client
    try:
        store, root = FileSystem.from_uri(base)
        return store, str(root)
    except (ArrowException, OSError, ValueError, ImportError) as error:
        if "nrecognized filesystem" not in str(error) and not isinstance(error, ImportError):
            raise refused(base, error) from error
    try:
        from fsspec.core import url_to_fs

        store, root = url_to_fs(base, **patience(scheme))
    except (ImportError, ValueError) as error:
        if scheme in WEB and isinstance(error, ImportError):
            raise MissingExtra("aiohttp", "web", f"What is at {scheme}:// addresses") from error
        raise SourceError(
            what=f"Nothing here reads {scheme}:// addresses.",
            why=f"{error}.",
            fix="Known without more are s3://, gs://, hdfs:// and file://; others need their library of fsspec.",
        ) from error
    return PyFileSystem(FSSpecHandler(PlainWeb(store) if scheme in WEB else Plain(store))), str(root)


def refused(address: str, error: Exception, asked: str = "listed") -> SourceError:
    """The error for what a store answered. asked: what was to be done there."""
    said, scheme = " ".join(str(error).split()), urlsplit(address).scheme.lower()
    keys = KEYS.get(scheme, "Bring credentials as its library takes them from the environment.")
    for pattern, meaning, fix in REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            fix = fix.format(keys=keys, endpoint=ENDPOINTS.get(scheme, "an endpoint"))
            return SourceError(what=f"{address} cannot be {asked}: {meaning}.", why=said[:300], fix=fix)
    if isinstance(error, FileNotFoundError):
        return SourceError(
            what=f"There is nothing at {address}.", why=said[:300], fix="Check the spelling of the path."
        )
    return SourceError(what=f"{address} cannot be {asked}.", why=said[:300], fix="Check the address.")
