""" "Wrong? It is a ...": by the keyboard alone, taken back, of labels and of numbers, behind a token, and learned from."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import noise
from little import GOLDEN
from served import Program, program
from shown import COLOURS, Seen, bundle, pictures, seen, until

pytestmark = pytest.mark.browser
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Three models, behind a token."""
    place = tmp_path_factory.mktemp("corrected")
    (place / "token").write_text(TOKEN)
    models = [
        f"colours={bundle(place / 'made')}",
        f"shapes={GOLDEN / 'bundle-2'}",
        f"sizes={GOLDEN / 'bundle-2-number'}",
    ]
    with program(*models, "--feedback", place / "feedback", "--token-file", place / "token") as running:
        running.folder = place / "feedback"  # type: ignore[attr-defined]
        yield running


@pytest.fixture(scope="module")
def look(chromium: Any, service: Program) -> Iterator[Seen]:
    login = {"username": "me", "password": TOKEN}
    with seen(chromium, f"http://127.0.0.1:{service.port}/", http_credentials=login) as one:
        yield one


@pytest.fixture
def page(look: Seen) -> Iterator[Seen]:
    yield look
    if look.page.locator("#clear").is_visible():
        look.page.click("#clear")
    look.page.select_option("#model", "colours")
    assert look.is_quiet, (look.said, look.asked)


def kept(service: Any) -> list[str]:
    files = (path.relative_to(service.folder) for path in service.folder.rglob("*") if path.is_file())
    return sorted(f"{path.parent.as_posix()}/{path.suffix}" for path in files if not path.name.startswith("."))


def test_by_the_keyboard_alone(page: Seen, service: Program, tmp_path: Path) -> None:
    (file,) = pictures(tmp_path, one=COLOURS["red"])
    keyboard = page.page.keyboard
    press_until(page, "#pick")
    with page.page.expect_file_chooser() as chooser:
        page.page.wait_for_timeout(100)  # until the browser knows that somebody waits
        keyboard.press("Enter")
    chooser.value.set_files(str(file))
    page.done(1)
    press_until(page, ".card .look")
    until(lambda: page.page.locator(".card .warmth").count() == 1)
    press_until(page, ".card .foot button")
    keyboard.press("Enter")
    assert page.page.locator("input[list=classes]:focus").count() == 1
    assert page.page.locator("#classes option").count() == 3
    keyboard.press("Escape")
    assert page.page.locator("form").count() == 0
    keyboard.press("Enter")
    keyboard.type("red")
    keyboard.press("Enter")
    until(lambda: "says already" in page.text(".correct .faulty"))
    keyboard.press("Control+a")
    keyboard.type(" Green")
    keyboard.press("Enter")
    until(lambda: page.page.locator(".kept").count() == 1)
    assert page.text(".kept") == "Kept as green."  # in the capitals of the class
    assert "kept as green" in page.text("#said")
    assert kept(service) == ["colours/green/.png"]
    assert page.text(".card .foot button:focus") == "Change"
    keyboard.press("Enter")
    keyboard.press("Control+a")
    keyboard.type("wasp")
    assert "new class" in page.text(".correct .note")
    keyboard.press("Enter")
    until(lambda: page.text(".kept") == "Kept as wasp.")
    assert kept(service) == ["colours/wasp/.png"]
    press_until(page, ".kept + button")
    keyboard.press("Enter")
    until(lambda: page.page.locator(".kept").count() == 0)
    assert kept(service) == []
    assert page.text(".card .foot button:focus") == "Wrong?"


def test_a_name_that_is_no_folder_is_refused_where_it_was_typed(page: Seen, service: Program, tmp_path: Path) -> None:
    page.add(*pictures(tmp_path, one=COLOURS["red"]))
    page.done(1)
    page.page.click("text=Wrong?")
    for text in ("../../etc", "con", ".hidden", "a\u202eb", "train", "x" * 101):
        page.page.fill("input[list=classes]", text)
        page.page.click("text=Keep it")
        until(
            lambda: (
                page.page.locator(".correct .faulty").count() == 1 and page.page.locator("[type=submit]").is_enabled()
            )
        )
        assert kept(service) == []
    assert page.page.locator("input[list=classes]:focus").count() == 1
    page.said[:] = [line for line in page.said if "status of 422" not in line]


def test_labels_are_ticked_and_numbers_are_typed(page: Seen, service: Any, tmp_path: Path) -> None:
    page.page.select_option("#model", "shapes")
    page.add(*pictures(tmp_path, one=COLOURS["red"]))
    page.done(1)
    marks = page.page.locator(".bars .mark")
    assert marks.count() == 3
    page.page.click("text=Wrong?")
    boxes = page.page.locator(".correct input[type=checkbox]")
    for box in boxes.all():
        box.uncheck()
    page.page.get_by_label("round").check()
    page.page.get_by_label("and also").fill("square")
    page.page.click("text=Keep it")
    until(lambda: page.text(".kept") == "Kept as round, square.")
    page.page.click("text=Change")  # what was kept is where one begins, names that are new among it
    assert page.page.get_by_label("and also").input_value() == "square"
    page.page.click("text=Keep it")
    until(lambda: page.text(".kept") == "Kept as round, square.")
    page.page.select_option("#model", "sizes")
    until(lambda: page.page.locator(".card .value").count() == 1)
    assert page.page.locator(".bars").count() == 0
    page.page.click("text=Wrong?")
    page.page.fill(".correct input[type=number]", "12.5")
    page.page.click("text=Keep it")
    until(lambda: page.page.locator(".kept").count() == 1)
    rows = {name: (service.folder / name / "feedback.csv").read_text().split("\n")[1] for name in ("shapes", "sizes")}
    assert rows["shapes"].endswith(".png,round;square;")
    assert rows["sizes"].endswith(".png,12.5")
    for name in ("shapes", "sizes"):
        page.page.select_option("#model", name)
        page.done(1)
        service.ask(
            "DELETE", f"/v1/feedback/{rows[name].partition('/')[2][:64]}?model={name}", Authorization=f"Bearer {TOKEN}"
        )


def test_eight_labels_show_whole_on_a_phone(chromium: Any, service: Program, tmp_path: Path) -> None:
    said = service.get("/v1/model", Authorization=f"Bearer {TOKEN}").json
    known = said["models"][1]["classes"]
    known += [f"shape {i}" for i in range(8 - len(known))]
    login = {"username": "me", "password": TOKEN}
    phone = {"width": 390, "height": 844}
    address = f"http://127.0.0.1:{service.port}/"
    with seen(chromium, address, http_credentials=login, viewport=phone) as one:
        one.page.route("**/v1/model", lambda route: route.fulfill(json=said))
        one.page.select_option("#model", "shapes")
        one.add(*pictures(tmp_path, one=COLOURS["red"]))
        one.done(1)
        one.page.click("text=Wrong?")
        assert one.page.locator(".correct input[type=checkbox]").count() == 8
        assert one.page.locator(".correct fieldset").evaluate("one => one.scrollHeight <= one.clientHeight")
        assert one.fits


def test_without_the_token_there_is_no_page(service: Program) -> None:
    refused = service.get("/")
    assert refused.status == 401
    assert "Basic" in refused.headers["www-authenticate"]
    assert service.get("/page.js").status == 401


@pytest.mark.slow
def test_what_was_corrected_is_tuned_on_as_it_is(
    chromium: Any, rehead: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    model, feedback = bundle(tmp_path / "made"), tmp_path / "feedback"
    files = []
    for i in range(40):
        files.append(tmp_path / f"{i}.png")
        noise(i, (200, 60, 60) if i % 2 else (60, 60, 200)).save(files[-1])
    with program(model, "--feedback", feedback) as service, seen(chromium, f"http://127.0.0.1:{service.port}/") as one:
        one.add(*files)
        one.done(40)
        for card in one.page.locator(".card").all():
            was = card.locator(".answer").inner_text()
            card.locator("text=Wrong?").click()
            card.locator("input[list=classes]").fill("ant" if was == "red" else "Bee, wild")
            card.locator("[type=submit]").click()
            until(lambda card=card: card.locator(".kept").count() == 1)
        assert one.is_quiet, one.said
    done = rehead("tune", feedback, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    again = rehead("predict", tmp_path / "run" / "bundle", files[1], files[2])
    assert [line.split("  ")[1].split(" 0.")[0] for line in again.stdout.splitlines()] == ["ant", "Bee, wild"]


def press_until(page: Seen, selector: str, most: int = 40) -> None:
    """Tab, until it has the focus."""
    for _ in range(most):
        if page.page.locator(f"{selector}:focus").count():
            return
        page.page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached by the keyboard")
