"""multipart/form-data (RFC 7578) -> the pictures in it. The form is whole and in memory; its pieces are copied once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from rehead.errors import counted
from rehead.serving.problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "images"
KINDS = (
    "multipart/form-data with the pictures in the field `images`, or one picture as image/* or application/octet-stream"
)
MAX_NAME = 255  # letters of a file's name that are given back: what file systems allow


@dataclass(frozen=True)
class Sent:
    """One picture as it came. name: of its file, where one was said."""

    name: str | None
    data: bytes


def pictures(body: bytes, boundary: bytes, limit: int) -> list[Sent]:
    """The pictures in the field `images`, in order. Raises Problem: 400 for none and for a form that is damaged or ends too
    early, 413 for more than `limit`, 422 for another field."""
    form = _Form(limit)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
    except FormParserError as error:
        raise Problem(400, "The form cannot be read.", why=f"{error}.", fix=f"Send {KINDS}.") from None
    if not form.ended:
        raise Problem(400, "The form ends too early.", fix="Send it again.")
    if not form.sent:
        raise Problem(400, "There are no pictures in the form.", fix=f"Send {KINDS}.")
    return form.sent


class _Form:
    """Takes what the parser finds."""

    def __init__(self, limit: int) -> None:
        self.sent: list[Sent] = []
        self.ended = False
        self._limit = limit
        self._header, self._value, self._disposition = b"", b"", b""
        self._pieces: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part, "on_header_field": self._field, "on_header_value": self._said,
            "on_header_end": self._header_end, "on_part_data": self._data, "on_part_end": self._part_end,
            "on_end": self._end,
        }  # fmt: skip

    def _part(self) -> None:
        if len(self.sent) >= self._limit:
            raise too_many(self._limit)
        self._header, self._value, self._disposition, self._pieces = b"", b"", b"", []

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _said(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise Problem(
                422,
                f"The form has a field {field[:100]!r}.",
                fix=f"Send the pictures in the field {FIELD!r}, and no other.",
            )
        name = options.get(b"filename")
        shown = None if name is None else name.decode("utf-8", "replace")[:MAX_NAME]
        self.sent.append(Sent(shown, b"".join(self._pieces)))

    def _end(self) -> None:
        self.ended = True


def too_many(limit: int) -> Problem:
    return Problem(
        413,
        f"There are more than {counted(limit, 'picture')} in the request.",
        fix="Send them in several requests.",
    )
