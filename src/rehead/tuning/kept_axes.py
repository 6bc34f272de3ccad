"""The principal axes of photos' features, kept in a file: another head on the same photos begins with them.

They depend on the features alone, whatever is learned, and take a third of the time to solve a head for thousands of photos.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rehead.durable import write_bytes

NAME = "axes.safetensors"
LARGEST_BYTES = 32 << 20  # of 2,800 features a photo; a disk is not filled with more
Array32 = NDArray[np.float32]
Found = tuple[Array32, Array32]  # the variance along each axis (r,), the axes (d, r)


def axes_of(block: Array32, file: Path | None, compute: Callable[[], Found], *, thin: bool) -> Found:
    """What `compute` gives for the photos `block` (n, d), or gave for the same bytes when `file` was written. thin: whether
    there may be fewer than d axes.

    A file that is damaged, or of other photos, is replaced; one that cannot be written is left out.
    """
    if file is None or 4 * block.shape[1] ** 2 > LARGEST_BYTES:
        return compute()
    import blake3

    photos = blake3.blake3(np.ascontiguousarray(block).data.cast("B")).hexdigest() + " thin" * thin
    found = _read(file, photos)
    if found is None:
        variance, axes = compute()
        found = variance.astype(np.float32), axes.astype(np.float32)
        _write(file, photos, found)
    return found


def _read(file: Path, photos: str) -> Found | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as kept:
            if (kept.metadata() or {}).get("photos") != photos:
                return None
            return kept.get_tensor("variance"), kept.get_tensor("axes")
    except (OSError, SafetensorError):
        return None


def _write(file: Path, photos: str, found: Found) -> None:
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(one) for name, one in zip(("variance", "axes"), found, strict=True)}
    with contextlib.suppress(OSError):
        write_bytes(file, save(tensors, {"photos": photos}))
