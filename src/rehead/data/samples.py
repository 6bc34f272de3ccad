"""The samples of a WebDataset shard, gone through once: a photo each, and what files of the same name say that it shows."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field, replace
from typing import IO, Any, cast

from rehead.data.archives import BROKEN, MAX_HEADER, TAR_BLOCK, members_of, opener_of
from rehead.data.layouts import PICTURE_NAMES
from rehead.data.photo_bytes import HEAD_BYTES, MOST_BYTES, TOO_LARGE
from rehead.data.rows import label_of
from rehead.errors import SourceError
from rehead.pixels import is_image, why_unidentified

SAYS = ("cls", "label", "json", "txt")  # what a sample may be labelled by; the first that is there
FIELDS = ("label", "class", "class_name", "category")  # the same of a JSON object
MOST_SAID = 1 << 20  # bytes of one of them
LONGEST = 200  # characters of a label; a longer text tells of a photo, and names no class
PIECE = 8 << 20  # bytes read at once: of a bucket each is a request
FAR_ENOUGH = 64 << 20  # bytes, within which the first sample is looked for


@dataclass(frozen=True)
class Member:
    """A photo in a shard: where its bytes are, and their BLAKE3 digest in hexadecimal."""

    name: str
    start: int
    size: int
    label: str
    digest: str


@dataclass
class Index:
    """What a shard holds. skipped: names and reasons. broken: why it could not be read to its end."""

    photos: list[Member] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    broken: str = ""


class _Forward:
    """A stream that goes forwards alone, as `tarfile` reads one: of what was read the end is kept, for a step back. Refuses to
    read much at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._held, self._start, self._at, self.beginning = b"", 0, 0, b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> None:
        """Raises tarfile.ReadError for a place before what is kept."""
        if to < self._start:
            raise tarfile.ReadError("its parts do not follow each other")
        self._at = to

    def read(self, size: int, at: int | None = None) -> bytes:
        if at is not None:
            self.seek(at)
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        parts: list[bytes] = []
        while size > 0:
            place = self._at - self._start
            here = self._held[place : place + size]
            if not here:
                new = self._stream.read(PIECE)
                if not new:
                    break
                self.beginning = self.beginning or new[:TAR_BLOCK]
                tail = self._held[-TAR_BLOCK:]
                self._start += len(self._held) - len(tail)
                self._held = tail + new
                continue
            parts.append(here)
            self._at, size = self._at + len(here), size - len(here)
        return b"".join(parts)


@dataclass
class _Sample:
    """The files of one name. photo: all of it but the label. why: what is wrong with the photo. says: by their endings the
    labels that files beside it name, "" for none. others: pictures that are none, such as a mask beside it, or a link."""

    photo: Member | None = None
    why: str = ""
    says: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    is_twice: bool = False

    def take(self, member: tarfile.TarInfo, ending: str, content: IO[bytes]) -> None:
        import blake3

        if ending in SAYS:
            self.says.setdefault(ending, _said(ending, content.read(MOST_SAID)))
        elif self.photo is not None and member.name == self.photo.name:
            self.is_twice = True
        elif f".{ending}" in PICTURE_NAMES and (self.photo is None or self.why):
            hasher, head, why = blake3.blake3(), b"", ""
            while piece := content.read(PIECE):
                hasher.update(piece)
                head = head or piece[:HEAD_BYTES]
            if not is_image(head):
                why = why_unidentified(head)
            elif member.size > MOST_BYTES:
                why = TOO_LARGE
            if self.photo is None or not why:  # what is no picture displaces none
                self.photo, self.why = Member(member.name, member.offset_data, member.size, "", hasher.hexdigest()), why
                self.is_twice = False
        elif f".{ending.rpartition('.')[2]}" in PICTURE_NAMES:
            self.others.append(member.name)

    def into(self, index: Index) -> None:
        if self.photo is None:
            why = "is no file NAME.jpg of its own: a link, or a name with other dots"
            index.skipped += [(name, why) for name in self.others]
            return
        if self.is_twice:
            index.skipped.append((self.photo.name, "stands twice in its shard: the first was taken"))
        label = "" if self.why else next((self.says[ending] for ending in SAYS if self.says.get(ending)), "")
        if label:
            index.photos.append(replace(self.photo, label=label))
        elif self.says and not self.why:
            index.skipped.append((self.photo.name, f"has a .{next(iter(self.says))} beside it that names no label"))
        else:
            why = self.why or f"has no label: no .{', .'.join(SAYS[:-1])} or .{SAYS[-1]} beside it names one"
            index.skipped.append((self.photo.name, why))


def indexed(stream: IO[bytes], first: bool = False) -> Index:
    """What a shard holds. The files of a sample need not follow each other. first: of its first sample alone, and of what it
    says no loose text."""
    index, samples = Index(), dict[str, _Sample]()
    forward = _Forward(stream)
    try:
        with tarfile.open(fileobj=cast(Any, forward), mode="r:") as file:
            for member in members_of(file):
                if not (member.isreg() or member.islnk()):
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}{slash}{stem}"
                if first and samples and (member.offset > FAR_ENOUGH or key not in samples):
                    break
                sample = samples.setdefault(key, _Sample())
                if member.islnk() or member.issparse():
                    sample.others.append(member.name)
                elif not (first and ending == "txt"):
                    sample.take(member, ending.lower(), cast(IO[bytes], file.extractfile(member)))
            block = b"" if first else forward.read(TAR_BLOCK, file.offset)
            if not first and (
                len(block) < TAR_BLOCK or any(block)
            ):  # an end is zeros; else it is a header that is none
                index.broken = "is damaged or cut off: what stood behind is lost"
    except OSError as error:
        index.broken = f"cannot be read to its end: {error.strerror or error}"
    except BROKEN as error:
        why = f"{error or type(error).__name__}".rstrip(".")
        index.broken = f"is truncated or broken: {why}"
        if opener_of(forward.beginning) is not None:
            index.broken = "is compressed, which shards may not be: unpack it first"
    for sample in samples.values():
        sample.into(index)
    return index


def _said(ending: str, data: bytes) -> str:
    """The label that a file beside a photo names, "" for none."""
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:  # two names in another encoding could become one
        return ""
    if ending == "json" and text:
        text = _field(text)
    return label_of(text) if len(text) <= LONGEST and text.isprintable() else ""


def _field(text: str) -> str:
    try:
        said = json.loads(text)
        if isinstance(said, dict):
            said = next((said[name] for name in FIELDS if said.get(name) is not None), None)
        return label_of(said) if isinstance(said, str | int | float | list) and not isinstance(said, bool) else ""
    except (SourceError, ValueError, RecursionError):
        return ""
