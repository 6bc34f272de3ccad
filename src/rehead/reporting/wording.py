"""Numbers and sentences of a report, in plain words. Text only; what is HTML is left to the templates."""

from __future__ import annotations

import unicodedata

from rehead.errors import counted, escaped
from rehead.verdict.bootstrap import Estimate, short
from rehead.verdict.calibrate import Bin, Calibration
from rehead.verdict.compare import Paired, Scored
from rehead.verdict.intervals import Interval, wilson
from rehead.verdict.judging import AnyVerdict
from rehead.verdict.metrics import Verdict, of_side
from rehead.verdict.multilabel import MultilabelVerdict
from rehead.verdict.selective import Selective

LONGEST_NAME = 96  # characters of a name that is shown in a caption; the middle of a longer one is left out
ENOUGH = 20  # photos of a bin that a sentence may rest on
ASKED = 0.9  # what people ask of a probability


def plain(text: str) -> str:
    """Text that can be written anywhere: what is no UTF-8 and what controls a terminal stands there as its escape."""
    return "".join(c if unicodedata.category(c) != "Cc" else c.encode("unicode_escape").decode() for c in escaped(text))


def shortened(text: str, longest: int = LONGEST_NAME) -> str:
    """The text, without its middle where it is long."""
    text = plain(text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 + 1 :]}"


def percent(share: float, digits: int = 1) -> str:
    """'98.5 %', with a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%"


def number(n: int) -> str:
    """'10,000'."""
    return f"{n:,}"


def interval(share: Interval | None) -> str:
    """'98.5 % (96.7 to 99.3)', or a dash; a line may break before the bracket alone."""
    if share is None:
        return "–"
    return f"{percent(share.value)} ({100 * share.low:.1f}\u00a0to\u00a0{100 * share.high:.1f})"


def estimate(value: Estimate | None) -> str:
    """'0.932 (0.911 to 0.950)', or a dash."""
    return "–" if value is None else str(value)


def headline(verdict: AnyVerdict) -> str:
    """The plain sentence: how often it is right, of how many, and how sure that is."""
    unseen = "it never saw" if of_side(verdict.side) else "it was given"
    photos = counted(verdict.n, "photo")
    if isinstance(verdict, Verdict):
        top1 = verdict.top1
        share = f"{percent(top1.value)}, between {100 * top1.low:.1f} and {100 * top1.high:.1f}"
        return f"Right on {number(round(top1.value * verdict.n))} of {_grouped(photos)} {unseen}: {share}"
    if isinstance(verdict, MultilabelVerdict):
        exact = verdict.exact
        share = f"{percent(exact.value)}, between {100 * exact.low:.1f} and {100 * exact.high:.1f}"
        n_right = number(round(exact.value * verdict.n))
        return f"Exactly the right labels on {n_right} of {_grouped(photos)} {unseen}: {share}"
    mae = verdict.mae
    off = f"Off by {short(mae.value)} on average, between {short(mae.low)} and {short(mae.high)}"
    return f"{off}, on {_grouped(photos)} {unseen}"


def beside(verdict: AnyVerdict) -> str:
    """What the number is to be held against."""
    alone = _alone(verdict.alone)
    if isinstance(verdict, Verdict):
        if len(verdict.classes) < 2:
            return "There is one class, so every answer is right."
        return f"Always naming the class most frequent here would be right on {interval(verdict.majority)}.{alone}"
    if isinstance(verdict, MultilabelVerdict):
        ap = f"Mean average precision {estimate(verdict.mean_ap)}. " if verdict.mean_ap else ""
        return (
            f"{ap}Always naming the most frequent set of labels would be right on {interval(verdict.majority)}.{alone}"
        )
    return (
        f"Always naming {short(verdict.median)}, the median of the photos learned from, "
        f"would be off by {estimate(verdict.baseline)}.{alone}"
    )


def _alone(alone: Paired | Scored | None) -> str:
    if alone is None:
        return ""
    if isinstance(alone, Paired):
        found = f"is right on {interval(wilson(alone.n_first, alone.n))}"
    elif alone.measure == "mAP":
        found = f"has a mean average precision of {short(alone.first)}"
    else:
        found = f"is off by {short(alone.first)} on average"
    return f" A linear head alone, on the network as it was, {found}."


def calibration_sentence(calibration: Calibration) -> str:
    """'When it says 90 %, it is right 88 % of the time', of the best known part of the photos."""
    chosen = _telling(calibration.after.bins)
    right = chosen.right
    rest = f"between {100 * right.low:.0f} and {100 * right.high:.0f}, on {counted(chosen.n, 'photo')}"
    return f"When it says {percent(chosen.probability, 0)}, it is right {percent(right.value, 0)} of the time ({rest})."


def selective_sentence(selective: Selective) -> str:
    """What the threshold for "unsure" brings, and costs."""
    wanted = f"{100 * selective.precision:.4g}\u00a0%"  # with the decimals that were asked for
    if selective.threshold is None:
        return f"No threshold makes {wanted} of its answers right, so all photos are called unsure."
    if selective.threshold == 0:
        n = number(selective.n)
        return f"On {n} photos apart, at least {wanted} of all answers together were right, so none is called unsure."
    below = f"When answers below {percent(selective.threshold)} are called unsure, it answers"
    if selective.right is None:
        return f"{below} none of the photos, so how many of its answers are right is not known. Wanted were {wanted}."
    return (
        f"{below} {interval(selective.coverage)} of the photos, and {interval(selective.right)} of those answers are right. "
        f"Wanted were {wanted}."
    )


def listing(names: tuple[str, ...], most: int = 8) -> str:
    """'ants, bees and 3 more'."""
    shown = [shortened(name, 40) for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {number(len(names) - most)} more"
    return " and ".join(shown) if len(shown) < 3 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _telling(bins: tuple[Bin, ...]) -> Bin:
    """The bin nearest to what people ask for that holds enough photos, or else the fullest."""
    enough = [b for b in bins if b.n >= ENOUGH]
    return min(enough, key=lambda b: abs(b.probability - ASKED)) if enough else max(bins, key=lambda b: b.n)


def _grouped(words: str) -> str:
    """'10000 photos' with its thousands apart."""
    n, _, noun = words.partition(" ")
    return f"{int(n):,} {noun}"
