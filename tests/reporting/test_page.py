"""The report as a file: whole by itself, its links lead somewhere, its headings are in order, and it stays small."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from stories import audit_of, full_story, jpeg, labels_story, numbers_story, story

from rehead.auditing.findings import Leaks
from rehead.reporting.page import page
from rehead.reporting.rendering import FOLDER
from rehead.reporting.story import Story
from rehead.verdict.intervals import wilson


class Elements(HTMLParser):
    """All tags of a page with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_asks_for_nothing(everything: str) -> None:
    assert "default-src 'none'" in everything
    sources = [
        v for _, a in Elements(everything).found for k, v in a.items() if k in ("src", "srcset", "action", "data")
    ]
    assert sources == []
    assert all((a.get("href") or "#").startswith("#") for _, a in Elements(everything).found)
    assert set(re.findall(r"url\((.{5})", everything)) <= {
        "data:",
        "#map-",
        *(f"#{name[:4]}" for name in ("reliability", "counts", "coverage", "growth")),
    }


def test_ids_are_unique_and_links_lead_somewhere(everything: str) -> None:
    found = Elements(everything).found
    ids = Counter(a["id"] for _, a in found if "id" in a)
    assert [name for name, n in ids.items() if n > 1] == []
    assert {a["href"][1:] for tag, a in found if tag == "a" and a.get("href")} <= set(ids)
    assert not any("style" in a for _, a in found)


def test_headings_are_in_order_and_pictures_have_words(everything: str) -> None:
    found = Elements(everything).found
    levels = [int(tag[1]) for tag, _ in found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    pictures = [a for tag, a in found if a.get("role") == "img"]
    assert pictures
    assert all(a.get("aria-label") for a in pictures)


def test_each_picture_is_embedded_once(everything: str) -> None:
    rules = Counter(re.findall(r"\.(p\d+)\{", everything))
    assert rules
    assert set(rules.values()) == {1}
    used = {
        name
        for _, a in Elements(everything).found
        for name in (a.get("class") or "").split()
        if re.fullmatch(r"p\d+", name)
    }
    assert used <= set(rules)


def test_the_same_story_gives_the_same_page(everything: str) -> None:
    assert page(full_story()) == everything


@pytest.mark.parametrize("made", [labels_story, numbers_story])
def test_labels_that_nobody_judged_are_not_called_right(made: Callable[[], Story]) -> None:
    html = page(made())
    assert '<p>They were not looked for: <a href="#broken">see why</a>.</p>' in html
    assert "None of 60 photos" not in html
    assert '<section id="shortcuts">' not in html
    assert "Wrong labels and shortcuts are looked for where a photo has one class." in html


def test_of_labels_that_were_judged_it_is_told_how_many() -> None:
    told = story()
    audit = replace(audit_of(told.photos), labels=(), n_judged=50, leaks=Leaks(20, wilson(20, 20), None))
    html = page(replace(told, audit=audit))
    assert "None of 50 photos has a label that is likely wrong" in html
    assert "With them it is right on 100.0\u00a0% (83.9\u00a0to\u00a0100.0), and none is left without them." in html


def test_a_map_of_a_label_is_named_by_that_label_also_where_it_was_missed() -> None:
    told = replace(labels_story(), heat=lambda data, place: np.ones((7, 7), np.float32))
    mistakes = told.verdict.mistakes
    assert any(m.wrong in m.labels for m in mistakes)
    html = page(told)
    assert re.findall(r"bright where it spoke for (\w+)", html) == [m.wrong for m in mistakes]
    assert "Bright shows what spoke for the label it was most wrong about." in html


def test_inks_can_be_read_on_paper_in_light_and_dark() -> None:
    schemes = (FOLDER / "page.css").read_text(encoding="utf-8").split("prefers-color-scheme: dark")
    for part in schemes[:2]:
        inks = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", part.partition("@media print")[0]))
        for name in ("ink", "muted", "accent", "wrong"):
            assert min(contrast(inks[name], inks[paper]) for paper in ("paper", "raised")) >= 4.5, name  # WCAG's AA
        for name in (name for name in inks if name.startswith("group-")):
            assert contrast(inks[name], inks["paper"]) >= 3, name


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
def test_ten_thousand_photos_of_noise_stay_below_8_mb() -> None:
    noisy = functools.cache(lambda seed: jpeg(seed, (480, 360), noise=True))
    told = story(10_000, [f"class {i}" for i in range(10)], spread=1.3, read=lambda photo: noisy(photo.digest[0]))
    features = np.random.default_rng(0).normal(size=(10_000, 1280)).astype(np.float32)
    whole = page(replace(told, features=features, audit=audit_of(told.photos)))
    assert len(whole.encode("utf-8")) < 8_000_000
    assert "more</p>" in whole


def test_of_unfamiliar_photos_it_is_told_how_many_it_is_right_on() -> None:
    whole = full_story()
    named = [whole.answer(place)[0] for place in whole.held_out[:2]]
    right = sum(whole.classes[c] == whole.photos[i].label for c, i in zip(named, whole.held_out[:2], strict=True))
    words = f"than all but 2\u00a0% of such photos are. It is right on {right} of them."
    assert words in page(whole)
    numbers = replace(numbers_story(), unfamiliar=np.arange(30) < 2)
    assert "than all but 2\u00a0% of such photos are.</p>" in page(numbers)


def test_where_layers_learned_the_map_and_the_nearest_photos_are_told_to_be_of_the_network_before() -> None:
    tuned = page(replace(full_story(spread=0.9), is_tuned=True))
    assert "The photos as the network saw them before its layers learned" in tuned
    assert "most like it to the network before its layers learned." in tuned
    frozen = page(full_story(spread=0.9))
    assert "The photos as the network sees them" in frozen
    assert "most like it to the network: often they tell why." in frozen
