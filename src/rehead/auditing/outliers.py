"""Photos that are far from all others: of something else, a page that says "not found", a file of another collection.

The mean distance to the nearest neighbours ranks them (Angiulli and Pizzuti 2002); how far is far is told by the spread of
that distance over all photos (`robust.py`). What they show is for a person to see.
"""

from __future__ import annotations

import numpy as np

from rehead.auditing.copies import N_NEAREST, Alike
from rehead.auditing.findings import Outlier
from rehead.auditing.robust import FAR, modified_z
from rehead.data.catalog import Catalog

MIN_PHOTOS = 4 * N_NEAREST  # of fewer photos none is far from others: all are


def outliers(catalog: Catalog, found: Alike) -> tuple[Outlier, ...]:
    """The photos whose mean cosine distance to their nearest others is far above the usual, the furthest first."""
    if len(found.positions) < MIN_PHOTOS:
        return ()
    distance = 1 - found.nearest.similarity.mean(axis=1, dtype=np.float64)
    usual = float(np.median(distance))
    far = modified_z(distance) > FAR
    rows = sorted(np.flatnonzero(far).tolist(), key=lambda row: -distance[row])
    photos = [(catalog.photos[found.positions[row]], float(distance[row])) for row in rows]
    return tuple(Outlier(p.path, p.side, p.label, one, usual) for p, one in photos)
