"""The page in a real browser, on a real service: pictures in, bars out, and nothing else."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little import picture
from PIL import Image
from served import Program, here, program
from shown import COLOURS, Seen, bundle, pictures, seen, until

from rehead.cli.predictions import TASK_WRITERS, predict_to
from rehead.prediction import Prediction

pytestmark = pytest.mark.browser
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
YELLOW, DIM = (200, 200, 20), (90, 70, 60)
EVIL = "<img src=x onerror=alert(1)>"
EVIL_MODEL = "<b>'\"&"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("made") / "colours")


@pytest.fixture(scope="module")
def service(made: Path) -> Iterator[Program]:
    evil = bundle(
        made.parent / "evil",
        [EVIL, "=cmd|'/c calc'!A1", "\u202egnp.exe" + "x" * 300, *map(str, range(40))],
        neighbours=False,
    )
    with program(made, f"{EVIL_MODEL}={evil}") as running:
        yield running


@pytest.fixture(scope="module")
def look(chromium: Any, service: Program) -> Iterator[Seen]:
    """One page for the tests that leave it as it was."""
    with seen(chromium, f"http://127.0.0.1:{service.port}/", viewport=DESK, accept_downloads=True) as one:
        yield one


@pytest.fixture
def page(look: Seen) -> Iterator[Seen]:
    yield look
    if look.page.locator("#clear").is_visible():
        look.page.click("#clear")
    assert look.is_quiet, (look.said, look.asked)


@pytest.fixture
def several(tmp_path: Path) -> list[Path]:
    """Three that are known, one unlike all, one between two, a broken one and a text."""
    files = pictures(tmp_path / "photos", **COLOURS, yellow=YELLOW, dim=DIM)
    (tmp_path / "photos" / "broken.png").write_bytes(picture()[:60])
    (tmp_path / "photos" / "text.txt").write_text("not a picture")
    return [*files, tmp_path / "photos" / "broken.png", tmp_path / "photos" / "text.txt"]


def test_dropped_pictures_get_the_bars_that_the_service_answers(
    page: Seen, service: Program, several: list[Path]
) -> None:
    drop(page, several)
    page.done(7)
    answer = service.predict_form([(file.name, file.read_bytes()) for file in several]).json
    for row in answer["results"]:
        card = page.card(row["name"])
        assert card.count() == 1
        if "error" in row:
            assert row["error"].lower() in card.locator(".answer").inner_text().lower()
            assert card.locator(".bars").count() == 0
            continue
        assert card.locator(".answer").inner_text() == row["label"]
        assert page.bars(row["name"]) == {one["label"]: percent(one["probability"]) for one in row["top"]}
        fill, rail = (
            card.locator(f".bars li >> nth=0 >> {part}").bounding_box()["width"] for part in (".fill", ".rail")
        )
        assert fill / rail == pytest.approx(row["probability"], abs=0.03)
        chips = card.locator(".chip").all_inner_texts()
        assert chips == [name for name in ("unsure", "unfamiliar") if row[name]]
    names = page.page.locator(".card .file").all_inner_texts()
    assert names == sorted(names)  # a broken one is in its place
    assert page.card("yellow").locator(".doubts").inner_text().endswith("teach the model such photos.")


def test_they_are_told_apart_by_doubts_and_by_answer(page: Seen, several: list[Path]) -> None:
    page.add(*several)
    page.done(7)
    for kind, names in {"unsure": {"dim.png", "yellow.png"}, "errors": {"broken.png", "text.txt"}}.items():
        page.page.click(f"[data-show={kind}]")
        until(lambda names=names: shown(page) == names)
        assert page.text(f"[data-show={kind}] b") == str(len(names))
    answers = Counter(page.page.locator(".card:not(.bad) .answer").all_text_contents())
    counted = {name: int(n) for n, name in map(str.split, page.page.locator("#counts span").all_text_contents())}
    assert counted == answers
    page.page.click("[data-show=all]")
    page.page.select_option("#by-class", "green")
    until(lambda: shown(page) == {"green.png"})
    page.page.select_option("#by-class", "")
    until(lambda: len(shown(page)) == 7)


def test_they_are_saved_as_rehead_predict_writes_them(
    page: Seen, made: Path, several: list[Path], tmp_path: Path
) -> None:
    formula = several[0].rename(several[0].with_name("=1+1.png"))
    files = [formula, *several[1:]]
    page.add(*files)
    page.done(7)
    with page.page.expect_download() as download:
        page.page.click("#save")
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    predict_to(made, [str(file) for file in files], top=3, form="csv", out=tmp_path / "out.csv")
    wanted = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text())))
    found = list(csv.reader(io.StringIO(text)))
    assert found[0] == wanted[0]
    rows = {Path(row[0]).name: row[1:] for row in wanted[1:]}
    assert {row[0].removeprefix("'"): row[1:] for row in found[1:]} == rows
    assert "'=1+1.png" in text  # no formula of a spreadsheet


@pytest.mark.parametrize(
    ("value", "text"),
    [(36.8125, "36.8125"), (1_198_234.0, "1198234"), (0.10000000149011612, "0.1"), (-2.5e-12, "-2.5e-12"),
     (1_198_234_624.0, "1.1982346e+9"), (0.0, "0")],
)  # fmt: skip
def test_a_number_is_shown_and_saved_with_the_figures_of_rehead_predict(page: Seen, value: float, text: str) -> None:
    shown, saved = page.page.evaluate(
        """async (value) => {
          const [{ namedText }, { asCsv }] = [await import("/answer.js"), await import("/csv.js")];
          return [namedText({ value }), asCsv([{ name: "1.jpg", row: { value } }], { task: "regression" })];
        }""",
        value,
    )
    written = io.StringIO()
    TASK_WRITERS["regression"]["csv"](written, 1)("1.jpg", Prediction(value=value))
    assert shown == text
    assert saved.splitlines()[-1] == f"1.jpg,{text},,"
    assert float(text) == float(written.getvalue().splitlines()[-1].split(",")[1])


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("classification", ["a,0.900000,b,0.100000,,", "a,0.900000,b,0.200000,,", "3.5,,,,,"]),
        ("multilabel", ["a,a=0.900000;b=0.100000", "a,a=0.900000;b=0.200000", "3.5,"]),
        ("regression", ["a", "a", "3.5"]),
    ],
)
def test_answers_of_a_bundle_that_was_replaced_are_saved_in_the_columns_of_the_new_one(
    page: Seen, task: str, wanted: list[str]
) -> None:
    top = [{"label": "a", "probability": 0.9}, {"label": "b", "probability": 0.1}]
    rows = [{"label": "a", "top": top}, {"labels": ["a"], "probabilities": {"a": 0.9, "b": 0.2}}, {"value": 3.5}]
    saved = page.page.evaluate(
        """async ([rows, task]) => {
          const { asCsv } = await import("/csv.js");
          return asCsv(rows.map((row) => ({ name: "1.jpg", row, why: null })), { task, classes: ["a", "b", "c"] });
        }""",
        [rows, task],
    )
    assert saved.splitlines()[1:] == [f"1.jpg,{row},," for row in wanted]


def test_a_picture_that_is_pointed_at_shows_where_the_model_looks(page: Seen, several: list[Path]) -> None:
    page.add(*several[:2])
    page.done(2)
    warmth = page.card("red").locator(".warmth")
    assert warmth.count() == 0
    page.card("red").locator(".look").hover()
    until(lambda: warmth.count() == 1 and opacity(warmth) == 1)
    assert page.card("red").locator(".told").inner_text() == "What speaks for red"
    page.page.locator("h1").hover()
    until(lambda: opacity(warmth) == 0)
    page.page.click("#heat")
    until(lambda: page.page.locator(".warmth").count() == 2 and opacity(page.card("green").locator(".warmth")) == 1)
    page.page.click("#heat")


def test_neighbours_are_the_photos_that_it_is_like(page: Seen, several: list[Path]) -> None:
    page.add(several[1])
    page.done(1)
    like = page.card("green").locator(".like li")
    assert like.all_inner_texts() == ["green"] * 5
    until(lambda: all(width(tile) == 16 for tile in like.locator("img").all()))


def test_a_picture_can_be_pasted(page: Seen) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(20, 20), context = canvas.getContext("2d");
            context.fillStyle = "rgb(30, 30, 200)";
            context.fillRect(0, 0, 20, 20);
            const blob = await canvas.convertToBlob();
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    page.page.keyboard.press("Control+v")
    page.done(1)
    assert page.text(".card .answer") == "blue"
    assert page.text(".card .file").startswith("pasted")


PASTED = """([bytes, text]) => {
    const given = new DataTransfer();
    given.items.add(new File([new Uint8Array(bytes)], "cell.png", { type: "image/png" }));
    if (text) given.setData("text/plain", text);
    const field = document.createElement("input");
    document.body.append(field);
    const paste = new ClipboardEvent("paste", { clipboardData: given, bubbles: true, cancelable: true });
    field.dispatchEvent(paste);
    field.remove();
    return paste.defaultPrevented;
}"""


def test_text_that_is_pasted_into_a_field_is_no_picture_though_it_comes_with_one(page: Seen) -> None:
    assert not page.page.evaluate(PASTED, [list(picture()), "a label"])
    assert page.page.locator(".card").count() == 0
    assert page.page.evaluate(PASTED, [list(picture()), ""])
    page.done(1)


def test_a_name_that_turns_its_direction_unseen_is_written_out(page: Seen) -> None:
    name = "photo\u202egnp.exe\u2066.png"
    page.page.set_input_files("#files", {"name": name, "mimeType": "image/png", "buffer": picture(COLOURS["red"])})
    page.done(1)
    told = "photo\\u202Egnp.exe\\u2066.png"
    assert page.text(".card .file") == told
    assert page.page.locator(".card .file").get_attribute("title") == told
    with page.page.expect_download() as saved:
        page.page.click("#save")
    assert saved.value.path().read_text(encoding="utf-8-sig").split("\n")[1].startswith(f"{told},red,")


def test_what_is_no_picture_takes_little_room(page: Seen) -> None:
    page.page.set_input_files("#files", {"name": "a.png", "mimeType": "image/png", "buffer": b"text"})
    page.done(1)
    box = page.page.locator(".card .look").bounding_box()
    assert box is not None
    assert box["height"] <= 60
    assert page.text(".card .look") == "no picture"


def test_a_small_picture_is_shown_as_the_model_sees_it(page: Seen, tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (40, 40), COLOURS[name]) for name in ("red", "blue"))
    red.save(tmp_path / "moving.gif", save_all=True, append_images=[blue], duration=20)
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "transparent.png")
    page.add(tmp_path / "moving.gif", tmp_path / "transparent.png")
    page.done(2)
    for name, colour in (("moving", COLOURS["red"]), ("transparent", (255, 255, 255))):
        until(lambda name=name: page.card(name).locator("img.photo").count() == 1)
        page.page.wait_for_timeout(300)  # a film that is played is at its end
        shown = Image.open(io.BytesIO(page.card(name).locator("img.photo").screenshot())).convert("RGB")
        np.testing.assert_allclose(shown.getpixel((shown.width // 2, shown.height // 2)), colour, atol=8)


def test_a_folder_can_be_dropped(page: Seen, tmp_path: Path) -> None:
    pictures(tmp_path / "album" / "deep", red=COLOURS["red"])
    pictures(tmp_path / "album", blue=COLOURS["blue"])
    (tmp_path / "album" / ".DS_Store").write_bytes(b"\0")
    drop(page, [tmp_path / "album"])
    page.done(2)
    assert page.page.locator(".card .file").all_inner_texts() == ["album/blue.png", "album/deep/red.png"]


def test_a_folder_without_a_file_is_told(page: Seen, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    drop(page, [tmp_path / "empty"])
    until(lambda: page.page.locator("#notice").text_content() == "There is no file in it that can be read.")
    page.add(*pictures(tmp_path, red=COLOURS["red"]))
    page.done(1)
    assert not page.page.locator("#notice").is_visible()


def test_it_fits_and_is_accessible(page: Seen, several: list[Path]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for n in (0, 7):
        if n:
            page.add(*several)
            page.done(n)
        for scheme in ("light", "dark")[: 1 + (n > 0)]:
            page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for viewport in (PHONE, DESK):
                page.page.set_viewport_size(viewport)
                assert page.fits, (n, viewport, scheme)
            found = Axe().run(page.page).response
            assert len(found["passes"]) > 20
            assert not found["violations"], [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]


def test_names_are_text_and_another_model_is_asked_about_the_same_pictures(page: Seen, several: list[Path]) -> None:
    page.page.set_viewport_size(PHONE)
    file = {"name": f"{EVIL}.png", "mimeType": "image/png", "buffer": several[0].read_bytes()}
    page.page.set_input_files("#files", file)
    page.done(1)
    assert page.text(".card .answer") == "red"
    page.page.select_option("#model", EVIL_MODEL)
    page.done(1)
    until(lambda: page.text(".card .answer") == EVIL)
    assert page.text(".card .file") == f"{EVIL}.png"
    assert EVIL in page.text("#about")
    assert page.page.locator("img[src=x]").count() == 0
    assert page.page.locator(".like").count() == 0
    assert page.page.locator(".bars li").count() == 5
    page.page.click("text=38 more")
    until(lambda: page.page.locator(".bars li").count() == 43)
    page.page.click("text=Fewer")
    assert page.page.locator(".bars li").count() == 5
    assert page.fits
    page.page.select_option("#model", "colours")
    until(lambda: page.text(".card .answer") == "red")


def test_two_long_names_fit_a_phone(chromium: Any, tmp_path: Path) -> None:
    long = bundle(tmp_path / "long", ["a" * 80, "b" * 80, "c"], neighbours=False)
    with here({"long": long}) as running, seen(chromium, f"http://127.0.0.1:{running.port}/", viewport=PHONE) as one:
        one.add(*pictures(tmp_path / "photos", **COLOURS))
        one.done(3)
        until(lambda: one.page.locator("#counts span").count() == 3)
        assert one.page.locator("#counts").is_visible()
        assert one.fits


def drop(page: Seen, paths: list[Path]) -> None:
    """Files and folders, dropped as a person drops them."""
    session = page.context.new_cdp_session(page.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
        if kind == "dragOver":
            until(lambda: page.page.locator("#target").is_visible())
    session.detach()


def shown(page: Seen) -> set[str]:
    return set(page.page.locator(".card:visible .file").all_inner_texts())


def percent(share: float) -> str:
    if 0.9995 < share < 1:
        return "> 99.9 %"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def opacity(element: Any) -> float:
    return float(element.evaluate("element => getComputedStyle(element).opacity"))


def width(image: Any) -> int:
    return int(image.evaluate("element => element.naturalWidth"))
