"""What a reader should look at first: leaks, shortcuts, labels, too few photos, probabilities that do not hold."""

from __future__ import annotations

from dataclasses import dataclass

from rehead.auditing.findings import WEAK_JUDGES, Audit
from rehead.errors import counted
from rehead.reporting.story import Story
from rehead.reporting.wording import estimate, interval, listing, percent
from rehead.tuning.familiar import KEPT
from rehead.verdict.calibrate import Calibration
from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import Verdict
from rehead.verdict.multilabel import MultilabelVerdict
from rehead.verdict.regression import RegressionVerdict

FEW_HELD_OUT = 100  # photos; with fewer an interval is rarely narrower than ten points
FEW_OF_A_CLASS = 10  # held-out photos, of which one is ten points
FEW_TO_LEARN = 20  # photos of a class
OFF = 0.05  # calibration error that matters, where it is surely above that


@dataclass(frozen=True)
class Concern:
    """text: one sentence. href: the part of the page that says more. is_grave: whether the number itself is in doubt."""

    text: str
    href: str
    is_grave: bool = False


def concerns(story: Story) -> list[Concern]:
    """What stands out, the gravest first."""
    found = [*_of_verdict(story), *(_of_audit(story.audit) if story.audit is not None else [])]
    return sorted(found, key=lambda concern: not concern.is_grave)


def nothing_found(audit: Audit | None) -> str:
    """What is said where nothing stands out: of what was looked for alone, and what was not."""
    if audit is None:
        return "There are enough photos to tell. Leaks, wrong labels and shortcuts were not looked for."
    none = {"shortcuts": "no shortcut", "wrong labels": "no label that is likely wrong"}
    sought = ["no leak", *(said for kind, said in none.items() if kind not in audit.not_looked_for)]
    said = f"{listing(tuple(sought)).capitalize()} was found, and there are enough photos to tell."
    if not audit.not_looked_for:
        return said
    return f"{said} {listing(audit.not_looked_for).capitalize()} were not looked for."


def _of_verdict(story: Story) -> list[Concern]:
    verdict = story.verdict
    found = []
    if verdict.leaks and story.audit is None:
        n = counted(len(verdict.leaks), "held-out photo")
        verb = "stands" if len(verdict.leaks) == 1 else "stand"
        found.append(Concern(f"{n} also {verb} on the training side, byte for byte.", "#made", True))
    if verdict.partial:
        found.append(
            Concern("The head rests on part of the photos: a limit was asked for, or time was up.", "#made", True)
        )
    if isinstance(verdict, Verdict):
        found += _of_classes(story, verdict)
    else:
        found += _of_no_use(verdict)
    if not isinstance(verdict, Verdict) and verdict.n < FEW_HELD_OUT:
        verb = "was" if verdict.n == 1 else "were"
        text = f"Only {counted(verdict.n, 'photo')} {verb} judged: of so few the interval says little."
        found.append(Concern(text, "#answers"))
    if story.unfamiliar is not None and len(story.unfamiliar):
        found += _of_unfamiliar(int(story.unfamiliar.sum()), len(story.unfamiliar))
    return found


def _of_unfamiliar(n_odd: int, n: int) -> list[Concern]:
    """More unfamiliar photos than there are among photos like those learned from."""
    if wilson(n_odd, n).low <= 1 - KEPT:
        return []
    verb = "is" if n_odd == 1 else "are"
    text = f"{n_odd} of {counted(n, 'held-out photo')} {verb} unlike all it learned from"
    return [Concern(f"{text}; of photos like those {1 - KEPT:.0%} are.", "#unfamiliar")]


def _of_no_use(verdict: MultilabelVerdict | RegressionVerdict) -> list[Concern]:
    """Labels and numbers that are no better than naming always the same."""
    if isinstance(verdict, RegressionVerdict) and verdict.mae.high >= verdict.baseline.value:
        text = f"It is not clearly better than always naming the median, which is off by {estimate(verdict.baseline)}."
        return [Concern(text, "#answers", True)]
    if isinstance(verdict, MultilabelVerdict) and verdict.exact.low <= verdict.majority.value:
        text = f"It is not clearly better than always naming the same labels, which is right on {interval(verdict.majority)}."
        return [Concern(text, "#answers", True)]
    return []


def _of_classes(story: Story, verdict: Verdict) -> list[Concern]:
    found = []
    if len(verdict.classes) > 1 and verdict.top1.low <= verdict.majority.value:
        text = f"It is not clearly better than always naming one class, which is right on {interval(verdict.majority)}."
        found.append(Concern(text, "#answers", True))
    if verdict.n < FEW_HELD_OUT:
        verb = "was" if verdict.n == 1 else "were"
        text = f"Only {counted(verdict.n, 'photo')} {verb} held out, so the interval is wide."
        found.append(Concern(text, "#answers"))
    few = tuple(c.label for c in verdict.classes if c.n < FEW_OF_A_CLASS)
    if few:
        text = (
            f"Few held-out photos ({FEW_OF_A_CLASS - 1} or fewer) show {listing(few, 4)}: little can be said of them."
        )
        found.append(Concern(text, "#answers"))
    n_learned = dict.fromkeys(story.classes, 0)
    for i in story.train:
        n_learned[story.photos[i].label] = n_learned.get(story.photos[i].label, 0) + 1
    if story.train and (few := tuple(label for label, n in n_learned.items() if n < FEW_TO_LEARN)):
        found.append(Concern(f"It learned from fewer than {FEW_TO_LEARN} photos of {listing(few, 4)}.", "#answers"))
    return found + (_of_calibration(verdict.calibration) if verdict.calibration is not None else [])


def _of_calibration(calibration: Calibration) -> list[Concern]:
    error = calibration.after.error
    if error.low <= OFF:
        return []
    around = f"{100 * error.value:.1f} points (95 % interval {100 * error.low:.1f} to {100 * error.high:.1f})"
    return [Concern(f"Its probabilities are off by {around} on average.", "#sure")]


def _of_audit(audit: Audit) -> list[Concern]:
    found = []
    if audit.leaks.n:
        n = counted(audit.leaks.n, "held-out photo")
        verb = "is a copy" if audit.leaks.n == 1 else "are copies"
        text = f"{n} {verb} of photos it learned from."
        if audit.leaks.without is not None:
            text += f" Without them: {interval(audit.leaks.without)}."
        elif audit.leaks.accuracy is not None:
            text += " None is left without them."
        found.append(Concern(text, "#copies", True))
    for shortcut in audit.shortcuts:
        if shortcut.is_found:
            what = "facts of the file" if shortcut.source == "file" else "the picture's border"
            text = f"The class can be told from {what} alone, on {percent(shortcut.accuracy.value)} of the photos."
            found.append(Concern(f"{text} It may have learned that.", "#shortcuts", True))
    if audit.labels:
        n = counted(len(audit.labels), "label")
        verb = "is likely" if len(audit.labels) == 1 else "are likely"
        if any(WEAK_JUDGES in note for note in audit.notes):
            verb = "may be"
        found.append(Concern(f"{n} {verb} wrong.", "#labels"))
    if audit.broken:
        found.append(Concern(f"{counted(len(audit.broken), 'file')} cannot be used and took no part.", "#broken"))
    return found
