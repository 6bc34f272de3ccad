"""What an audit found, as plain values: what `audit.json` holds and the report shows. Paths are those of the catalog."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rehead.verdict.intervals import Interval

WEAK_JUDGES = "of those called wrong many are right"  # in a note, where heads that judge labels err often themselves


@dataclass(frozen=True)
class CopyGroup:
    """Photos that show the same picture. is_exact: byte for byte. bits: the largest distance of their perceptual hashes,
    of 64. is_leak: whether some are learned from and others held out, and stay so. labels: of each; more than one is odd.
    same_bytes: of each a number, the same for those that are the same byte for byte."""

    paths: tuple[str, ...]
    sides: tuple[str, ...]
    labels: tuple[str, ...]
    is_exact: bool
    bits: int
    is_leak: bool
    same_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Leaks:
    """n: held-out photos that are copies of photos learned from. accuracy: on all held-out photos; without: on those that
    are none, None where all are. None both where nothing was judged."""

    n: int
    accuracy: Interval | None
    without: Interval | None


@dataclass(frozen=True)
class LabelIssue:
    """A label that is likely wrong. given: the probability of the label it has, by models that did not learn from the
    photo; suggested: the most probable one, with its probability. Ranked, the likeliest first."""

    path: str
    side: str
    label: str
    given: float
    suggested: str
    probability: float


@dataclass(frozen=True)
class Outlier:
    """A photo far from all others. distance: cosine distance to its nearest ones; usual: that of the median photo."""

    path: str
    side: str
    label: str
    distance: float
    usual: float


@dataclass(frozen=True)
class OddPicture:
    """fault: "blank", "dark", "bright", "blurred", "tiny" or "odd shape". why: in words, with the number."""

    path: str
    side: str
    label: str
    fault: str
    why: str


@dataclass(frozen=True)
class Broken:
    """A file that cannot be used, and why; the reason continues the path."""

    path: str
    reason: str


@dataclass(frozen=True)
class Field:
    """How far a label is told by one thing alone. name: in words, such as "file size"."""

    name: str
    accuracy: Interval
    p: float


@dataclass(frozen=True)
class Shortcut:
    """The label told from what is not the picture. source: "file" (its facts) or "border" (the picture's edge). accuracy:
    cross-validated, of its fields together, or of the one that gives it away by itself more often. majority: of always naming
    the most frequent class. p: the least of one-sided tests that fields are no better than that and than the control.
    is_found: whether some are significantly better. fields: those that give it away by themselves, the strongest first.
    control: the same from the picture itself, beside accuracy: how much detail it has, or a ring further in."""

    source: str
    accuracy: Interval
    majority: Interval
    p: float
    is_found: bool
    fields: tuple[Field, ...]
    control: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Audit:
    """n: photos that were looked at. backbone: whose features were used. n_judged: photos whose labels were judged by models
    that did not learn from them; of 0 nothing is known of their labels. shortcuts: found or not, none where they were not
    looked for. notes: what could not be looked at, and why."""

    n: int
    backbone: str
    copies: tuple[CopyGroup, ...] = ()
    leaks: Leaks = Leaks(0, None, None)
    labels: tuple[LabelIssue, ...] = ()
    n_judged: int = 0
    outliers: tuple[Outlier, ...] = ()
    pictures: tuple[OddPicture, ...] = ()
    broken: tuple[Broken, ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def not_looked_for(self) -> tuple[str, ...]:
        """What nothing can be said of: "wrong labels", "shortcuts"."""
        return tuple(
            kind for kind, seen in (("wrong labels", self.n_judged), ("shortcuts", self.shortcuts)) if not seen
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Audit:
        """The opposite of `to_dict`. Raises KeyError or TypeError for what is no audit."""

        def interval(facts: dict[str, Any] | None) -> Interval | None:
            return None if facts is None else Interval(**facts)

        leaks = values["leaks"]
        groups: list[dict[str, Any]] = [
            {k: tuple(v) if isinstance(v, list) else v for k, v in g.items()} for g in values["copies"]
        ]
        shortcuts = [
            Shortcut(
                **{
                    **s,
                    "accuracy": Interval(**s["accuracy"]),
                    "majority": Interval(**s["majority"]),
                    "control": interval(s.get("control")),
                    "fields": tuple(Field(**{**f, "accuracy": Interval(**f["accuracy"])}) for f in s["fields"]),
                }
            )
            for s in values["shortcuts"]
        ]
        return cls(
            n=values["n"],
            backbone=values["backbone"],
            copies=tuple(CopyGroup(**g) for g in groups),
            leaks=Leaks(leaks["n"], interval(leaks["accuracy"]), interval(leaks["without"])),
            labels=tuple(LabelIssue(**x) for x in values["labels"]),
            n_judged=values["n_judged"],
            outliers=tuple(Outlier(**x) for x in values["outliers"]),
            pictures=tuple(OddPicture(**x) for x in values["pictures"]),
            broken=tuple(Broken(**x) for x in values["broken"]),
            shortcuts=tuple(shortcuts),
            notes=tuple(values["notes"]),
        )
