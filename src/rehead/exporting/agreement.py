"""Whether a bundle, loaded back, gives what the model gave that was tuned: it is not handed over before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rehead.bundle import Bundle, Head, sigmoid, softmax
from rehead.errors import Defect
from rehead.parallel import ordered_map
from rehead.predict import Model

AT_ONCE = 2  # photos, which shows that a graph takes several; they are few, and more take memory
MAX_DIFFERENCE = 1e-4  # between a probability of the bundle and of the model that was tuned


def compare(
    bundle: Bundle,
    pixels: NDArray[np.uint8],
    features: NDArray[np.float32],
    head: Head,
    allowed: float = MAX_DIFFERENCE,
    spread: float = 1.0,
) -> float:
    """The largest difference in a probability between the bundle, loaded back, and `head` on the prefix's `features`.

    pixels: (n, h, w, 3). features: (n, width) of the same photos. spread: the deviation of the numbers that were learned, of
    which a difference between numbers is a share.
    Raises Defect when another class or label is named or a probability or number is off by `allowed` or more.
    """
    model = Model(bundle)
    if bundle.task == "regression":
        return _compare_numbers(model, pixels, head.logits(features), allowed, spread)
    probabilities = in_batches(model.probabilities, pixels, AT_ONCE, 1)
    logits = head.logits(features)
    wanted = softmax(logits / np.float32(bundle.temperature)) if bundle.task == "classification" else sigmoid(logits)
    off = float(np.abs(probabilities - wanted).max())
    same = _same_names(bundle, probabilities, wanted, off)
    if not off < allowed or not same.all():  # NaN is neither
        kind = "classes" if bundle.task == "classification" else "labels"
        raise _differs(f"by {off:.2g} in a probability, {int((~same).sum())} other {kind}", allowed)
    return off


def _same_names(
    bundle: Bundle, ours: NDArray[np.float32], wanted: NDArray[np.float32], off: float
) -> NDArray[np.bool_]:
    """Whether the same is named, where it is not a toss-up: of two equal probabilities, either may come first."""
    if bundle.task == "classification":
        return np.asarray((ours.argmax(axis=1) == wanted.argmax(axis=1)) | (_top_gap(wanted) <= 2 * off))
    thresholds = np.asarray(bundle.thresholds, np.float32)
    return np.asarray(((ours >= thresholds) == (wanted >= thresholds)) | (np.abs(wanted - thresholds) <= 2 * off))


def _compare_numbers(
    model: Model, pixels: NDArray[np.uint8], wanted: NDArray[np.float32], allowed: float, spread: float
) -> float:
    """The largest difference as a share of the spread; what float32 rounds of large numbers does not count."""
    values = in_batches(model.logits, pixels, AT_ONCE, 1)
    rounding = 4 * float(np.finfo(np.float32).eps) * float(np.abs(wanted).max())
    apart = float(np.abs(values - wanted).max())
    off = max(apart - rounding, 0.0) / (spread or 1.0)  # in this order NaN stays NaN
    if not off < allowed:
        raise _differs(f"by {off:.2g} of the numbers' deviation", allowed)
    return off


def _differs(how: str, allowed: float) -> Defect:
    return Defect(
        what=f"The bundle differs from the model: {how}.",
        why=f"{allowed:g} is allowed.",
        fix="Please report this with the recipe of the run; another --backbone or --engine torch may work.",
    )


def in_batches(
    run: Callable[[NDArray[np.uint8]], NDArray[np.float32]], pixels: NDArray[np.uint8], size: int, workers: int
) -> NDArray[np.float32]:
    """run(pixels) for `size` photos at a time, by several threads; rows in order."""
    parts = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    return np.concatenate(list(ordered_map(run, parts, workers=workers, ahead=2 * workers)))


def _top_gap(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    top = np.sort(probabilities, axis=1)
    return np.asarray(top[:, -1] - top[:, -2])
