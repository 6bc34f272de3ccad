"""What is under way on the page when another model is chosen, or all is cleared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from little import picture
from served import Here, here
from shown import COLOURS, Seen, bundle, pictures, seen, until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    place = tmp_path_factory.mktemp("made")
    named = {"colours": COLOURS, "insects": ["ant", "bee", "fly"], "many": [f"class {i}" for i in range(30)]}
    with here({name: bundle(place / name, [*classes]) for name, classes in named.items()}) as one:
        yield one


@pytest.fixture
def page(chromium: Any, service: Here) -> Iterator[Seen]:
    with seen(chromium, f"http://127.0.0.1:{service.port}/") as one:
        yield one


def n_predicted(page: Seen) -> int:
    return sum("/v1/predict" in address for address in page.asked)


def soon(page: Seen, holds: Callable[[], bool]) -> None:
    """Waits until it holds, and hears meanwhile what the browser asks for."""

    def heard() -> bool:
        page.page.wait_for_timeout(10)
        return holds()

    until(heard)


def chosen(page: Seen) -> tuple[str, str, str]:
    """The model that the choice says, what the page says of it, and the answer of the first card."""
    return (
        page.page.locator("#model").input_value(),
        page.text("#about").split(":")[1].split(",")[0],
        page.text(".card .answer"),
    )


def test_a_model_that_could_not_be_looked_up_is_not_chosen(page: Seen, tmp_path: Path) -> None:
    page.add(*pictures(tmp_path, one=COLOURS["red"]))
    page.done(1)
    page.page.route("**/v1/model", lambda route: route.abort(), times=1)
    page.page.select_option("#model", "insects")
    until(lambda: "cannot be reached" in page.text("#trouble"))
    page.done(1)
    assert chosen(page) == ("colours", " red", "red")
    assert n_predicted(page) == 1
    page.page.select_option("#model", "insects")
    until(lambda: chosen(page) == ("insects", " ant", "ant"))
    assert not page.page.locator("#trouble").is_visible()


def test_of_two_choices_the_later_counts_whichever_is_looked_up_first(page: Seen, tmp_path: Path) -> None:
    page.add(*pictures(tmp_path, one=COLOURS["red"]))
    page.done(1)
    held: list[Any] = []
    page.page.route("**/v1/model", lambda route: held.append(route), times=1)
    page.page.select_option("#model", "insects")
    soon(page, lambda: len(held) == 1)
    page.page.select_option("#model", "colours")
    soon(page, lambda: n_predicted(page) == 2)
    page.done(1)
    with page.page.expect_response("**/v1/model"):
        held[0].continue_()
    page.page.wait_for_timeout(200)
    page.done(1)
    assert chosen(page) == ("colours", " red", "red")
    assert n_predicted(page) == 2


def test_more_classes_that_come_after_another_choice_are_passed_over(page: Seen, tmp_path: Path) -> None:
    page.add(*pictures(tmp_path, one=COLOURS["red"]))
    page.done(1)
    held: list[Any] = []
    page.page.route("**/v1/predict?*top=30", lambda route: held.append(route))
    page.page.select_option("#model", "many")
    until(lambda: chosen(page)[2] == "class 0")
    page.page.click("text=25 more")
    soon(page, lambda: len(held) == 1)
    page.page.select_option("#model", "insects")
    until(lambda: chosen(page)[2] == "ant")
    with page.page.expect_response("**/v1/predict?*top=30"):
        held[0].continue_()
    page.page.wait_for_timeout(200)
    assert chosen(page)[2] == "ant"


def test_more_classes_that_cannot_be_said_leave_those_that_are_there(page: Seen, tmp_path: Path) -> None:
    page.page.select_option("#model", "many")
    page.add(*pictures(tmp_path, one=COLOURS["red"]))
    until(lambda: chosen(page)[2] == "class 0")
    page.page.route(
        "**/v1/predict?*top=30", lambda route: route.fulfill(json={"results": [{"error": "it took too long"}]})
    )
    page.page.click("text=25 more")
    until(lambda: page.text("#said") == "it took too long")
    assert page.page.locator(".bars li").count() == 25
    with page.page.expect_download() as saved:
        page.page.click("#save")
    assert saved.value.path().read_text(encoding="utf-8-sig").split("\n")[1].startswith("one.png,class 0,")


def test_of_pictures_that_were_cleared_none_is_sent(page: Seen, tmp_path: Path) -> None:
    asked: list[Any] = []

    def slow(route: Any) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.fulfill(status=504, json={"error": {"what": "It took too long."}})
        elif len(asked) > 2:
            route.continue_()

    page.page.route("**/v1/predict*", slow)
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(picture())
    page.add(tmp_path / "a.png", tmp_path / "b.png")
    soon(page, lambda: len(asked) == 2)  # the first half, which is not answered
    page.page.click("#clear")
    page.page.wait_for_timeout(300)
    assert len(asked) == 2
