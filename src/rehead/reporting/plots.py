"""The curves of a report, by matplotlib: reliability, coverage, learning curve, map of the features. Values in, SVG out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehead.reporting.inline import ACCENT, GROUPS, INK, MUTED, WRONG, inks, inline_svg
from rehead.svg import blank
from rehead.verdict.bootstrap import Estimate
from rehead.verdict.calibrate import Calibration, Reliability
from rehead.verdict.growth import Growth
from rehead.verdict.intervals import Interval
from rehead.verdict.selective import Selective

SIZE = (4.8, 3.6)  # inches: beside each other on a desk, one a row on a phone, where text must stay readable
MAP_SIZE = (7.2, 5.0)
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")  # of groups, so that colour is not all that tells them apart


def reliability_svg(calibration: Calibration) -> str:
    """How often it is right against how sure it says it is, before and after calibration."""
    with inks("reliability"):
        figure, (axes,) = blank(*SIZE)
        low = min(100 * b.low for part in (calibration.before, calibration.after) for b in part.bins)
        axes.plot([low, 100], [low, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        _bins(axes, calibration.before, "as it was", MUTED, "s", hollow=True)
        _bins(axes, calibration.after, "calibrated", ACCENT, "o")
        axes.set(xlabel="probability it gives, %", ylabel="right, %", xlim=(low - 2, 103), ylim=(-4, 104))
        axes.legend(loc="upper left")
        errors = ", ".join(
            f"{name} {100 * part.error.value:.1f} points"
            for name, part in (("before", calibration.before), ("after", calibration.after))
        )
        return inline_svg(figure, "reliability", f"Reliability: share right against probability. Mean error {errors}.")


def counts_svg(calibration: Calibration) -> str:
    """How many photos each probability was given to."""
    with inks("counts"):
        figure, (axes,) = blank(*SIZE)
        for part, colour, fill, name in (
            (calibration.after, ACCENT, True, "calibrated"),
            (calibration.before, MUTED, False, "as it was"),
        ):
            edges = [100 * b.low for b in part.bins]
            widths = [100 * (b.high - b.low) for b in part.bins]
            axes.bar(edges, [b.n for b in part.bins], widths, align="edge", label=name, color=colour if fill else "none",
                     alpha=0.75 if fill else 1, edgecolor=colour, linewidth=1.2)  # fmt: skip
        axes.set(xlabel="probability it gives, %", ylabel="photos", xlim=(None, 101))
        axes.legend(loc="upper left")
        axes.locator_params(axis="y", integer=True)
        last = calibration.after.bins[-1]
        alt = f"Photos by probability: {last.n} of {sum(b.n for b in calibration.after.bins)} in the highest part."
        return inline_svg(figure, "counts", alt)


def coverage_svg(selective: Selective) -> str:
    """The share right among the photos that are answered, against their share, with the threshold that was chosen."""
    with inks("coverage"):
        figure, (axes,) = blank(*SIZE)
        curve = selective.curve
        x = [100 * point.coverage for point in curve]
        low, mid, high = _ends([point.right for point in curve])
        axes.fill_between(x, low, high, color=ACCENT, alpha=0.18, linewidth=0)
        axes.plot(x, mid, color=ACCENT, linewidth=1.8, label="right among those answered")
        axes.axhline(100 * selective.precision, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="wanted")
        if selective.right is not None:
            _point(axes, 100 * selective.coverage.value, selective.right, WRONG, "D", "threshold chosen")
        axes.set(xlabel="photos answered, %", ylabel="right, %", xlim=(0, 102))
        axes.set_ylim(max(0.0, min(*mid, 100 * selective.precision) - 8), 101)
        axes.legend(loc="lower left")
        alt = f"Share right against share answered: {mid[0]:.1f} % right where all are answered."
        return inline_svg(figure, "coverage", alt)


def growth_svg(growth: Growth) -> str:
    """The share right against the photos learned from, the law fitted to it, and what twice as many would likely bring."""
    with inks("growth"):
        figure, (axes,) = blank(*SIZE)
        for place, point in enumerate(growth.points):
            _point(axes, point.n, point.right, ACCENT, "o", "measured" if not place else None)
        n = growth.points[-1].n
        if growth.law is not None:
            floor, scale, exponent = growth.law
            x = np.geomspace(growth.points[0].n, 2 * n, 60)
            y = np.clip(100 * (1 - floor - scale * x**-exponent), 0, 100)
            axes.plot(x, y, color=INK, linewidth=1.2, zorder=1, label="power law")
        if growth.at_twice is not None:
            _point(axes, 2 * n, growth.at_twice, WRONG, "D", "likely with twice as many")
        axes.set(xscale="log", xlabel="photos learned from", ylabel="right, %")
        _plain_ticks(axes, [point.n for point in growth.points] + [2 * n])
        axes.legend(loc="lower right")
        alt = f"Learning curve: {100 * growth.points[-1].right.value:.1f} % right with {n} photos. {growth.sentence}"
        return inline_svg(figure, "growth", alt)


def map_svg(
    xy: NDArray[np.floating[Any]], groups: NDArray[np.int64], names: Sequence[str], wrong: NDArray[np.bool_]
) -> str:
    """Photos as points. xy: (n, 2). groups: (n,) places in `names`, -1: of none of them. wrong: (n,), is ringed.

    Each marker has its row of `xy` as data-p; the artists are called g0, g1, ..., rest and wrong.
    """
    rows = {f"g{i}": np.flatnonzero(groups == i) for i in range(len(names))}
    drawn = {"rest": np.flatnonzero(groups < 0), **rows, "wrong": np.flatnonzero(wrong)}
    with inks("map"):
        figure, (axes,) = blank(*MAP_SIZE)
        for gid, own in drawn.items():
            if len(own):
                axes.plot(*xy[own].T, linestyle="none", gid=gid, clip_on=False, **_look(gid))
        axes.set_axis_off()
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.03)
        alt = f"Map of the features of {len(xy)} photos: photos that look alike to the network stand near each other."
        return inline_svg(figure, "map", alt, lambda gid: drawn.get(gid, np.zeros(0, int)).tolist())


def _look(gid: str) -> dict[str, Any]:
    """How markers of a group look."""
    if gid == "wrong":
        return {
            "marker": "o",
            "markersize": 9.5,
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markeredgewidth": 1,
        }
    if gid == "rest":
        return {"marker": ".", "markersize": 5, "color": MUTED, "alpha": 0.55}
    place = int(gid[1:])
    look = {"color": GROUPS[place % len(GROUPS)], "markeredgewidth": 0, "markersize": 5.5, "alpha": 0.85}
    return {"marker": SHAPES[place % len(SHAPES)], **look}


def _bins(axes: Any, part: Reliability, name: str, colour: str, marker: str, *, hollow: bool = False) -> None:
    x = [100 * b.probability for b in part.bins]
    low, mid, high = _ends([b.right for b in part.bins])
    n = np.array([b.n for b in part.bins], np.float64)
    if not hollow:
        axes.errorbar(
            x, mid, yerr=[np.subtract(mid, low), np.subtract(high, mid)], fmt="none", ecolor=colour, elinewidth=1.2
        )
    sizes = 14 + 70 * np.sqrt(n / n.max())
    axes.scatter(x, mid, sizes, marker=marker, facecolor="none" if hollow else colour, edgecolor=colour, label=name)


def _point(axes: Any, x: float, y: Interval | Estimate, colour: str, marker: str, label: str | None) -> None:
    low, mid, high = (100 * value for value in (y.low, y.value, y.high))
    axes.errorbar([x], [mid], yerr=[[mid - low], [high - mid]], fmt=marker, color=colour, capsize=3, markersize=6,
                  label=label)  # fmt: skip


def _ends(shares: Sequence[Interval]) -> tuple[list[float], list[float], list[float]]:
    """Lower ends, values and upper ends, in %."""
    return [100 * s.low for s in shares], [100 * s.value for s in shares], [100 * s.high for s in shares]


def _plain_ticks(axes: Any, n_photos: Sequence[int]) -> None:
    """Ticks of a logarithmic axis at the numbers that were measured, those too near to the one before left out."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    kept: list[int] = []
    for n in sorted(n_photos, reverse=True):
        if not kept or kept[-1] / n > 1.6:
            kept.append(n)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{n:,}" for n in kept]))
    axes.xaxis.set_minor_locator(NullLocator())
