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
FORMAT = "1"  # of the file, and of what is computed
LARGEST_BYTES = 32 << 20  # of 2,800 features a photo; a disk is not filled with more
Array32 = NDArray[np.float32]
Found = tuple[Array32, Array32]  # the variance along each axis (r,), the axes (d, r)


def axes_of(block: Array32, file: Path | None, compute: Callable[[], Found], *, thin: bool) -> Found:
    """What `compute` gives for the photos `block` (n, d), or gave for the same bytes when `file` was written. thin: whether
    there may be fewer than d axes.

    A file that is damaged, or of other photos, or of another NumPy, is replaced; one that cannot be written is left out.
    """
    if file is None or 4 * block.shape[1] ** 2 > LARGEST_BYTES:
        return compute()
    photos = " ".join([_digest(block), f"numpy {np.__version__}", *["thin"] * thin])
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
            said = kept.metadata() or {}
            variance, axes = (kept.get_tensor(name) for name in ("variance", "axes"))
    except (OSError, SafetensorError):
        return None
    is_whole = said.get("digest") == _digest(variance, axes)
    return (variance, axes) if is_whole and (said.get("format"), said.get("photos")) == (FORMAT, photos) else None


def _write(file: Path, photos: str, found: Found) -> None:
    from safetensors.numpy import save

    if not file.parent.is_dir():  # cleared since: a folder with this alone would be no store
        return
    tensors = {name: np.ascontiguousarray(one) for name, one in zip(("variance", "axes"), found, strict=True)}
    with contextlib.suppress(OSError):
        write_bytes(file, save(tensors, {"format": FORMAT, "photos": photos, "digest": _digest(*tensors.values())}))


def _digest(*arrays: Array32) -> str:
    import blake3

    whole = blake3.blake3()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).data.cast("B"))
    return str(whole.hexdigest())
