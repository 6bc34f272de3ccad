"""Archives of photos, unpacked once, safely, whole or not at all. Archives inside them are unpacked too, but for shards.

An archive is a stranger's. Nothing but plain files is written, at names that were checked, by our own loop: neither
`zipfile` nor `tarfile` extracts anything, so no link is ever followed, no owner or mode taken over, and sizes are
counted as they are written. What the files are is left to `folders.py`.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, cast

from rehead.data.in_use import InUse
from rehead.data.limits import Limits, Meter
from rehead.data.room import check_writable, free_bytes
from rehead.data.rows import quoted
from rehead.data.walk import files_below, is_leftover
from rehead.durable import new_folder, sha256_file
from rehead.errors import SourceError, UnsafeArchive
from rehead.progress import Progress, Silent

ARCHIVE_NAME = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.xz|txz|tar\.bz2|tbz2?)$", re.IGNORECASE)
DRIVE = re.compile(r"[A-Za-z]:" if os.name == "nt" else r"[A-Za-z]:/")  # elsewhere "a: first/" is a name as any other
UNFIT = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)  # of a name that cannot be given on this disk
BLOCK = 1 << 20  # bytes copied at a time
TAR_BLOCK = 512
MAX_PARTS = 100  # folders in each other; Python makes and removes them by recursion
DEVICES = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error, ValueError,
    RecursionError,  # of tarfile, for a thousand headers of which each belongs to the next
)  # fmt: skip
MAX_HEADER = 16 * BLOCK  # bytes read at once; tarfile reads long names whole, as long as their header claims


def is_archive(path: PurePath) -> bool:
    """Whether a file's name is one of an archive that can be unpacked here."""
    return bool(ARCHIVE_NAME.search(path.name))


def archive_stem(path: Path) -> str:
    """The archive's name without its ending: pets for pets.tar.gz."""
    return ARCHIVE_NAME.sub("", path.name) or path.name


def unpacked(
    archive: Path,
    cache: Path,
    *,
    stays: Callable[[Path], bool] = lambda _: False,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder with what `archive` holds: cache/archives/<SHA-256 of the archive>. A second call finds it there.

    stays: whether an archive inside it is left as it is.
    Raises SourceError when it is broken, encrypted, or does not fit on the disk; UnsafeArchive when it is hostile; StoreError
    when the cache cannot be written.
    """
    limits, progress = limits or Limits(), progress or Silent()
    progress.phase("Checking the archive", None, "files")
    try:
        target = cache / "archives" / sha256_file(archive)
        if target.is_dir():
            return target
        check_writable(cache)
        check_writable(cache / "archives")  # which may be another's
        meter = Meter(archive, limits, progress)
        progress.phase("Unpacking", None, "files")
        with new_folder(target, progress.advance) as folder:
            _unpack(archive, folder, meter, stays, depth=1)
            progress.phase("Writing to the disk", sum(len(names) for *_, names in os.walk(folder)), "files")
        return target
    except OSError as error:
        raise _failed(archive, cache, error) from error


def unpacked_in_use(
    archive: Path, cache: Path, progress: Progress, stays: Callable[[Path], bool]
) -> tuple[Path, InUse]:
    """The same folder, and what `rehead cache clear` leaves it alone for while anybody has it."""
    while True:
        folder = unpacked(archive, cache, stays=stays, progress=progress)
        in_use = InUse(folder)
        if folder.is_dir():  # else it was cleared in between
            return folder, in_use


def _unpack(archive: Path, folder: Path, meter: Meter, stays: Callable[[Path], bool], depth: int) -> None:
    """`folder` holds the archive's files, those of archives inside it that do not stay in folders of their names."""
    if depth > meter.limits.depth:
        raise UnsafeArchive(
            what=f"{meter.archive} was refused: archives are nested more than {meter.limits.depth} deep.",
            fix="If you trust it, unpack it yourself and pass the folder.",
        )
    with _broken_is_an_error(archive, meter):
        if _is_zip(archive):
            _unpack_zip(archive, folder, meter)
        else:
            _unpack_tar(archive, folder, meter)
    for relative in [path for path in files_below(folder, []) if ARCHIVE_NAME.search(path)]:
        if not stays(folder / relative):
            _unpack_inner(folder / relative, meter, stays, depth)


def _unpack_inner(archive: Path, meter: Meter, stays: Callable[[Path], bool], depth: int) -> None:
    """train.zip becomes a folder train/, also when all it holds is a folder train/ again."""
    folder = _free(archive.with_name(archive_stem(archive)))
    folder.mkdir()
    _unpack(archive, folder, meter, stays, depth + 1)
    archive.unlink()
    children = list(folder.iterdir())
    if len(children) == 1 and children[0].is_dir() and children[0].name.lower() == folder.name.lower():
        outer = folder.rename(_free(folder.with_name(folder.name + "_")))
        (outer / children[0].name).rename(folder)
        outer.rmdir()


def _unpack_zip(archive: Path, folder: Path, meter: Meter) -> None:
    links: dict[str, str] = {}
    with zipfile.ZipFile(archive) as file:
        meter.check(meter.n_bytes + sum(info.file_size for info in file.infolist()))  # honest bombs cost nothing
        for info in file.infolist():
            meter.add_member()
            name = _checked_name(info.filename.replace("\\", "/"), meter)  # as written by some tools on Windows
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind in DEVICES:
                raise meter.hostile(f"{info.filename!r} is a device")
            if not name or info.is_dir() or kind == stat.S_IFDIR:
                continue
            if info.flag_bits & 1:
                raise SourceError(what=f"{archive} is encrypted.", fix="Unpack it yourself and pass the folder.")
            with file.open(info) as source:
                if kind == stat.S_IFLNK:
                    links[name] = _checked_link(name, os.fsdecode(source.read(4096)), meter)
                else:
                    _copy(source, folder, name, meter)
    _place_links(links, folder, meter)


def _unpack_tar(archive: Path, folder: Path, meter: Meter) -> None:
    links: dict[str, str] = {}
    with _decompressed(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as file:
        for member in members_of(file):
            meter.add_member()
            meter.check(member.offset_data + member.size)  # also of what is passed over
            name = _checked_name(member.name, meter)
            if member.issym() and name:
                links[name] = _checked_link(name, member.linkname, meter)
            elif member.islnk() and name:
                links[name] = _checked_name(member.linkname, meter)
            elif not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                raise meter.hostile(f"{member.name!r} is a device")
            elif member.isreg() and name:
                _copy(cast(IO[bytes], file.extractfile(member)), folder, name, meter)
    _check_end(archive)
    _place_links(links, folder, meter)


def members_of(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, in order, none of which is kept. Raises tarfile.ReadError where one claims to end before it
    begins: it would come again for ever."""
    at = -1
    while (member := file.next()) is not None:
        cast(Any, file).members.clear()  # else millions of them stay in memory
        if member.size < 0 or member.offset <= at or cast(Any, file).offset <= member.offset:
            raise tarfile.ReadError(f"{member.name[:80]!r} claims {member.size:,} bytes")
        at = member.offset
        yield member


def _checked_name(name: str, meter: Meter) -> str:
    """A member's name relative to the archive's folder, "" for what is not unpacked. Raises UnsafeArchive."""
    if name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"):
        raise meter.hostile(f"{name!r} lies outside the archive's folder")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if len(parts) > MAX_PARTS:
        raise meter.hostile(f"{name[:80]!r}... lies {len(parts)} folders deep")
    return "" if any(is_leftover(part) for part in parts) else "/".join(parts)


def _checked_link(name: str, target: str, meter: Meter) -> str:
    """Where the link `name` points to, relative to the archive's folder. Raises UnsafeArchive."""
    parts = list(PurePosixPath(name).parent.parts)
    if target.startswith("/") or DRIVE.match(target) or "\\" in target:
        raise meter.hostile(f"the link {name!r} points to {target!r}, outside the archive's folder")
    for part in target.split("/"):
        if part == ".." and not parts:
            raise meter.hostile(f"the link {name!r} points to {target!r}, outside the archive's folder")
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _place_links(links: dict[str, str], folder: Path, meter: Meter) -> None:
    """Links to files become copies of them. Links to folders are left out: their photos are listed once anyway."""
    for name, target in links.items():
        seen = {name}
        while target in links and target not in seen:  # a link to a link
            seen.add(target)
            target = links[target]
        if target and (folder / target).is_file() and not (folder / name).exists():
            with (folder / target).open("rb") as source:
                _copy(source, folder, name, meter)


def _copy(source: IO[bytes], folder: Path, name: str, meter: Meter) -> None:
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while block := source.read(BLOCK):
                meter.add_bytes(len(block))
                file.write(block)
    except OSError as error:
        if error.errno not in UNFIT:
            raise
        raise SourceError(
            what=f"{meter.archive} cannot be unpacked.",
            why=f"{quoted(name)} cannot be written: {error.strerror}.",
            fix="Give it another name in the archive, or leave it out.",
        ) from error


def _is_zip(archive: Path) -> bool:
    """By its beginning: a tar file that ends with a zip file looks like a zip file to `zipfile`."""
    with archive.open("rb") as file:
        head = file.read(TAR_BLOCK)
    is_tar = _is_plain(head) or opener_of(head) is not None
    return not is_tar and (head.startswith(b"PK") or zipfile.is_zipfile(archive))


def opener_of(head: bytes) -> Callable[[Path], Any] | None:
    """What opens a compressed file that begins with this block, None for one that is not: a plain tar file begins with a name,
    which may be BZh."""
    if _is_plain(head):
        return None
    return next((opener for begin, opener in OPENERS.items() if head.startswith(begin)), None)


def _is_plain(head: bytes) -> bool:
    return head[257:262] == b"ustar"


class _Stream:
    """The decompressed bytes of a tar file, for `tarfile`; refuses to read much at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self._file.read(size)


@contextlib.contextmanager
def _decompressed(archive: Path) -> Iterator[IO[bytes]]:
    with archive.open("rb") as file:
        opener = opener_of(file.read(TAR_BLOCK))
    with cast(IO[bytes], opener(archive) if opener else archive.open("rb")) as stream:
        yield cast(IO[bytes], _Stream(stream))


def _check_end(archive: Path) -> None:
    """A tar file that was cut between two members looks whole, but lacks the zeros at its end."""
    with archive.open("rb") as file:
        if opener_of(file.read(TAR_BLOCK)) is None:  # those have an end of their own
            file.seek(-TAR_BLOCK, os.SEEK_END)
            if any(file.read()):
                raise EOFError("it has no end mark")


@contextlib.contextmanager
def _broken_is_an_error(archive: Path, meter: Meter) -> Iterator[None]:
    inside = f" (inside {meter.archive})" if archive != meter.archive else ""
    try:
        yield
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; those without a number are of the decompressors
        raise SourceError(
            what=f"{archive.name}{inside} is truncated, broken, or no archive.",
            why=f"{str(error) or type(error).__name__}.",
            fix="Download or copy it again.",
        ) from error
    except NotImplementedError as error:
        raise SourceError(
            what=f"{archive.name}{inside} is compressed in a way that cannot be read here.",
            why=f"{error}.",
            fix="Unpack it yourself and pass the folder.",
        ) from error


def _failed(archive: Path, cache: Path, error: OSError) -> SourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free, size = free_bytes(cache), archive.stat().st_size
        return SourceError(
            what=f"There is not enough room on the disk to unpack {archive}.",
            why=f"{cache} has {free / 2**20:,.0f} MiB free; packed, the archive takes {size / 2**20:,.0f} MiB.",
            fix="Free some space, or name another folder with --cache DIR.",
        )
    return SourceError(what=f"{archive} cannot be unpacked.", why=f"{error.strerror or error}.")


def _free(path: Path) -> Path:
    """`path`, or with as many underscores behind it as make it new."""
    while path.exists():
        path = path.with_name(path.name + "_")
    return path
