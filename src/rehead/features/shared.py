"""Features that machines share: Parquet files in a folder or a bucket, by photo, as a store keys them.

    ADDRESS/<identity of the store>/part-<of what it holds>.parquet    digest: 32 bytes; features: little-endian float16
    ADDRESS/catalog/<of what it holds>/part-00000-of-00001.parquet     path, label, side, digest, group: a Parquet data set

A job fetches what it lacks into its own store before it computes anything, and adds what is new as it computes. A file
never changes, so any number of jobs may add at once; the worst is that two add the same. One that cannot be read, or holds what
are no features, is passed over: its photos are computed again, and added in another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.data.addresses import PART
from rehead.data.catalog import Catalog
from rehead.data.columns import DIGEST
from rehead.data.remote import Folder, open_folder
from rehead.errors import StoreError
from rehead.features.store import Store
from rehead.parallel import batched

CATALOGS, CATALOG_PHOTOS = "catalog", 500_000  # the folder of catalogs, and the photos of a file there
FILE_BYTES = 32 << 20  # of features: 12,000 photos of 1,280 each


# How digests begin, as numbers: 8 bytes a photo, where the digests would take 100. Two of 100 million begin alike with a
# probability of one in 4,000; then features are computed that might have been fetched, or are not added.
Beginnings = NDArray[np.uint64]


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
        self._known: dict[str, Beginnings] = {}  # of what is in each file, which never changes
        self._there: dict[str, Beginnings] = {}  # of what is in all files of a store, sorted
        self._unreadable: set[str] = set()

    def fetch(self, store: Store, digests: Sequence[bytes]) -> int:
        """Puts into the store what is here of these photos, and gives their number."""
        self._there.pop(store.folder.name, None)
        wanted, n = np.unique(_beginnings(digests)), 0
        is_left = np.ones(len(wanted), bool)
        for name in self._names(store):
            if n == len(wanted):
                break
            if not is_left[_places(self._begins(name), wanted)[1]].any():
                continue
            rows = dict(self._rows(name, store.shape))
            self._known[name] = _beginnings(rows)  # what is damaged counts as absent, and is added again
            found, places = _places(self._known[name], wanted)
            found[found] = is_left[places]
            store.put((digest, row) for (digest, row), is_new in zip(rows.items(), found, strict=True) if is_new)
            n += int(is_left[places].sum())
            is_left[places] = False
        return n

    def add(self, store: Store, digests: Sequence[bytes], *, lists: bool = True) -> int:
        """Adds what the store has of these photos and is not here, and gives their number. lists: whether it is looked for what
        others added meanwhile, which takes a time that grows with all that is here. Raises StoreError."""
        there = self._all(store, lists)
        begins = _beginnings(digests)
        is_new = store.has(digests) & ~_places(begins, there)[0]
        _, first = np.unique(begins, return_index=True)
        new = np.sort(first[is_new[first]])
        for part in batched((digests[i] for i in new), a_file(store.shape)):
            self._write(store, part)
        added = np.sort(begins[new])
        self._there[store.folder.name] = np.insert(there, np.searchsorted(there, added), added)
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

    def unreadable(self) -> list[str]:
        """The names of files that could not be read, or were found to be damaged, since this was asked last."""
        found, self._unreadable = sorted(self._unreadable), set()
        return found

    def _names(self, store: Store) -> list[str]:
        return [name for name in self._folder.names(store.folder.name) if name.endswith(".parquet")]

    def _all(self, store: Store, lists: bool) -> Beginnings:
        """Of the photos in all files of a store, sorted. lists: whether files are looked for anew."""
        there = self._there.get(store.folder.name)
        if lists or there is None:
            parts = [self._begins(name) for name in self._names(store)]
            there = np.unique(np.concatenate([_beginnings(()), *parts]))
        return there

    def _begins(self, name: str) -> Beginnings:
        """Of the photos in a file."""
        if name not in self._known:
            self._known[name] = _beginnings(one for one in self._column(name, "digest") if isinstance(one, bytes))
        return self._known[name]

    def _rows(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[bytes, NDArray[np.float16]]]:
        """Digests and features of a file, of those that are some."""
        for digest, row in zip(self._column(name, "digest"), self._column(name, "features"), strict=False):
            is_row = isinstance(row, bytes) and len(row) == 2 * math.prod(shape)
            values = np.frombuffer(row, "<f2").reshape(shape) if is_row else np.full(shape, np.nan, np.float16)
            if isinstance(digest, bytes) and len(digest) == DIGEST and np.isfinite(values).all():
                yield digest, values
            else:
                self._unreadable.add(name)

    def _column(self, name: str, column: str) -> list[Any]:
        """A column of a file, of which no more is read; nothing of one that is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._folder.open(name) as file:
                table = pq.read_table(file, columns=[column], page_checksum_verification=True)
                return list(table[column].to_pylist())
        except (pa.ArrowException, OSError, KeyError):
            self._unreadable.add(name)
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
        self._known[name] = _beginnings(digests)

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


def _beginnings(digests: Iterable[bytes]) -> Beginnings:
    return np.frombuffer(b"".join(digest[:8] for digest in digests if len(digest) == DIGEST), np.uint64)


def _places(some: Beginnings, among: Beginnings) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of each of some whether it is among these, which are sorted, (n,); and where those that are stand there."""
    if not len(among):
        return np.zeros(len(some), bool), np.empty(0, np.int64)
    places = np.minimum(np.searchsorted(among, some), len(among) - 1)
    found = among[places] == some
    return found, places[found]
