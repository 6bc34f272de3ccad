"""Many pictures at once, on a service that is busy; stopped and gone on with; and photographed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM
from little import picture
from served import Here, here
from shown import Seen, bundle, seen, until

from rehead.serving.limits import Limits

pytestmark = pytest.mark.browser
N = 150


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("many") / "colours")


@pytest.fixture
def service(made: Path) -> Iterator[Here]:
    """One with room for one request of the page, which sends three at a time: it is busy, however slow the page is."""
    with here({"colours": made}, limits=Limits(queue=8)) as running:
        yield running


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(N):
        (folder / f"{i:03}.png").write_bytes(picture((200, i, 30) if i % 2 else (30, i, 200), size=300))
    return sorted(folder.iterdir())


@pytest.mark.long
def test_a_busy_service_is_waited_for_and_each_picture_gets_its_own_answer(
    chromium: Any, service: Here, many: list[Path]
) -> None:
    with seen(chromium, address(service)) as one:
        one.add(*many)
        assert one.page.locator("#progress").is_visible()
        one.done(N, timeout_s=60)
        answers = one.page.locator(".card .answer").all_text_contents()
        assert answers == ["red" if i % 2 else "blue" for i in range(N)]
        assert not one.page.locator("#progress").is_visible()
        until(lambda: "150 pictures done" in one.text("#said"))
        assert one.page.locator(".card img.photo").count() < N  # those far away are not decoded
        if not any(line.get("status") == 503 for line in service.said):
            pytest.skip("the service was never busy: the browser was slower than it")


@pytest.mark.slow
def test_it_can_be_stopped_and_goes_on(chromium: Any, service: Here, many: list[Path]) -> None:
    with seen(chromium, address(service)) as one:
        one.add(*many)
        one.page.click("#stop")
        assert one.text("#stop") == "Go on"
        assert one.text("#progress-text").startswith("Stopped at")
        waiting = one.page.locator(".card.waiting").count()
        assert waiting > 0
        one.page.click("#stop")
        one.done(N, timeout_s=60)
        assert one.page.locator(".card.bad").count() == 0


def test_a_service_that_is_away_is_not_called_busy_and_is_tried_again(
    chromium: Any, service: Here, tmp_path: Path
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(picture())
    with seen(chromium, address(service)) as one:
        one.page.route("**/v1/predict*", lambda route: route.abort(), times=1)
        one.add(file)
        until(lambda: one.text("#progress-text").startswith("The service cannot be reached, trying again:"))
        one.done(1)
        assert one.text(".card .answer") == "red"


def test_a_file_that_was_changed_since_it_was_chosen_costs_itself_alone(
    chromium: Any, service: Here, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.png" for name in ("a", "b", "c", "d")]
    for file in files:
        file.write_bytes(picture())
    with seen(chromium, address(service)) as one:
        one.page.route(
            "**/v1/predict*", lambda route: route.fulfill(status=503, json={"error": {"what": "Busy."}}), times=1
        )
        one.add(*files)
        until(lambda: one.text("#progress-text").startswith("The service is busy"))
        files[1].unlink()
        files[2].write_bytes(picture((30, 30, 200), size=300))
        os.utime(files[2], (1e9, 1e9))  # a browser looks at seconds
        one.done(4, timeout_s=5)  # nobody waits for a service that is there
        answers = one.page.locator(".card .answer").all_inner_texts()
        told = "It can no longer be read: it was moved or changed since it was chosen. Choose it again."
        assert answers == ["red", told, told, "red"]


@pytest.mark.long
def test_an_answer_of_something_else_is_not_taken_for_the_services(
    chromium: Any, service: Here, tmp_path: Path
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(picture())
    with seen(chromium, address(service)) as one:
        one.page.route(
            "**/v1/predict*", lambda route: route.fulfill(body="<p>Log in</p>", content_type="text/html"), times=1
        )
        one.add(file)
        one.done(1)
        assert one.text(".card .answer") == "red"
        one.page.route("**/v1/predict*", lambda route: route.fulfill(body="<p>Log in</p>", content_type="text/html"))
        one.page.locator(".card .look").hover()
        until(lambda: one.text(".card .told").startswith("What answered is not this service"))


@pytest.mark.long
def test_waiting_for_a_busy_service_takes_nothing_from_the_tries_of_one_that_is_away(
    chromium: Any, service: Here, tmp_path: Path
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(picture())
    asked = []

    def busy_then_away(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) <= 4:
            route.fulfill(status=503, headers={"Retry-After": "0.05"}, json={"error": {"what": "Busy."}})
        elif len(asked) == 5:
            route.abort()
        else:
            route.continue_()

    with seen(chromium, address(service)) as one:
        one.page.route("**/v1/predict*", busy_then_away)
        one.add(file)
        one.done(1)
        assert one.text(".card .answer") == "red"
        assert len(asked) == 6


GIVEN = """n => {
    const all = new DataTransfer();
    for (let i = 0; i < n; i++) all.items.add(new File(["x"], `${i}.png`));
    document.getElementById("files").files = all.files;
    document.getElementById("files").dispatchEvent(new Event("change"));
}"""
DROPPED = """() => {
    const text = new DataTransfer();
    text.setData("text/plain", "a picture's address");
    dispatchEvent(new DragEvent("drop", { dataTransfer: text, cancelable: true }));
}"""


@pytest.mark.parametrize("size", [(390, 844), (1280, 900)])
@pytest.mark.long
def test_what_is_not_taken_is_told_where_it_can_be_seen(chromium: Any, service: Here, size: tuple[int, int]) -> None:
    width, height = size
    with seen(chromium, address(service), viewport={"width": width, "height": height}) as one:
        told = one.page.locator("#notice")
        assert not told.is_visible()
        one.page.evaluate(DROPPED)
        assert told.inner_text() == "That is no file. Save the picture first, then drop it."
        one.page.route("**/v1/predict*", lambda _: None)  # no answer comes
        one.page.evaluate(GIVEN, 5001)
        assert one.page.locator(".card").count() == 5000
        assert told.inner_text().startswith("These are more than 5,000 files: 5,000 of them are taken.")
        assert told.is_visible()
        assert one.fits
        one.page.click("#clear")
        assert not told.is_visible()


DROPPED_FILE = """(bytes) => {
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(bytes)], "early.png"));
    const drop = new DragEvent("drop", { dataTransfer: files, cancelable: true });
    dispatchEvent(drop);
    return drop.defaultPrevented;
}"""


def test_a_page_that_did_not_reach_the_service_asks_again_and_keeps_what_was_dropped(
    chromium: Any, service: Here
) -> None:
    with seen(chromium, address(service)) as one:
        one.page.route("**/v1/model", lambda route: route.abort(), times=1)
        one.page.reload()
        assert one.page.locator("#pick").is_disabled()
        assert one.page.evaluate(DROPPED_FILE, list(picture()))
        one.done(1)
        assert one.text(".card .answer") == "red"
        assert one.page.locator("#pick").is_enabled()


@pytest.mark.slow
def test_a_page_that_never_reaches_the_service_says_so(chromium: Any, service: Here) -> None:
    with seen(chromium, address(service)) as one:
        one.page.route("**/v1/model", lambda route: route.abort())
        one.page.reload()
        told = "The service cannot be reached. Is it still running? Load this page again."
        until(lambda: one.page.locator("#trouble").text_content() == told, 15)
        assert one.page.evaluate(DROPPED_FILE, list(picture()))
        assert one.page.locator("#pick").is_disabled()


@pytest.mark.slow
def test_a_service_that_cannot_be_reached_is_told_and_can_be_asked_again(
    chromium: Any, service: Here, tmp_path: Path
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(picture())
    with seen(chromium, address(service)) as one:
        one.page.route("**/v1/predict*", lambda route: route.abort())
        one.add(file)
        until(lambda: one.page.locator(".card.bad").count() == 1, 15)
        assert "cannot be reached" in one.text(".card .answer")
        one.page.unroute("**/v1/predict*")
        one.page.click("text=Try again")
        one.done(1)
        assert one.text(".card .answer") == "red"


@pytest.mark.slow
def test_the_camera_is_shown_live_and_a_photo_is_asked_about(chromium: Any, service: Here) -> None:
    fake = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    running = chromium.browser_type.launch(executable_path=CHROMIUM, args=fake)
    try:
        with seen(running, address(service)) as one:
            one.page.click("#shoot")
            until(lambda: one.page.locator("#shutter").is_enabled())
            assert one.page.locator("#view").evaluate("view => view.videoWidth") > 0
            one.page.keyboard.press("Enter")  # the shutter has the focus
            until(lambda: one.text("#camera-said") == "1 photo taken.")
            one.page.keyboard.press("Escape")
            assert not one.page.locator("#view").evaluate("view => Boolean(view.srcObject)")
            one.done(1)
            assert one.text(".card .file") == "photo 1.jpg"
            assert one.is_quiet, one.said
    finally:
        running.close()


CAMERAS = """() => {
    window.asked = [];
    window.cameras = [0, 1].map(() => {
        const canvas = document.createElement("canvas");
        canvas.getContext("2d");
        return canvas.captureStream();
    });
    navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => asked.push(resolve));
}"""


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_camera_that_comes_too_late_is_stopped(chromium: Any, service: Here, order: tuple[int, int]) -> None:
    with seen(chromium, address(service)) as one:

        def live() -> list[bool]:
            return list(one.page.evaluate("() => cameras.map((one) => one.active)"))

        one.page.evaluate(CAMERAS)
        for button in ("#shoot", "#camera-close", "#shoot"):
            one.page.click(button)
        for i in order:
            one.page.evaluate("(i) => asked[i](cameras[i])", i)
        until(lambda: live() == [False, True])
        one.page.click("#camera-close")
        until(lambda: live() == [False, False])
        assert one.is_quiet, one.said


@pytest.mark.slow
def test_without_a_camera_it_says_so(chromium: Any, service: Here) -> None:
    with seen(chromium, address(service)) as one:
        one.page.click("#shoot")
        until(lambda: "camera" in one.text("#camera-said") and "Waiting" not in one.text("#camera-said"))
        one.page.click("#camera-close")
        assert not one.page.locator("#camera").is_visible()
        assert one.page.locator("#shoot:focus").count() == 1


def test_a_phone_takes_photos_by_its_own_camera(chromium: Any, service: Here, many: list[Path]) -> None:
    with seen(
        chromium, address(service), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    ) as one:
        with one.page.expect_file_chooser() as chooser:
            one.page.tap("#shoot")
        assert chooser.value.element.get_attribute("capture") == "environment"
        chooser.value.set_files(str(many[1]))
        one.done(1)
        look = one.page.locator(".card .look")
        look.tap()
        until(lambda: one.page.locator(".card .warmth").count() == 1)
        assert look.get_attribute("aria-pressed") == "true"
        small = [box for box in boxes(one) if box["height"] < 44 or box["width"] < 44]
        assert not small


def boxes(one: Seen) -> list[dict[str, float]]:
    return [
        box for button in one.page.locator("button:visible, select:visible").all() if (box := button.bounding_box())
    ]


def address(service: Here) -> str:
    return f"http://127.0.0.1:{service.port}/"
