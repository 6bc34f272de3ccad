"""The page's templates, its style and its script, and how they become HTML: everything is escaped but our own markup."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rehead.reporting import wording
from rehead.reporting.story import Story
from rehead.reporting.thumbnails import Album
from rehead.verdict.bootstrap import Estimate
from rehead.verdict.compare import p_value

FOLDER = Path(__file__).parent / "templates"
PARTS = (
    ("answers", "Answers"), ("mistakes", "Mistakes"), ("labels", "Labels"), ("copies", "Copies"),
    ("shortcuts", "Shortcuts"), ("odd", "Odd photos"), ("broken", "Broken"), ("sure", "How sure"),
    ("growth", "More photos"), ("unfamiliar", "Unfamiliar"), ("map", "Map"), ("made", "How it was made"),
)  # fmt: skip


def render(story: Story, album: Album, **told: Any) -> str:
    """The HTML of all that is told. Raises jinja2's UndefinedError where a template asks for what is not."""
    script = Markup((FOLDER / "page.js").read_text(encoding="utf-8"))
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8") + _pictures(album))
    laid_out = told["map"]
    environment = _environment()
    environment.globals |= _lookups(story, album)
    environment.tests["shown"] = album.has
    text = environment.get_template("page.html.jinja").render(
        story=story,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        gone=album.gone,
        n_pictures=len(album.pictures) + len(album.gone),
        heats=album.heats,
        labels=[c.label for c in getattr(story.verdict, "classes", ())],
        by_recall=_by_recall(story),
        copies=story.copies,
        map_data=laid_out and _map_data(laid_out.places, laid_out.points, album),
        **told,
    )
    parts = [part for part in PARTS if f'<section id="{part[0]}">' in text]
    links = Markup("").join(Markup('<li><a href="#{}">{}</a></li>\n').format(*part) for part in parts)
    whole: str = text.replace("<!--parts-->", links, 1)
    return whole.encode("utf-8", "backslashreplace").decode("utf-8")


def render_comparison(album: Album, **told: Any) -> str:
    """The HTML of two models side by side. told: what its template asks for."""
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8") + _pictures(album))
    environment = _environment()
    environment.filters["p_value"] = lambda p: p_value(p).lstrip("= ")
    template = environment.get_template("comparison.html.jinja")
    text = template.render(style=style, style_hash=_hash(style), album=album, **told)
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "plain": wording.plain,
        "short": wording.shortened,
        "base": lambda path: wording.shortened(path.replace("\\", "/").rstrip("/").rpartition("/")[2] or path),
        "number": wording.number,
        "percent": wording.percent,
        "interval": wording.interval,
        "estimate": wording.estimate,
        "figure": lambda value: "–" if value is None else f"{value:.3f}",
        "points": _points,
        "is_code": lambda value: bool(re.fullmatch(r"[0-9a-f]{12,}", value.strip())),
    }
    return environment


def _points(share: Estimate) -> str:
    return f"{100 * share.value:.1f} points ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _lookups(story: Story, album: Album) -> dict[str, Any]:
    """What templates ask of a photo, by its place."""

    @functools.cache
    def answer(place: int) -> tuple[str, str] | None:
        found = story.answer(place)
        return found and (wording.shortened(story.classes[found[0]], 48), wording.percent(found[1]))

    def alt(place: int) -> str:
        photo, says = story.photos[place], answer(place)
        label = wording.shortened(photo.label, 48) or "no label"
        whole = f"{label}: {wording.shortened(photo.path)}" + (f", named {says[0]} with {says[1]}" if says else "")
        return f"{whole}; cannot be read any more" if place in album.gone else whole

    return {
        "has": album.has,
        "is_gone": lambda place: place in album.gone,
        "alt": alt,
        "path": lambda place: story.photos[place].path,
        "label": lambda place: wording.shortened(story.photos[place].label, 48) or "none",
        "sure": lambda place: says[1] if (says := answer(place)) else "",
        "says": lambda place: f"named {says[0]}, {says[1]}" if (says := answer(place)) else "held out",
        "at": story.place,
        "any_of": lambda paths: next((place for path in paths if (place := story.place(path)) is not None), None),
    }


def _by_recall(story: Story) -> list[Any]:
    """Classes in their order; of many, those first that are found least often."""
    classes = list(getattr(story.verdict, "classes", ()))
    if len(classes) <= 20:
        return classes
    return sorted(classes, key=lambda c: (c.recall is None, c.recall.value if c.recall else 0.0))


def _pictures(album: Album) -> str:
    rules = [f".p{place}{{background-image:url({uri})}}" for place, uri in album.pictures.items()]
    rules += [f".h{place}{{background-image:url({uri})}}" for place, uri in album.heats.items()]
    return "\n".join(rules)


def _map_data(places: tuple[int, ...], points: tuple[tuple[Any, ...], ...], album: Album) -> list[list[Any]]:
    """For the script: of each point the photo's class in the style sheet, or "", and what is told of it."""

    def picture(place: int) -> str:
        return f"p{place}" if place in album.pictures else "gone" if place in album.gone else ""

    return [[picture(place), *point] for place, point in zip(places, points, strict=True)]


def _hash(text: str) -> Markup:
    """A source of a content security policy: this very text."""
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup("'sha256-{}'").format(digest)
