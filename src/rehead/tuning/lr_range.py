"""Which learning rate to train with, by a range test (Smith 2017), and its curve as a picture and as a line. No torch.

The rate rises a little with each batch from one that moves nothing to one that wrecks everything; the loss says what
each rate does. The steps themselves are `range_test.py`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rehead.errors import RunError
from rehead.svg import blank, svg_of
from rehead.tuning.curves import NATS

LOWEST, HIGHEST = 1e-6, 1.0  # rates of the first and the last batch
N_BATCHES = 80  # of a whole test; it ends sooner, where the loss diverges
KEEP = 0.85  # of the smoothed loss, a batch; so that it speaks of the last seven
SPEAKS = 7  # batches from the first, after which it does; one lucky batch is no least loss
DIVERGED = 3.0  # times the least smoothed loss, above which there is no way back
SHARE = 0.1  # of the rate where the loss was least; the rule of Howard and Gugger 2020
CLOSE = (
    1.05  # times the least; the highest rate of those that cannot be told apart, since a solved head starts on a plain
)
BARS, WIDTH = "▁▂▃▄▅▆▇█", 48
RATE, LOSS = "#d1495b", "#1f77b4"


@dataclass(frozen=True)
class RangeTest:
    """rates: of each batch, rising. losses: of each batch before its step, nats. lr: the rate that was chosen."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    lr: float

    @classmethod
    def of(cls, rates: Sequence[float], losses: Sequence[float], usual: float) -> RangeTest:
        """The rate is a tenth of `still_good`, as a number of two digits; the usual one where that tells nothing."""
        test = cls(tuple(rates), tuple(losses), usual)
        return test if test.says_nothing else replace(test, lr=float(f"{SHARE * still_good(rates, losses):.1e}"))

    @property
    def says_nothing(self) -> str:
        """Why no rate follows from the test, "" where one does: the loss was near its least at the very lowest rates alone,
        which move nothing, or at the highest of all too, which says nothing of where it would have risen."""
        good = still_good(self.rates, self.losses)
        if SHARE * good <= LOWEST:
            return "no rate lowered the loss"
        return "no rate was too high for the loss" if good >= rate_at(N_BATCHES - 1) else ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RangeTest:
        return cls(tuple(values["rates"]), tuple(values["losses"]), float(values["lr"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def range_test(try_rate: Callable[[int, float], float], advance: Callable[[int], None], usual: float) -> RangeTest:
    """The loss at rising rates, and the rate to train with, `usual` where they say nothing. It ends early where it diverges.

    try_rate: told a batch's number and its rate, makes a step at it and gives the loss before. advance: told how many
    batches are done. Raises RunError when the first loss is not a number.
    """
    rates: list[float] = []
    losses: list[float] = []
    for number in range(N_BATCHES):
        rate = rate_at(number)
        loss = try_rate(number, rate)
        if not rates and not math.isfinite(loss):
            raise RunError(
                what=f"The loss is {loss} before anything is learned.", why="So no learning rate can be found."
            )
        if has_diverged([*losses, loss]):
            break
        rates.append(rate)
        losses.append(loss)
        advance(1)
    return RangeTest.of(rates, losses, usual)


def rate_at(number: int) -> float:
    """The rate of a batch of the test, from 0; each is the same share above the one before."""
    return LOWEST * (HIGHEST / LOWEST) ** (number / (N_BATCHES - 1))


def smoothed(losses: Sequence[float]) -> list[float]:
    """Moving averages of the losses up to each, the first ones being as sure as the others (Kingma and Ba 2015)."""
    means, mean = [], 0.0
    for n, loss in enumerate(losses, 1):
        mean = KEEP * mean + (1 - KEEP) * loss
        means.append(mean / (1 - KEEP**n))
    return means


def still_good(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The highest rate at which the smoothed loss is within a twentieth of the least it is anywhere."""
    means = smoothed(losses)
    least = min(means[SPEAKS - 1 :] or means)
    return max(rate for rate, mean in zip(rates, means, strict=True) if mean <= CLOSE * least)


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the test is over: the loss is no number, or its smoothed value is three times the least it was."""
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    means = smoothed(losses)
    return means[-1] > DIVERGED * min(means)


def range_lines(test: RangeTest) -> list[str]:
    """What came out in words, and the curve as a line of blocks with the chosen rate marked below it."""
    means = smoothed(test.losses)
    n = min(WIDTH, len(means))
    cells = [means[i * (len(means) - 1) // max(1, n - 1)] for i in range(n)]
    low, high = min(means), min(max(means), 1.5 * means[0])  # what diverges would flatten the rest
    heights = [min(1.0, (cell - low) / max(high - low, 1e-12)) for cell in cells]
    curve = "".join(BARS[round(height * (len(BARS) - 1))] for height in heights)
    first, last = f"{test.rates[0]:.0e}", f"{test.rates[-1]:.0e}"
    place = round((n - 1) * _way(test.lr, test.rates))
    found = (
        f"by a range test of {len(means)} batches: a tenth of {still_good(test.rates, test.losses):.1e}, up to which the "
        "loss was near its least"
        if not test.says_nothing
        else f"the usual one: in a range test of {len(means)} batches {test.says_nothing}, so it tells nothing"
    )
    return [
        f"Learning rate {test.lr:.1e}, {found}",
        f"  {first} {curve} {last}",
        f"  {' ' * len(first)} {' ' * place}↑ {test.lr:.1e}",
    ]


def range_svg(test: RangeTest, unit: str = NATS) -> str:
    """An SVG of the loss by the learning rate, smoothed and of each batch, with the chosen rate marked."""
    (figure, (axes,)), means = blank(6, 3.4), smoothed(test.losses)
    axes.plot(test.rates, test.losses, ".", color=LOSS, alpha=0.35, label="each batch")
    axes.plot(test.rates, means, color=LOSS, label="smoothed")
    axes.axvline(test.lr, color=RATE, linestyle="--", label=f"chosen: {test.lr:.1e}")
    low, high = min(means), min(max(means), 1.5 * means[0])
    axes.set(title="Range test", xlabel="learning rate", ylabel=f"loss, {unit}", xscale="log")
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.legend(frameon=False)
    return svg_of(figure)


def _way(rate: float, rates: Sequence[float]) -> float:
    """Where a rate lies between the first and the last, 0 to 1, on a scale of exponents."""
    if rates[-1] <= rates[0]:
        return 0.0
    return min(1.0, max(0.0, math.log(rate / rates[0]) / math.log(rates[-1] / rates[0])))
