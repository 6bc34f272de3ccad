"""Which of the photos a model learned from a picture is most like, by the bundle's graph."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from rehead.serving.models import Loaded

Row = dict[str, Any]


def nearest(loaded: Loaded, pixels: NDArray[np.uint8], n: int) -> list[list[Row]]:
    """For each of these prepared pixels (m, h, w, 3), at most n photos learned from, the most alike first; none where the
    bundle shows none. image: where a small picture of it is."""
    about = loaded.model.bundle.facts["neighbours"]
    found = loaded.model.nearest(pixels) if about is not None else None
    if found is None:
        return [[] for _ in pixels]
    labels, base = about["labels"], f"/v1/neighbours/{quote(loaded.name, safe='')}"
    return [
        [
            {
                "label": labels[place],
                "similarity": None if likeness is None else round(float(likeness[i]), 6),
                "image": f"{base}/{place}?v={loaded.version}",
            }
            for i, place in enumerate(places[:n].tolist())
            if place < len(labels)
        ]
        for places, likeness in zip(*found, strict=True)
    ]
