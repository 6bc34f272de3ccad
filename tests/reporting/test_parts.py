"""The parts of a report, each against what it promises: neighbours, the map, small pictures, plots, words, warnings."""

from __future__ import annotations

import base64
import io
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stories import audit_of, audit_without_classes, full_story, jpeg, photos_of, story
from typer.main import get_command

from rehead.auditing.findings import Leaks
from rehead.cli.arguments import backbone_arguments
from rehead.cli.commands import app
from rehead.compare_bundles import Change, Said
from rehead.data.rows import Photo
from rehead.errors import PhotoError
from rehead.pixels import Preprocess
from rehead.reporting.command import command
from rehead.reporting.comparison import comparison
from rehead.reporting.concerns import _of_unfamiliar, concerns, nothing_found
from rehead.reporting.heatmaps import over_picture, overlaid
from rehead.reporting.map import MOST, layout
from rehead.reporting.matrix import by_rank, matrix
from rehead.reporting.plots import growth_svg, reliability_svg
from rehead.reporting.thumbnails import BUDGET_BYTES, Wanted, album
from rehead.reporting.wording import calibration_sentence, headline, interval, plain, selective_sentence, shortened
from rehead.runs.listing import Run
from rehead.runs.resume import Asked
from rehead.tuning.recipe import Recipe
from rehead.verdict.compare import paired
from rehead.verdict.intervals import wilson
from rehead.verdict.metrics import GIVEN

SQUARE = Preprocess(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=1.0)


def test_a_map_is_the_same_for_the_same_seed_and_holds_what_must_be_shown() -> None:
    features = np.random.default_rng(0).normal(size=(40, 8))
    one, other = layout(features), layout(features)
    assert one is not None
    assert other is not None
    assert np.array_equal(one.xy, other.xy)
    many = np.zeros((MOST + 500, 1), np.float32)
    many[:, 0] = np.arange(len(many))
    shown = layout(many, keep=[3, 1200])
    assert shown is not None
    assert len(shown.rows) == len(set(shown.rows.tolist())) == MOST
    assert {3, 1200} <= set(shown.rows.tolist())


@pytest.mark.parametrize("features", [np.zeros((9, 4)), np.ones((2, 4)), np.full((9, 4), np.nan)])
def test_there_is_no_map_of_photos_that_are_too_few_or_all_alike(features: np.ndarray) -> None:
    assert layout(features) is None


def test_small_pictures_are_upright_without_exif_and_stand_there_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010E] = "secret place"
    file = io.BytesIO()
    Image.new("RGB", (300, 100), (200, 30, 30)).save(file, "JPEG", exif=exif)
    made = album(story(3, read=lambda _: file.getvalue()), [Wanted(0), Wanted(0, is_large=True), Wanted(1)])
    assert sorted(made.pictures) == [0, 1]
    data = base64.b64decode(made.pictures[1].partition(",")[2])
    assert b"secret" not in data
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.height > 2 * picture.width
        assert not picture.getexif()


def test_pictures_end_with_the_budget_and_the_first_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehead.reporting.thumbnails.BUDGET_BYTES", 20_000)
    noisy = jpeg(0, (400, 400), noise=True)
    made = album(story(40, read=lambda _: noisy), [Wanted(i) for i in range(40)])
    assert 0 < len(made.pictures) < 10
    assert sorted(made.pictures) == list(range(len(made.pictures)))
    assert sum(map(len, made.pictures.values())) <= 20_000 < BUDGET_BYTES


def test_photos_that_are_gone_or_broken_are_told_with_the_reason() -> None:
    def read(photo: Photo) -> bytes:
        if photo.digest[0] == 0:
            raise FileNotFoundError(2, "No such file or directory")
        if photo.digest[0] == 1:
            raise PhotoError(what="is another file now")
        return b"no picture"

    made = album(story(3, read=read), [Wanted(i) for i in range(3)])
    assert list(made.gone.values()) == [
        "No such file or directory",
        "is another file now",
        "is not an image that can be read",
    ]
    assert made.has(0)
    assert not made.pictures


def test_an_activation_map_lies_where_the_network_looks() -> None:
    heat = np.ones((7, 7), np.float32)
    cropped = over_picture(heat, (200, 100), SQUARE)
    assert cropped.shape == (100, 200)
    assert np.isfinite(cropped[:, 60:140]).all()
    assert np.isnan(cropped[:, :45]).all()
    assert np.isfinite(over_picture(heat, (200, 100), replace(SQUARE, fit="squash"))).all()
    assert np.isfinite(over_picture(heat, (200, 100), replace(SQUARE, fit="pad"))).all()
    lit = np.asarray(overlaid(Image.new("RGB", (200, 100), (90, 90, 90)), cropped))
    assert lit[50, 100].sum() > lit[50, 10].sum()


def test_no_two_figures_share_an_id_or_a_colour_of_their_own() -> None:
    verdict = story().verdict
    assert verdict.calibration is not None
    assert verdict.growth is not None
    whole = reliability_svg(verdict.calibration) + growth_svg(verdict.growth)
    ids = [part.partition('"')[0] for part in whole.split(' id="')[1:]]
    assert len(ids) == len(set(ids)) > 4
    assert "#fa" not in whole
    assert "style" not in whole
    assert "var(--accent)" in whole


def test_the_wrong_photos_of_each_cell_come_in_turn_before_the_right_ones() -> None:
    told = story(120, ("a", "b", "c"), spread=2.0)
    cells = matrix(told, told.verdict)
    places = by_rank(cells.opened)
    wrong = [told.classes[told.answer(place)[0]] != told.photos[place].label for place in places]
    assert wrong == sorted(wrong, reverse=True)
    firsts = {cell.photos[0] for cell in cells.opened if not cell.is_right}
    assert set(places[: len(firsts)]) == firsts
    assert all(len(cell.photos) == cell.n for cell in cells.opened if not cell.is_right)


@pytest.mark.parametrize(
    ("n_gains", "n_losses", "shown"), [(500, 300, [200, 200]), (500, 3, [397, 3]), (3, 500, [3, 397]), (5, 0, [5])]
)
def test_a_comparison_shows_photos_of_both_sides(n_gains: int, n_losses: int, shown: list[int]) -> None:
    def read(photo: Photo) -> bytes:
        raise PhotoError(what="It is gone.")

    n = n_gains + n_losses
    is_gain = np.arange(n) < n_gains
    right, wrong = Said(("cat",), 0.9, True), Said(("dog",), 0.9, False)
    changes = [
        Change(f"{i}.jpg", ("cat",), *((wrong, right) if gain else (right, wrong))) for i, gain in enumerate(is_gain)
    ]
    photos = [Photo(change.path, "cat", "valid", bytes(32)) for change in changes]
    scores = wilson(n_losses, n), wilson(n_gains, n)
    beside = paired(~is_gain, is_gain, np.zeros(n, np.int64))
    _, *groups = comparison(("one", "other"), scores, beside, changes, photos, read).split('<section id="group-')
    assert [group.count('<figure class="tile">') for group in groups] == shown
    for group, hidden in zip(groups, (n_gains - shown[0], n_losses - sum(shown[1:])), strict=False):
        assert (f"and {hidden} more" in group) == (hidden > 0)


def test_many_classes_give_pairs_instead_of_a_matrix() -> None:
    told = story(300, [f"class {i}" for i in range(50)], spread=2.0)
    cells = matrix(told, told.verdict)
    assert not cells.rows
    assert [cell.n for cell in cells.pairs] == sorted((cell.n for cell in cells.pairs), reverse=True)
    assert cells.n_pairs >= len(cells.pairs) > 0


def test_the_plain_sentences() -> None:
    told = story()
    verdict = told.verdict
    assert headline(verdict).startswith(f"Right on {round(verdict.top1.value * 20)} of 20 photos it never saw: ")
    assert "it was given" in headline(replace(verdict, side=GIVEN))
    assert calibration_sentence(verdict.calibration).startswith("When it says ")
    assert "are called unsure" in selective_sentence(verdict.selective)
    assert "Wanted were 99.5\u00a0%." in selective_sentence(replace(verdict.selective, precision=0.995))
    none = selective_sentence(replace(verdict.selective, coverage=wilson(0, 20), right=None))
    assert "it answers none of the photos, so how many" in none
    assert interval(wilson(394, 400)).replace("\u00a0", " ") == "98.5 % (96.8 to 99.3)"
    assert interval(None) == "–"


@pytest.mark.parametrize("text", ["\udcff", "half\ud800", "a\nb\x00\x1b[31m", "\u202eabc", "x" * 5000])
def test_any_name_can_be_written(text: str) -> None:
    assert plain(text).encode("utf-8").isascii() or text.startswith("\u202e")
    assert not any(ord(c) < 32 for c in plain(text))
    assert len(shortened(text)) <= 96


def test_leaks_and_shortcuts_are_grave_and_come_first() -> None:
    told = story()
    found = concerns(replace(told, audit=audit_of(told.photos)))
    grave = [concern.is_grave for concern in found]
    assert grave == sorted(grave, reverse=True)
    assert [concern.href for concern in found][:2] == ["#copies", "#shortcuts"]
    assert any("likely wrong" in concern.text for concern in found)


def test_what_was_not_looked_for_is_not_told_as_missing() -> None:
    photos = story().photos
    seen = replace(audit_of(photos), labels=(), copies=(), broken=())
    assert nothing_found(seen) == (
        "No leak, no shortcut and no label that is likely wrong was found, and there are enough photos to tell."
    )
    assert nothing_found(audit_without_classes(photos)) == (
        "No leak was found, and there are enough photos to tell. Wrong labels and shortcuts were not looked for."
    )
    assert nothing_found(replace(seen, shortcuts=())).endswith("to tell. Shortcuts were not looked for.")
    assert "Leaks, wrong labels and shortcuts were not looked for" in nothing_found(None)


def test_copies_of_which_no_photo_was_used_come_last_as_there_is_nothing_to_show_of_them() -> None:
    told = full_story()
    assert told.audit is not None
    (leak,) = told.audit.copies
    used, left = (replace(leak, paths=paths, is_leak=False) for paths in (leak.paths, ("left/out.png", "left/too.png")))
    told = replace(told, audit=replace(told.audit, copies=(left, used, leak)))
    assert told.copies == (leak, used, left)


def test_where_no_held_out_photo_is_left_no_share_is_told() -> None:
    told = story()
    audit = replace(audit_of(told.photos), leaks=Leaks(20, wilson(20, 20), None))
    first = concerns(replace(told, audit=audit))[0]
    assert first.text == "20 held-out photos are copies of photos it learned from. None is left without them."


def test_a_single_photo_is_told_as_one() -> None:
    told = story()
    first = told.verdict.mistakes[0].path
    found = concerns(replace(told, audit=None, verdict=replace(told.verdict, leaks=(first,))))
    assert found[0].text == "1 held-out photo also stands on the training side, byte for byte."
    assert _of_unfamiliar(1, 1)[0].text.startswith("1 of 1 held-out photo is unlike all it learned from")


def asked_for(**changed: Any) -> Asked:
    return Asked(**{"source": "/home/me/work/pets", "layout": "auto", "valid": None, "test": None, **changed})


def told_of(asked: Asked, **settings: Any) -> dict[str, str]:
    """What the report says of a run that was asked for so; the command is one that the program takes."""
    run = Run(Path("run"), Recipe(**settings), 0.0, None, "", {}, None, is_running=False, can_resume=False)
    told = dict(command(asked, run))
    tune = get_command(app).commands["tune"]  # type: ignore[attr-defined]
    with tune.make_context("tune", shlex.split(told["command"])[2:]) as context:
        assert backbone_arguments(context.params["backbone_arg"] or []) == run.recipe.backbone_args
    return told


def test_the_command_that_repeats_a_job_names_all_that_was_asked_for() -> None:
    assert told_of(asked_for(), seed=3) == {
        "command": "rehead tune pets --seed 3", "typed in": "the folder that its paths begin in",
    }  # fmt: skip
    table = asked_for(
        source="/home/me/work/a b.csv", layout="manifest", valid="/home/me/work/new/held", test="s3://bucket/zoo",
        from_run="/home/me/runs/pets-1", with_neighbours=True,
    )  # fmt: skip
    settings = {"budget_s": 90.0, "tie_copies": False, "cache_limit_gb": 5.0, "weights": "/home/me/work/w.pth"}
    assert told_of(table, **settings)["command"] == (
        "rehead tune 'work/a b.csv' --layout manifest --valid work/new/held --test s3://bucket/zoo --from runs/pets-1 "
        "--weights work/w.pth --cache-limit 5.0 --no-tie-copies --budget 90s --with-neighbours"
    )


def test_arguments_of_a_backbone_are_typed_as_they_are_read() -> None:
    recipe = Recipe.from_toml(Recipe(backbone_args={"mean": (0.5, 0.5, 0.4), "pad_type": "same"}).to_toml())
    assert told_of(asked_for(), backbone_args=recipe.backbone_args)["command"] == (
        "rehead tune pets --backbone-arg mean=0.5,0.5,0.4 --backbone-arg pad_type=same"
    )


def test_sides_that_were_no_files_have_their_place_in_the_command() -> None:
    asked = Asked.of("/home/me/work/pets", "auto", [("1.jpg", "cat")], None)
    assert told_of(Asked(**json.loads(json.dumps(asked.to_dict())))) == {
        "command": "rehead tune pets --valid VALID", "typed in": "the folder that its paths begin in",
        "VALID": "were handed over in Python, and are no files",
    }  # fmt: skip


def test_paths_that_share_no_folder_are_names_and_the_report_says_so() -> None:
    far = told_of(asked_for(valid="/data/held"))
    assert far["command"] == "rehead tune pets --valid held"
    assert far["paths"] == "are names alone, as they lie far apart: write them whole"
    assert told_of(asked_for(source=None)) == {
        "command": "rehead tune PHOTOS", "PHOTOS": "were handed over in Python, and are no files",
    }  # fmt: skip
    assert told_of(asked_for(source="s3://bucket/zoo")) == {"command": "rehead tune s3://bucket/zoo"}


def test_paths_are_found_as_they_are_and_as_a_verdict_writes_them() -> None:
    photos = photos_of(["a\udcff.jpg", "b.jpg"], ["x", "y"], ["train", "valid"])
    told = replace(story(6), photos=photos, held_out=(1,))
    assert [told.place(path) for path in ("a\udcff.jpg", "a\\xff.jpg", "b.jpg", "c.jpg")] == [0, 0, 1, None]


@pytest.mark.realdata
def test_real_photos_become_small_pictures(data: Path) -> None:
    files = sorted((data / "hymenoptera" / "train").rglob("*.jpg"))[:20]
    made = album(story(20, read=lambda photo: files[photo.digest[0]].read_bytes()), [Wanted(i) for i in range(20)])
    assert len(made.pictures) == 20
    assert max(map(len, made.pictures.values())) < 20_000
