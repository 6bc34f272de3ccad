"""A figure as SVG within a page: inks that follow the page's own, ids that no other figure has, text that stays text.

Matplotlib writes colours as numbers. Here each ink is a number that nothing else has, and is replaced by the page's
variable of that name, so that one figure serves light and dark. Style attributes become plain ones, as the page's
content security policy allows no style of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from rehead.svg import svg_of

N_GROUPS = 8  # inks for groups of photos, named group-0 and so on in the page's style
INK, MUTED, GRID, ACCENT, WRONG, PAPER = "#fa0001", "#fa0002", "#fa0003", "#fa0004", "#fa0005", "#fa0006"
GROUPS = tuple(f"#fa01{i:02x}" for i in range(N_GROUPS))
_NAMES = dict(zip((INK, MUTED, GRID, ACCENT, WRONG, PAPER), ("ink", "muted", "grid", "accent", "wrong", "paper"),
                  strict=True)) | {ink: f"group-{i}" for i, ink in enumerate(GROUPS)}  # fmt: skip
_DROPPED = {"metadata", "style"}
_NOT_ATTRIBUTES = {"font-family", "font"}  # the page's own font is used


@contextmanager
def inks(name: str) -> Iterator[None]:
    """Figures that are made and written within have the page's inks and real text. name: of the figure, for its ids."""
    import matplotlib

    settings: dict[Any, Any] = {
        **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
        **{"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5},
        **{"grid.color": GRID, "axes.axisbelow": True, "legend.frameon": False},
    }
    with matplotlib.rc_context(settings):
        yield


def inline_svg(figure: Any, name: str, alt: str, points: Callable[[str], Sequence[int]] | None = None) -> str:
    """The figure as an <svg> element. name: unique on the page. alt: what it shows, for those who cannot see it.

    points: of an artist's gid, which photo each of its markers is; they stand as `data-p` at the markers, in order.
    """
    root = ElementTree.fromstring(svg_of(figure))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
    _drop(root)
    for group in root.iter("g"):
        if points is not None and (places := points(group.get("id", ""))):
            _tell_photos(group, places)
    for element in root.iter():
        _mend(element, name)
    root.attrib.pop("version", None)
    for side in ("width", "height"):
        root.attrib.pop(side)
    root.attrib.update({"role": "img", "aria-label": alt, "stroke-linejoin": "round", "id": f"{name}-svg"})
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _tell_photos(group: ElementTree.Element, places: Sequence[int]) -> None:
    """Each marker's photo at the marker, and their look, which is the same for all, at what they refer to."""
    marker = next(group.iter("path"))
    for use, place in zip(group.iter("use"), places, strict=True):
        use.set("data-p", str(place))
        marker.set("style", use.attrib.pop("style", marker.get("style", "")))


def _drop(root: ElementTree.Element) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in _DROPPED]:
            parent.remove(child)


def _mend(element: ElementTree.Element, name: str) -> None:
    """One element's attributes: no namespaces, no style, ids with the figure's name before them, the page's inks."""
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    style = attributes.pop("style", "")
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key and key not in _NOT_ATTRIBUTES:
            attributes[key] = value
    for key, value in attributes.items():
        if key == "id" or (key == "href" and value.startswith("#")):
            mark = "#" if key == "href" else ""
            attributes[key] = f"{mark}{name}-{value.removeprefix(mark)}"
        elif key == "d":
            attributes[key] = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.2f}", " ".join(value.split()))
        elif key in ("x", "y"):
            attributes[key] = f"{float(value):.2f}"
        elif value in _NAMES:
            attributes[key] = f"var(--{_NAMES[value]})"
        else:
            attributes[key] = re.sub(r"url\(#(.+?)\)", lambda match: f"url(#{name}-{match[1]})", value)
    if element.tag == "g" and re.search(r"_\d+$", attributes.get("id", "")):
        attributes.pop("id")  # a number that nothing refers to
    element.attrib.clear()
    element.attrib.update(attributes)
