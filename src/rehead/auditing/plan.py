"""What to do with photos that an audit found, as a table that people edit: remove, relabel or keep, a line a photo.

What is certain is proposed as done: copies, files that cannot be read, blank pictures, labels that the models are sure of.
All else is proposed to be kept, with the reason, for a person to see. Nothing here touches a photo; `apply.py` makes a new
manifest of an edited plan.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from rehead.auditing.findings import Audit, CopyGroup
from rehead.csv_rows import csv_writer
from rehead.data.manifests import check_utf8
from rehead.data.rows import first_few
from rehead.errors import SourceError, nearest

ACTIONS = ("remove", "relabel", "keep")
SURE = 0.9  # the probability of another label from which on that is proposed; below it a person decides
DELIMITERS = ",;\t"  # spreadsheets write what their country has


@dataclass(frozen=True)
class Line:
    """What is to be done with a photo. label, side: as the audit found them; of a file that is no photo they are empty."""

    path: str
    label: str
    side: str
    action: str
    new_label: str
    reason: str


COLUMNS = tuple(field.name for field in fields(Line))


def plan_of(audit: Audit) -> list[Line]:
    """A line for each photo of which something was found: those to remove first, then to relabel, then the others."""
    by_path: dict[str, Line] = {}
    for line in _lines(audit):
        known = by_path.get(line.path)
        by_path[line.path] = line if known is None else _both(known, line)
    return sorted(by_path.values(), key=lambda line: ACTIONS.index(line.action))


def as_csv(lines: list[Line]) -> str:
    """The plan as text, with the columns of `Line`."""
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(astuple(line) for line in lines)
    return text.getvalue()


def read_plan(path: Path) -> list[Line]:
    """The lines of a plan. Raises SourceError for a file that is none, and for what it asks that cannot be done."""
    try:
        text = path.read_bytes().decode(
            "utf-8-sig", errors="surrogateescape"
        )  # as it is: names may have a carriage return
    except OSError as error:
        raise SourceError(
            what=f"The plan {path} cannot be read.",
            why=f"{error.strerror or error}.",
            fix="Write one with: rehead audit PHOTOS --fix plan.csv",
        ) from error
    header, _, _ = text.partition("\n")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=header.count))
        return _followable(reader, path)
    except csv.Error as error:
        raise SourceError(
            what=f"{path} is not a CSV file.", why=f"{error}.", fix="Write one with: rehead audit PHOTOS --fix plan.csv"
        ) from error


def _followable(reader: csv.DictReader[str], path: Path) -> list[Line]:
    """The lines, each photo once."""
    if missing := [name for name in ("path", "action") if name not in (reader.fieldnames or ())]:
        raise SourceError(
            what=f"{path} has no column {missing[0]!r}, so it is no plan.",
            why=f"A plan has the columns {', '.join(COLUMNS)}.",
            fix="Write one with: rehead audit PHOTOS --fix plan.csv",
        )
    by_path: dict[str, Line] = {}
    for cells in reader:
        check_utf8({name: cells.get(name) for name in ("label", "new_label")}, reader.line_num, str(path))
        line = _checked(cells, f"Line {reader.line_num} of {path}")
        if (known := by_path.setdefault(line.path, line)).action != line.action or known.new_label != line.new_label:
            raise SourceError(
                what=f"{path} asks two things of {line.path}.",
                fix="Keep the one line that is meant, and take out the other.",
            )
    return list(by_path.values())


def _checked(cells: dict[str, str | None], where: str) -> Line:
    values = {name: (cells.get(name) or "").strip() for name in COLUMNS}
    line = Line(**{**values, "path": cells.get("path") or "", "action": values["action"].lower()})
    if not line.path:
        raise SourceError(what=f"{where} names no photo.", fix="Take the line out.")
    if line.action not in ACTIONS:
        raise SourceError(
            what=f"{where} has the action {line.action!r}.",
            why=f"There are {', '.join(ACTIONS)}.",
            fix=nearest(line.action, ACTIONS) or "Write keep to leave the photo as it is.",
        )
    if line.action == "relabel" and not line.new_label:
        raise SourceError(
            what=f"{where} relabels {line.path}, but not as what.", fix="Write the label into the column new_label."
        )
    return line


def _lines(audit: Audit) -> Iterator[Line]:
    for broken in audit.broken:
        yield Line(broken.path, "", "", "remove", "", broken.reason)
    issues = {issue.path for issue in audit.labels}
    several = {path for group in audit.copies if len(set(group.labels)) > 1 for path in group.paths}
    for group in audit.copies:
        yield from _of_copies(group, issues)
    for issue in audit.labels:
        sure = issue.probability >= SURE and issue.path not in several
        yield Line(issue.path, issue.label, issue.side, "relabel" if sure else "keep", issue.suggested,
                   f"{issue.suggested} with {issue.probability:.3f}, {issue.label} with {issue.given:.3f}")  # fmt: skip
    for odd in audit.pictures:
        action = "remove" if odd.fault == "blank" else "keep"
        yield Line(odd.path, odd.label, odd.side, action, "", f"{odd.fault}: {odd.why}")
    for far in audit.outliers:
        why = f"unlike all others: distance {far.distance:.2f}, usually {far.usual:.2f}"
        yield Line(far.path, far.label, far.side, "keep", "", why)


def _of_copies(group: CopyGroup, issues: set[str]) -> Iterator[Line]:
    """One of them stays, on the training side where it can; of copies with several labels a person says which is right.

    Rather one whose label the models believe. Where they believe none, one that they were asked of: it is relabelled, and
    the others, which have its label, go.
    """
    photos = [*zip(group.paths, group.labels, group.sides, group.same_bytes, strict=True)]
    doubted = {same for path, _, _, same in photos if path in issues}
    first = min(photos, key=lambda p: (p[2] != "train", p[3] in doubted, p[0] not in issues))[0]
    path_by_label = {label: path for path, label, _, _ in reversed(photos)}
    labels = first_few([f"{label} ({path_by_label[label]})" for label in dict.fromkeys(group.labels)])
    for path, label, side, _ in photos:
        if len(path_by_label) > 1:
            yield Line(path, label, side, "keep", "", f"the same picture is labelled {labels}")
        elif path != first:
            kind = "the same bytes as" if group.is_exact else "a near copy of"
            yield Line(path, label, side, "remove", "", f"{kind} {first}")


def _both(a: Line, b: Line) -> Line:
    """One line of two for the same photo: what is done more of, and both reasons."""
    first, second = sorted((a, b), key=lambda line: ACTIONS.index(line.action))
    return replace(first, new_label=first.new_label or second.new_label, reason=f"{first.reason}; {second.reason}")
