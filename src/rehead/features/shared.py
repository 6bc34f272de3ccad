"""Features that machines share: Parquet files in a folder or a bucket, by photo, as a store keys them.

    ADDRESS/<identity of the store>/part-<of what it holds>.parquet    digest: 32 bytes; features: little-endian float16

A job fetches what it lacks into its own store before it computes anything, and adds what is new when it has computed. A file
is there whole or not at all and never changes, so any number of jobs may add at once; the worst is that two add the same. One
that cannot be read is passed over: its photos are computed again, and added in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rehead.data.buckets import Folder, open_folder
from rehead.errors import StoreError
from rehead.features.store import Store
from rehead.parallel import batched

ROWS = 8_192  # photos a file: 21 MB of 1,280 features each


class Shared:
    """Features at an address: a folder, or one of a bucket such as s3://team/features."""

    def __init__(self, address: str) -> None:
        """Raises StoreError for an empty name, SourceError where nothing can be listed there, MissingExtra without pyarrow."""
        if not address.strip():
            raise StoreError(what="--features has an empty name.", fix="Name a folder or a bucket, or leave it out.")
        self.address = address
        self._folder: Folder = open_folder(address)

    def fetch(self, store: Store, digests: Sequence[bytes]) -> int:
        """Puts into the store what is here of these photos, and gives their number."""
        wanted, n = set(digests), 0
        for name in self._names(store) if wanted else ():
            rows = self._read(name)
            found = {digest: row for digest, row in rows if digest in wanted}
            store.put((digest, np.frombuffer(row, "<f2").reshape(store.shape)) for digest, row in found.items())
            wanted -= found.keys()
            n += len(found)
            if not wanted:
                break
        return n

    def add(self, store: Store, digests: Sequence[bytes]) -> int:
        """Adds what the store has of these photos and is not here, and gives their number."""
        there = {digest for name in self._names(store) for digest, _ in self._read(name, features=False)}
        absent = set(store.missing(digests)) | there
        new = [digest for digest in dict.fromkeys(digests) if digest not in absent]
        for part in batched(new, ROWS):
            self._write(store, part)
        return len(new)

    def _names(self, store: Store) -> list[str]:
        return [name for name in self._folder.names(store.folder.name) if name.endswith(".parquet")]

    def _read(self, name: str, *, features: bool = True) -> Iterator[tuple[bytes, bytes]]:
        """Digests and features of a file; nothing of one that is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(
                pa.BufferReader(self._folder.read(name)), columns=["digest", "features"][: 1 + features]
            )
        except (pa.ArrowException, OSError, KeyError):
            return
        rows = table["features"].to_pylist() if features else [b""] * len(table)
        yield from zip(table["digest"].to_pylist(), rows, strict=True)

    def _write(self, store: Store, digests: list[bytes]) -> None:
        import blake3
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = store.read(digests, dtype=np.float16).reshape(len(digests), -1).astype("<f2")
        kind = pa.binary(rows.shape[1] * 2)
        columns: dict[str, Any] = {
            "digest": pa.array(digests, pa.binary(32)),
            "features": pa.array([row.tobytes() for row in rows], kind),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
        name = f"{store.folder.name}/part-{blake3.blake3(b''.join(digests)).hexdigest()[:32]}.parquet"
        try:
            self._folder.write(name, sink.getvalue().to_pybytes())
        except OSError as error:
            raise StoreError(
                what=f"Features cannot be written to {self.address}.",
                why=" ".join(str(error).split())[:300],
                fix="Name a folder or bucket that you may write to with --features, or leave it out: they are kept here too.",
            ) from error
