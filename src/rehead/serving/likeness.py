"""Which of the photos a model learned from a picture is most like, by the bundle's graph."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from rehead.serving.models import Loaded

Row = dict[str, Any]


def like(loaded: Loaded, places: NDArray[np.int64], similarity: NDArray[np.float32]) -> list[list[Row]]:
    """For each picture the photos learned from that it is most like, the most alike first; none where the bundle shows none.

    places, similarity: (n, k), as `Model.predict_with_nearest` gives them; half precision may say a little more than 1.
    image: where a small picture of the photo is.
    """
    about = loaded.model.bundle.facts["neighbours"]
    labels, base = about["labels"] if about else [], f"/v1/neighbours/{quote(loaded.name, safe='')}"
    return [
        [
            {
                "label": labels[place],
                "similarity": min(1.0, round(alike, 6)),
                "image": f"{base}/{place}?v={loaded.version}",
            }
            for place, alike in zip(*row, strict=True)
            if place < len(labels)
        ]
        for row in zip(places.tolist(), similarity.tolist(), strict=True)
    ]
