"""Features that machines share: Parquet files in a folder or a bucket, by photo, as a store keys them.

    ADDRESS/<identity of the store>/part-<of what it holds>.parquet    digest: 32 bytes; features: little-endian float16
    ADDRESS/catalog/<of what it holds>/part-00000-of-00001.parquet     path, label, side, digest, group: a Parquet data set

A job fetches what it lacks into its own store before it computes anything, and adds what is new as it computes. A file
never changes, so any number of jobs may add at once; the worst is that two add the same. One that cannot be read, or holds what
are no features, is passed over: its photos are computed again, and added in another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.addresses import PART
from rehead.data.catalog import Catalog
from rehead.data.remote import Folder, open_folder
from rehead.errors import StoreError
from rehead.features.store import Store
from rehead.parallel import batched

CATALOGS, CATALOG_PHOTOS = "catalog", 500_000  # the folder of catalogs, and the photos of a file there
FILE_BYTES = 32 << 20  # of features: 12,000 photos of 1,280 each


def a_file(shape: tuple[int, ...]) -> int:
    """The photos whose features make a file, where there are so many."""
    return max(1, FILE_BYTES // (2 * math.prod(shape)))


class Shared:
    """Features at an address: a folder, or one of a bucket such as s3://team/features."""

    def __init__(self, address: str) -> None:
        """Raises StoreError for an empty name, SourceError where nothing can be listed there, MissingExtra without pyarrow."""
        if not address.strip():
            raise StoreError(what="--features has an empty name.", fix="Name a folder or a bucket, or leave it out.")
        self.address = address
        self._folder: Folder = open_folder(address)
        self._known: dict[str, set[bytes]] = {}  # what is in each file, which never changes

    def fetch(self, store: Store, digests: Sequence[bytes]) -> int:
        """Puts into the store what is here of these photos, and gives their number."""
        wanted, n = set(digests), 0
        for name in self._names(store) if wanted else ():
            if not wanted & self._digests(name):
                continue
            rows = dict(self._rows(name, store.shape))
            self._known[name] = set(rows)  # what is damaged counts as absent, and is added again
            found = {digest: row for digest, row in rows.items() if digest in wanted}
            store.put(found.items())
            wanted -= found.keys()
            n += len(found)
            if not wanted:
                break
        return n

    def add(self, store: Store, digests: Sequence[bytes]) -> int:
        """Adds what the store has of these photos and is not here, and gives their number. Raises StoreError."""
        there: set[bytes] = set().union(*(self._digests(name) for name in self._names(store)))
        absent = set(store.missing(digests)) | there
        new = [digest for digest in dict.fromkeys(digests) if digest not in absent]
        for part in batched(new, a_file(store.shape)):
            self._write(store, part)
        return len(new)

    def add_catalog(self, catalog: Catalog) -> str:
        """Adds which photos a job learned from and was verified on, and gives its address: a source for `rehead tune`, and what
        tells of which photo features are. "" where not all photos have addresses of their own. Raises StoreError."""
        import blake3
        import pyarrow as pa

        hasher = blake3.blake3()
        for photo in catalog.photos:
            path = catalog.uri(photo)
            if path is None or path.startswith(PART) or "?" in path:
                return ""
            hasher.update(
                repr((path, photo.label, photo.side, photo.digest, photo.group)).encode("utf-8", "surrogatepass")
            )
        below = f"{CATALOGS}/{hasher.hexdigest()[:16]}"
        there = set(self._folder.names(below))
        n_files = math.ceil(len(catalog.photos) / CATALOG_PHOTOS)
        for n, photos in enumerate(batched(catalog.photos, CATALOG_PHOTOS)):
            columns = {
                "path": pa.array([catalog.uri(photo) for photo in photos], pa.string()),
                "label": pa.array([photo.label for photo in photos], pa.string()),
                "side": pa.array([photo.side for photo in photos], pa.string()),
                "digest": pa.array([photo.digest for photo in photos], pa.binary(32)),
                "group": pa.array([photo.group for photo in photos], pa.string()),
            }
            if (name := f"{below}/part-{n:05d}-of-{n_files:05d}.parquet") not in there:
                self._put(name, pa.table(columns), compression="zstd")
        return f"{self.address.rstrip('/')}/{below}"

    def _names(self, store: Store) -> list[str]:
        return [name for name in self._folder.names(store.folder.name) if name.endswith(".parquet")]

    def _digests(self, name: str) -> set[bytes]:
        """The photos in a file."""
        if name not in self._known:
            self._known[name] = set(self._column(name, "digest"))
        return self._known[name]

    def _rows(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[bytes, NDArray[np.float16]]]:
        """Digests and features of a file, of those that are some."""
        for digest, row in zip(self._column(name, "digest"), self._column(name, "features"), strict=False):
            if not isinstance(row, bytes) or len(row) != 2 * math.prod(shape):
                continue
            values = np.frombuffer(row, "<f2").reshape(shape)
            if np.isfinite(values).all():
                yield digest, values

    def _column(self, name: str, column: str) -> list[Any]:
        """A column of a file, of which no more is read; nothing of one that is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._folder.open(name) as file:
                table = pq.read_table(file, columns=[column], page_checksum_verification=True)
                return list(table[column].to_pylist())
        except (pa.ArrowException, OSError, KeyError):
            return []

    def _write(self, store: Store, digests: list[bytes]) -> None:
        import blake3
        import pyarrow as pa

        rows = store.read(digests, dtype=np.float16).reshape(len(digests), -1).astype("<f2")
        kind = pa.binary(rows.shape[1] * 2)
        columns: dict[str, Any] = {
            "digest": pa.array(digests, pa.binary(32)),
            "features": pa.array([row.tobytes() for row in rows], kind),
        }
        name = f"{store.folder.name}/part-{blake3.blake3(b''.join(digests)).hexdigest()[:32]}.parquet"
        self._put(name, pa.table(columns), compression="none", use_dictionary=False)
        self._known[name] = set(digests)

    def _put(self, name: str, table: Any, **how: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        try:
            pq.write_table(table, sink, write_page_checksum=True, **how)
            self._folder.write(name, sink.getvalue().to_pybytes())
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                what=f"{'The catalog' if name.startswith(CATALOGS) else 'Features'} cannot be written to {self.address}.",
                why=" ".join(str(error).split())[:300],
                fix="What was computed is kept here.",
            ) from error
