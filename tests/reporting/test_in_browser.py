"""The report in a real browser: quiet, offline, at phone and desktop size, in light and dark, with and without scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from stories import full_story, labels_story, numbers_story, story

from rehead.data.rows import Photo
from rehead.reporting.page import page
from rehead.reporting.story import Story

pytestmark = pytest.mark.browser
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 900}
EVIL = "<img src=x onerror=alert(1)>\"'\n</script><!--\u202e\udcff" + "x" * 200


def test_it_is_quiet_and_fits_and_its_cells_open(look: Callable[..., Any], everything: str) -> None:
    seen = look(everything)
    for viewport in (PHONE, DESK):
        seen.page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            seen.page.emulate_media(color_scheme=scheme)
            assert seen.fits, (viewport, scheme)
    number = seen.page.locator("a[data-open]").first
    number.click()
    dialog = seen.page.locator("dialog[open]")
    assert dialog.locator(".pic").count() > 0
    assert dialog.bounding_box()["width"] > 300
    seen.page.keyboard.press("Escape")
    assert seen.page.locator("dialog[open]").count() == 0
    number.click()
    seen.page.locator("dialog[open] .close").click()
    assert seen.page.locator("dialog[open]").count() == 0
    toggle = seen.page.locator(".toggle").first
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "true"
    assert seen.is_quiet, (seen.said, seen.asked)


def test_its_cells_open_without_scripts(look: Callable[..., Any], everything: str) -> None:
    seen = look(everything, viewport=PHONE, java_script_enabled=False)
    cell = seen.page.locator("dialog.cell").first
    assert not cell.is_visible()
    seen.page.locator("a[data-open]").first.click()
    assert cell.is_visible()
    assert cell.locator(".pic").first.is_visible()
    assert seen.page.locator(".heat").first.is_visible()
    assert not seen.page.locator(".controls").is_visible()
    assert seen.is_quiet


def test_the_map_tells_of_the_photo_that_is_pointed_at(look: Callable[..., Any], everything: str) -> None:
    seen = look(everything, viewport=DESK)
    point = seen.page.locator("#map-svg use[data-p]").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert seen.page.locator("#map-told .pic").is_visible()
    assert ".jpg" in seen.page.locator("#map-told").inner_text()
    before = seen.page.locator("#map-svg").get_attribute("viewBox")
    seen.page.locator("[data-zoom='1.5']").click()
    assert seen.page.locator("#map-svg").get_attribute("viewBox") != before
    seen.page.select_option("#map-group", label="bees")
    assert seen.page.locator("#map-svg .away").count() > 0
    assert seen.is_quiet


def test_hostile_names_are_text(look: Callable[..., Any]) -> None:
    evil = full_story(classes=(f"\ud800{EVIL}", "אבג"), name=lambda i, label: f"{i}{EVIL}.jpg")
    html = page(without_curves(replace(evil, name=EVIL, made={EVIL: [(EVIL, EVIL)]})))
    seen = look(html, viewport=PHONE)
    assert seen.page.locator("img").count() == 0
    assert seen.page.get_by_text("<img src=x onerror=alert(1)>").count() > 0
    assert seen.fits
    assert seen.is_quiet, seen.said


def test_photos_that_are_gone_are_counted_and_leave_a_place(look: Callable[..., Any]) -> None:
    def gone(photo: Photo) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    html = page(without_curves(replace(full_story(), read=gone)))
    seen = look(html, viewport=PHONE)
    assert "60 of the 60 photos that would be shown here cannot be read any more" in seen.page.inner_text(".notice")
    assert seen.page.locator(".gone").count() > 0
    assert seen.fits
    assert seen.is_quiet


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [labels_story, numbers_story, lambda: story(1, ["only"]), lambda: story(30, ["only"]), lambda: story(6),
     lambda: story(600, [f"class {i}" for i in range(60)]), lambda: story(300, [f"a long name {i}" for i in range(20)])],
    ids=["labels", "numbers", "one photo", "one class", "few", "60 classes", "20 classes"],
)  # fmt: skip
def test_other_stories_fit_too(look: Callable[..., Any], made: Callable[[], Story]) -> None:
    seen = look(page(made()))
    for viewport in (PHONE, DESK):
        seen.page.set_viewport_size(viewport)
        assert seen.fits
    assert seen.is_quiet, seen.said


def without_curves(told: Story) -> Story:
    """The same, sooner drawn."""
    return replace(told, verdict=replace(told.verdict, calibration=None, selective=None, growth=None))
