"""Photos in a bucket: paths below its address tell labels as in a folder (`layouts.py`).

A photo is known everywhere by an address of its own, so that other machines read it by themselves.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from itertools import chain
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlunsplit

from rehead.data.addresses import is_address, photo_at, split
from rehead.data.columns import Texts
from rehead.data.folders import is_picture, no_files, no_manifest, tell_left_out, tell_refused, unrecognised
from rehead.data.held_out import way_from
from rehead.data.layouts import READERS, forced, recognised, without_runs
from rehead.data.listing import is_file_at, listed
from rehead.data.manifests import are_parts, find_manifest_at, has_parts, read_manifest_of, read_parts_of
from rehead.data.rows import Named, Request, Skip, Source, short_name
from rehead.data.shards import are_shards, read_shards
from rehead.errors import ReheadError, SourceError


def read_bucket(address: str, request: Request, layout: str = "auto") -> Source:
    """The labelled photos below an address, in the order of their paths. Raises SourceError, MissingExtra."""
    possible = ("auto", *READERS, "manifest", "webdataset")
    if layout not in possible:
        raise SourceError(
            what=f"{address} is a store's address and cannot have the layout {layout!r}.",
            why=f"Possible are {', '.join(possible)}.",
            fix="Leave --layout out: the layout is recognised.",
        )
    parts = split(address)
    prefix = unquote(parts.path).rstrip("/")
    try:
        stamps = listed(address, request)
    except SourceError as error:  # some stores list nothing below a file, and some say that there is nothing
        if not (isinstance(error.__cause__, FileNotFoundError) and is_file_at(address)):
            raise
        stamps = None
    if stamps is None or (not stamps and is_file_at(address)):
        raise SourceError(
            what=f"{address} is a single file, and neither a table nor an archive of photos.",
            fix="Name the folder that has one folder of photos for each class.",
        )
    skipped: list[Skip] = []
    paths = without_runs(_apart(stamps.paths, address, request), skipped)
    if not paths:
        raise no_files(address, skipped)
    called = short_name(PurePosixPath(prefix).name or parts.netloc.rpartition("@")[2])
    manifest, refused = "", list[ReheadError]()
    if layout in ("auto", "manifest") and not are_parts(paths):
        manifest, refused = find_manifest_at(address, paths, is_asked=layout == "manifest")
    if manifest:
        found = read_manifest_of(f"{address.rstrip('/')}/{quote(manifest)}", request)
        named = (
            _place(path, address, manifest)
            for path in chain((row.path for row in found.rows), (skip.path for skip in found.skipped))
        )
        n_named = sum(is_picture(path) and path in stamps for path in named)
        tell_left_out(sum(map(is_picture, paths)) - n_named, manifest, request)
        tell_refused(refused, request)
        return replace(found, name=called)
    if (layout == "auto" and are_parts(paths)) or (layout == "manifest" and has_parts(paths)):
        return read_parts_of(address, paths, request)
    if layout == "manifest":
        raise no_manifest(address, refused)
    if layout == "webdataset" or (layout == "auto" and are_shards(paths)):
        found = read_shards(address, request, {path: stamps[path] for path in paths})
        tell_refused(refused, request)
        return replace(found, skipped=[*skipped, *found.skipped])
    name, reading = (layout, forced(layout, paths)) if layout != "auto" else recognised(paths, request.classes)
    if not reading.rows:
        raise unrecognised(address, paths, layout, refused)
    tell_refused(refused, request)

    def uri(row: Named) -> str:
        return urlunsplit(parts._replace(path=quote(f"{prefix}/{row.path}")))

    return Source(
        name=called,
        layout=name,
        rows=reading.rows,
        read=lambda row: photo_at(uri(row)),
        skipped=[*skipped, *reading.skipped],
        uri=uri,
        stamp=lambda row: stamps[row.path],
        is_named=lambda _: False,
    )


def _place(path: str, address: str, manifest: str) -> str:
    """Where a table's photo is, as seen from the bucket's folder; "" for what is elsewhere."""
    if is_address(path):
        return way_from(address, path) or ""
    way = posixpath.normpath(posixpath.join(posixpath.dirname(manifest), path))
    return "" if way.startswith("..") else way


def _apart(paths: Texts, address: str, request: Request) -> Texts:
    """The paths of files that are not read for another side."""
    ways = {way for other in request.besides if isinstance(other, str) and (way := way_from(address, other))}
    below = tuple(f"{way}/" for way in ways)
    return Texts(path for path in paths if path not in ways and not path.startswith(below)) if ways else paths
