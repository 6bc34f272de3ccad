"""Files that appear whole or not at all.

Everything that is kept is written beside its place under a hidden name, flushed to the disk, and renamed. A process that
is killed at any moment leaves the old file or folder, or the new one. A symbolic link stays, and devices and pipes are
written through. What a file or folder holds is left to its own room.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rehead.errors import RunError

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # a full disk; Windows knows no quota
UNFLUSHED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS, errno.EACCES}  # of folders; the last: not readable
TAKEN = {errno.EEXIST, errno.ENOTEMPTY}  # of a place where a full folder is


class NoRoom(OSError):
    """The disk is full: needed_bytes is what was to be written to `filename`, or the beginning of it that did not fit."""

    needed_bytes: int = 0


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes as 64 hexadecimal digits: what `sha256sum` prints."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes | Iterable[bytes]) -> None:
    """`path` holds `data`, also after a power cut. Raises OSError, NoRoom on a full disk; then `path` is as it was.

    data: all of it, or one piece after the other.
    """
    n_bytes = 0
    try:
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            for piece in [data] if isinstance(data, bytes) else data:
                n_bytes += len(piece)
                file.write(piece)
    except OSError as error:
        if error.errno not in FULL:
            raise
        full = NoRoom(error.errno, error.strerror, str(path))
        full.needed_bytes = n_bytes
        raise full from error


def write_asked(path: Path, text: str) -> None:
    """The same for a file that somebody named. Raises RunError where it cannot be written."""
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(
            what=f"{path} cannot be written.",
            why=f"{error.strerror or error}.",
            fix="Name a file that you may write to.",
        ) from error


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """The same for UTF-8 text; what is not valid Unicode in a file's name is kept (surrogateescape)."""
    pieces = [text] if isinstance(text, str) else text
    write_bytes(path, (piece.encode("utf-8", "surrogateescape") for piece in pieces))


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends well it becomes `path`, otherwise it is removed.

    Where `path` is a link, what it leads to is replaced. A device or a pipe is never replaced: it is given as it is.
    """
    kind = _kind(path)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind and not stat.S_ISREG(kind):
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to fill; when the block ends well it takes the place of `path`.

    An older `path` stays whole until then and is removed after. When the block fails the new folder is removed.
    """
    path = Path(os.path.realpath(path))
    with _folder_beside(path) as temporary:
        yield temporary
        _flush_below(temporary)
        replace_folder(temporary, path)


@contextlib.contextmanager
def new_folder(path: Path, flushed: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """The same of what is always filled alike: where another process was first its `path` stays, and the new one is removed.

    flushed: is called for each file that reached the disk.
    """
    with _folder_beside(path) as temporary:
        yield temporary
        _flush_below(temporary, flushed)
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
        _flush_names(path.parent)


def remove_tree(path: Path) -> None:
    """`path` and all below it is gone; no error when it was not there."""
    shutil.rmtree(path, ignore_errors=True)


def empty_folder(folder: Path, *, keep: str) -> None:
    """Nothing is in `folder` but the file `keep`, if it was there. Raises OSError."""
    for entry in folder.iterdir():
        if entry.name == keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            entry.unlink()


def replace_folder(new: Path, path: Path) -> None:
    """The folder `new`, on the same disk, takes the place of `path`. Raises OSError; then `path` is as it was.

    One step, by an exchange, on Linux and macOS. Where the system or the file system has none it takes two renames, and a
    process that is killed between them leaves the older folder whole, but beside `path` under a hidden name.
    """
    if not os.path.lexists(path):
        os.rename(new, path)
        old = None
    elif _exchanged(new, path):
        old = new
    else:
        old = _beside(path)
        os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            os.rename(old, path)
            raise
    _flush_names(path.parent)
    if old is not None:
        remove_tree(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two paths could be made to name each other's folder, in one step."""
    if sys.platform not in ("linux", "darwin"):
        return False
    import ctypes

    system = ctypes.CDLL(None)
    paths = os.fsencode(os.path.abspath(one)), os.fsencode(os.path.abspath(other))
    exchange = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    name = "renameat2" if sys.platform == "linux" else "renamex_np"
    call = getattr(system, name, None)  # a C library may be too old to have it
    if call is None:
        return False
    at = 0  # the folder that a full path is relative to: of no account
    done: int = call(at, paths[0], at, paths[1], exchange) if name == "renameat2" else call(*paths, exchange)
    return done == 0


def _kind(path: Path) -> int:
    """The mode of what `path` leads to, 0 where there is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder, which is gone in the end where it was not renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        remove_tree(temporary)


def _flush_below(folder: Path, flushed: Callable[[], None] = lambda: None) -> None:
    """All files and folders below a folder reach the disk. flushed: is called for each file."""
    for below, _, names in os.walk(folder):
        for file in (Path(below, name) for name in names):
            if not file.is_symlink():  # it may lead to nothing, and is flushed with its folder
                _flush(file)
            flushed()
        _flush_names(Path(below))


def _beside(path: Path) -> Path:
    beginning = os.fsencode(path.name)[:80].decode("utf-8", "ignore")  # a name's limit counts bytes: 255 on most disks
    return path.with_name(f".{beginning}.{uuid.uuid4().hex[:12]}.part")


def _flush_names(folder: Path) -> None:
    """The names in a folder reach the disk, where folders can be flushed: not on Windows, nor on some disks of a network."""
    if os.name == "nt":
        return
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in UNFLUSHED:
            raise


def _flush(path: Path) -> None:
    """Bytes of a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes what may be written to
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
