"""Labels that are likely wrong, by confident learning on probabilities of models that did not learn from the photo.

Northcutt, Jiang and Chuang 2021, "Confident Learning", by the authors' library cleanlab: a photo is an issue where another
class is as probable as it usually is for photos of that class; how many there are is estimated for each pair of classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.auditing.findings import LabelIssue
from rehead.bundle import softmax
from rehead.data.catalog import Catalog

MIN_PHOTOS = 10  # below them a class' usual probability is that of chance


def label_issues(catalog: Catalog, positions: Sequence[int], logits: NDArray[Any]) -> tuple[LabelIssue, ...]:
    """The labels that are likely wrong, the likeliest first. For classes only.

    positions: in the catalog, of the rows of `logits` (n, n_classes), which are of a model that did not learn from the photo;
    NaN where there is none, or of a class that no photo has. Importing cleanlab takes two to three seconds.
    """
    known = judged_rows(catalog, positions, logits)
    if not len(known):
        return ()
    labels = catalog.labels(positions)[known]
    present = np.unique(labels)
    probabilities = softmax(np.asarray(logits[known][:, present], np.float32))
    issues = _ranked(np.searchsorted(present, labels), probabilities)
    return tuple(_issue(catalog, positions[known[row]], probabilities[row], present) for row in issues)


def judged_rows(catalog: Catalog, positions: Sequence[int], logits: NDArray[Any]) -> NDArray[np.int64]:
    """The rows of photos whose labels such logits can judge, none where these are too few or of one class."""
    labels = catalog.labels(positions)
    known = np.flatnonzero(np.isfinite(logits[np.arange(len(labels)), labels]))
    return known if len(known) >= MIN_PHOTOS and len(np.unique(labels[known])) > 1 else known[:0]


def _ranked(labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> list[int]:
    """The rows whose labels are likely wrong, by how improbable their label is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries it loads, and of classes with few photos
        from cleanlab.filter import find_label_issues

        found = find_label_issues(
            labels, probabilities, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
        )
    given = probabilities.argmax(axis=1) == labels
    return [int(row) for row in found if not given[row]]


def _issue(catalog: Catalog, position: int, probabilities: NDArray[Any], present: NDArray[np.int64]) -> LabelIssue:
    photo = catalog.photos[position]
    best = int(probabilities.argmax())
    own = int(np.searchsorted(present, catalog.classes.index(photo.label)))
    return LabelIssue(
        path=photo.path,
        side=photo.side,
        label=photo.label,
        given=float(probabilities[own]),
        suggested=catalog.classes[int(present[best])],
        probability=float(probabilities[best]),
    )
