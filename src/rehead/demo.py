"""The demo's photos: scikit-learn's 1,797 handwritten digits as PNG files in class folders, enlarged."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rehead.durable import replaced_folder
from rehead.progress import Progress

SIDE = 96  # pixels; from 8, so that a network sees strokes and not single pixels


def write_digits(folder: Path, progress: Progress) -> Path:
    """`folder`, with 0/ to 9/ in it, written once. Source: E. Alpaydin and C. Kaynak, UCI, 1998, as in scikit-learn."""
    if folder.is_dir():
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    progress.phase("Writing the digits", len(digits.images), "pictures")
    with replaced_folder(folder) as temporary:
        for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = temporary / str(label) / f"{i:04d}.png"
            path.parent.mkdir(exist_ok=True)
            grey = Image.fromarray((255 - image * (255 / 16)).astype(np.uint8))
            grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
            progress.advance()
    return folder
