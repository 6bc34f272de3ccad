"""Servers of the web: for how long one is waited for, and a photo at an address of one. fsspec and aiohttp ask them."""

from __future__ import annotations

from typing import Any

from rehead.data.photo_bytes import HEAD_BYTES, PIECE_BYTES, check_size
from rehead.pixels import is_image

WEB = ("http", "https")  # where a question belongs to what is asked for
WEB_S = 20.0  # without a byte of a server, after which a photo of the web is given up
PHOTO_S = 600.0  # for one of them in all: 20 MB at 35 kB a second, as where many come over a slow line


def patience(scheme: str) -> dict[str, Any]:
    """What fsspec is to be told of a scheme: for how long a server is waited for. A large file may take as long as it does."""
    if scheme not in WEB:
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=WEB_S, sock_read=WEB_S)}}


def photo_on_web(web: Any, url: str) -> bytes:
    """What is at an address, bounded as `photo_bytes.py` has it, by one request of fsspec's file system `web`. Raises OSError,
    FileNotFoundError, PhotoError."""
    from aiohttp import ServerTimeoutError
    from fsspec.asyn import sync

    try:
        return bytes(sync(web.loop, _sent, web, url))
    except TimeoutError as error:
        if isinstance(error.__cause__ or error, ServerTimeoutError):
            raise OSError(f"its server did not answer within {WEB_S:g} s") from error
        raise OSError(f"its server did not send all of it within {PHOTO_S:g} s") from error


def is_there(web: Any, url: str) -> bool:
    """Whether a server has something at an address. Raises what aiohttp does where it does not say."""
    from fsspec.asyn import sync

    return bool(sync(web.loop, _has, web, url))


async def _has(web: Any, url: str) -> bool:
    session = await web.set_session()
    async with session.get(web.encode_url(url), **web.kwargs) as response:
        if response.status not in (404, 410):
            response.raise_for_status()
        return bool(response.ok)


async def _sent(web: Any, url: str) -> bytearray:
    from aiohttp import ClientTimeout

    limits = ClientTimeout(total=PHOTO_S, sock_connect=WEB_S, sock_read=WEB_S)
    session, data = await web.set_session(), bytearray()
    async with session.get(web.encode_url(url), timeout=limits, **web.kwargs) as response:
        web._raise_not_found_for_status(response, url)
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            is_begin = len(data) < HEAD_BYTES
            data += piece
            check_size(len(data))
            if is_begin and len(data) >= HEAD_BYTES and not is_image(bytes(data[:HEAD_BYTES])):
                break
    return data
