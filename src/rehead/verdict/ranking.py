"""Which of several backbones to take: the fastest whose accuracy is not clearly worse than the best. Numbers in, words out.

After Breiman's rule (1984): what is within one standard error of the best, photo by photo, may be as good, and then speed
decides. The held-out photos have no say: a choice made by them would make their number too high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehead.verdict.compare import Gain, gain


@dataclass(frozen=True)
class Rival:
    """right: (n,), whether it is right on each of the photos that all rivals share."""

    name: str
    right: NDArray[np.bool_]
    images_per_s: float

    @property
    def share(self) -> float:
        return float(self.right.mean()) if len(self.right) else 0.0


def recommended(rivals: Sequence[Rival]) -> tuple[int, str]:
    """The place of the one to take, and why, as a sentence. rivals: at least one."""
    best = max(range(len(rivals)), key=lambda i: (rivals[i].share, rivals[i].images_per_s))
    lead = [gain(rivals[best].right, rival.right) for rival in rivals]
    even = [i for i in range(len(rivals)) if i == best or not lead[i].is_clear]
    chosen = max(even, key=lambda i: (rivals[i].images_per_s, rivals[i].share))
    return chosen, _why(rivals, best, chosen, lead)


def _why(rivals: Sequence[Rival], best: int, chosen: int, lead: Sequence[Gain]) -> str:
    taken, top = rivals[chosen], rivals[best]
    sentence = f"Take {taken.name}: "
    if len(rivals) == 1:
        return sentence + f"it is the only one here, right on {taken.share:.1%}."
    if chosen != best:
        faster = taken.images_per_s / top.images_per_s
        return sentence + (
            f"{taken.share:.1%} right, within a standard error of the {top.share:.1%} of {top.name} "
            f"({_points(lead[chosen])}), and {faster:.1f} times as fast."
        )
    faster_ones = [i for i in range(len(rivals)) if rivals[i].images_per_s > taken.images_per_s]
    if not faster_ones:
        return sentence + f"none is right more often than its {taken.share:.1%}, and none is faster."
    second = max(faster_ones, key=lambda i: rivals[i].share)
    return sentence + (
        f"{taken.share:.1%} right, more than a standard error above the {rivals[second].share:.1%} of "
        f"{rivals[second].name}, the best of the faster ones ({_points(lead[second])})."
    )


def _points(lead: Gain) -> str:
    return f"a difference of {100 * lead.value:.1f} points, give or take {100 * lead.error:.1f}"
