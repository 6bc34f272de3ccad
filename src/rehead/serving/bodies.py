"""What a request brings: one picture as it is, or many in a form. Its size is counted while it comes, not believed; it lies in
memory only, within bounds for one request and for all; and it has to come in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from rehead.serving.crew import busy
from rehead.serving.forms import KINDS, Sent, pictures
from rehead.serving.limits import Limits
from rehead.serving.problems import Problem

INLINE_BYTES = 1 << 20  # a larger form is taken apart in a thread: the others need not wait for it


class Room:
    """The bytes that all requests under way may hold together."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.held_bytes = size_bytes, 0

    @contextlib.contextmanager
    def taken(self) -> Iterator[Share]:
        share = Share(self)
        try:
            yield share
        finally:
            self.held_bytes -= share.held_bytes


class Share:
    """What one request holds of the room."""

    def __init__(self, room: Room) -> None:
        self._room, self.held_bytes = room, 0

    def check(self, n_bytes: int) -> None:
        """Raises Problem 503 where there is no room for so much more now."""
        if self._room.held_bytes + n_bytes > self._room.size_bytes:
            raise busy("The photos of other requests fill the service's memory.", "Come again a little later.", 1)

    def grow(self, n_bytes: int) -> None:
        """Takes so much more. Raises as `check` does."""
        self.check(n_bytes)
        self._room.held_bytes += n_bytes
        self.held_bytes += n_bytes


async def received(request: Request, share: Share, limits: Limits) -> tuple[list[Sent], bool]:
    """The pictures that a request brings, and whether it is one as it is. Raises Problem: 400 for no body, 408 for one that
    does not come, 413 for one too large or of too many pictures, 415 for another type, 422 for another form, 503."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    is_form = kind == b"multipart/form-data" and bool(boundary)
    if not (is_form or kind == b"application/octet-stream" or kind.startswith(b"image/")):
        said = kind.decode("latin-1")[:100] or "nothing"
        lacks = "It has no boundary, which the program that makes the form says with it: do not set it by hand."
        why = lacks if kind == b"multipart/form-data" else ""
        raise Problem(415, f"The body's Content-Type is {said!r}.", why=why, fix=f"Send {KINDS}.")
    body = await _body(request, share, limits)
    if not body:
        raise Problem(400, "The body is empty.", fix=f"Send {KINDS}.")
    if not is_form:
        return [Sent(None, body)], True
    assert boundary is not None
    if len(body) <= INLINE_BYTES:
        return pictures(body, boundary, limits.images), False
    return await asyncio.to_thread(pictures, body, boundary, limits.images), False


async def _body(request: Request, share: Share, limits: Limits) -> bytes:
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > limits.body_bytes:
        raise _too_large(limits)
    if said.isdigit():
        share.check(int(said))  # what is only said is not kept free: it may never come
    pieces: list[bytes] = []
    try:
        await _read(request, pieces, share, limits)
    except TimeoutError:
        pieces.clear()
        raise Problem(
            408,
            "The body did not come in time.",
            why=f"It may take {limits.body_s:g} s, with no pause longer than {limits.body_idle_s:g} s.",
            fix="Send fewer or smaller pictures at a time.",
        ) from None
    except BaseException:
        pieces.clear()  # the error's traceback leads to it as long as the refusal takes, and the room is given back before
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _read(request: Request, pieces: list[bytes], share: Share, limits: Limits) -> None:
    """Adds the body to `pieces` as it comes. Raises TimeoutError where it does not, ClientDisconnect, Problem 413, 503."""
    now = asyncio.get_running_loop().time
    ends = now() + limits.body_s
    size, more = 0, True
    async with asyncio.timeout(limits.body_idle_s) as pause:
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more, piece = message.get("more_body", False), message.get("body", b"")
            size += len(piece)
            if size > limits.body_bytes:
                raise _too_large(limits)
            share.grow(max(0, size - share.held_bytes))
            pieces.append(piece)
            if more:
                pause.reschedule(min(ends, now() + limits.body_idle_s))


def _too_large(limits: Limits) -> Problem:
    return Problem(
        413,
        "The body is too large.",
        why=f"A request may have {limits.body_bytes / (1 << 20):g} MiB.",
        fix="Send the pictures in several requests.",
    )
