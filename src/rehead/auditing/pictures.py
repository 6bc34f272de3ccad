"""Pictures that are odd by themselves: blank, dark, bright, blurred, tiny, oddly shaped.

Each bound is an absolute one, below which a person would call a picture so, and one relative to the other photos of the job,
so that night scenes, thumbnails and drawings are not all odd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rehead.auditing.facts import Facts
from rehead.auditing.findings import OddPicture
from rehead.auditing.robust import FAR, modified_z
from rehead.data.catalog import Catalog

FAULTS = ("blank", "dark", "bright", "blurred", "tiny", "odd shape")
BLANK = 4.0  # standard deviation of the luma: a page with a line of text has more
DARK, BRIGHT = 20.0, 235.0  # mean luma, 0..255
EXTREME = 3.0  # so many times darker, nearer to white, or plainer than the median photo
BLURRED = (
    8.0  # so many times less sharp than the median; blurring by 1 % of the side makes cats and dogs 40 times less so
)
TINY = 64  # pixels of the shorter side; networks see 224
SMALLER = 2.0  # so many times smaller than the median photo
LONG = 3.0  # times longer than wide: of such a picture the middle third is seen, or a strip of a few pixels


@dataclass(frozen=True)
class Usual:
    """Of the median photo, and below which sharpness a photo is blurred."""

    brightness: float
    contrast: float
    sharpness: float
    side: float
    length: float
    blurred: float


def odd_pictures(catalog: Catalog, facts: Mapping[int, Facts]) -> tuple[OddPicture, ...]:
    """The odd pictures, in the order of FAULTS, each with one fault. facts: by position in the catalog."""
    if not facts:
        return ()
    usual = _usual(list(facts.values()))
    found = []
    for i, fact in sorted(facts.items()):
        for fault, why in _faults(fact, usual):
            photo = catalog.photos[i]
            found.append(OddPicture(photo.path, photo.side, photo.label, fault, why))
            break
    return tuple(sorted(found, key=lambda odd: FAULTS.index(odd.fault)))


def _usual(facts: list[Facts]) -> Usual:
    sharp = np.log([max(fact.sharpness, 1e-3) for fact in facts])
    near = sharp[modified_z(sharp) > -FAR]
    return Usual(
        brightness=float(np.median([fact.brightness for fact in facts])),
        contrast=float(np.median([fact.contrast for fact in facts])),
        sharpness=float(np.exp(np.median(sharp))),
        side=float(np.median([min(fact.width, fact.height) for fact in facts])),
        length=float(np.median([_length(fact) for fact in facts])),
        blurred=float(min(np.exp(np.median(sharp)) / BLURRED, np.exp(near.min()))),
    )


def _faults(fact: Facts, usual: Usual) -> Iterator[tuple[str, str]]:
    if fact.contrast < min(BLANK, usual.contrast / EXTREME):
        yield "blank", f"its brightness varies by {fact.contrast:.1f} of 255, usually by {usual.contrast:.0f}"
    if fact.brightness < min(DARK, usual.brightness / EXTREME):
        yield "dark", f"mean brightness {fact.brightness:.0f} of 255, usually {usual.brightness:.0f}"
    if 255 - fact.brightness < min(255 - BRIGHT, (255 - usual.brightness) / EXTREME):
        yield "bright", f"mean brightness {fact.brightness:.0f} of 255, usually {usual.brightness:.0f}"
    if fact.sharpness < usual.blurred:
        yield "blurred", f"{usual.sharpness / max(fact.sharpness, 1e-3):.0f} times less sharp than the median photo"
    if min(fact.width, fact.height) < min(TINY, usual.side / SMALLER):
        yield "tiny", f"{fact.width} x {fact.height} pixels"
    if _length(fact) > max(LONG, LONG / 2 * usual.length):
        yield "odd shape", f"{fact.width} x {fact.height} pixels, {_length(fact):.1f} times longer than wide"


def _length(fact: Facts) -> float:
    return max(fact.width, fact.height) / max(1, min(fact.width, fact.height))
